"""Bad input to the transforms: each error names the value, the rule and the remedy."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from public_transforms import TRANSFORMS

import ovsw_jax as ovsw

pytestmark = pytest.mark.usefixtures("strict_promotion")

PARAMS = {"conv": {"latent_kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}}
READ_GRADIENTS = sorted(TRANSFORMS.keys() - {"track_flip_state"})
FLIP_RULES = {
    "silence_aware_decay": (ovsw.silence_aware_decay, "momentum"),
    "track_flip_state": (ovsw.track_flip_state, "momentum"),
    "ovsw_sgd": (functools.partial(ovsw.ovsw_sgd, 0.1), "flip_momentum"),
}


@pytest.fixture(params=TRANSFORMS)
def make(request):
    return TRANSFORMS[request.param]


@pytest.fixture(params=FLIP_RULES)
def make_flips(request):
    """A factory with its mu under the name `momentum`."""
    make, momentum_name = FLIP_RULES[request.param]

    def renamed(**hyperparameters):
        if "momentum" in hyperparameters:
            hyperparameters[momentum_name] = hyperparameters.pop("momentum")
        return make(**hyperparameters)

    return renamed


def assert_raises(error, parts, function, *args, **kwargs):
    """`function` raises `error` with a text that contains each of `parts` in this order."""
    with pytest.raises(error, match="(?s)" + ".*".join(map(re.escape, parts))):
        function(*args, **kwargs)


def test_params_not_given(make):
    tx = make()
    rule = getattr(make, "func", make).__name__
    parts = [rule, "params=None", "call update(gradients, state, params)"]
    assert_raises(ValueError, parts, tx.update, PARAMS, tx.init(PARAMS), None)


@pytest.mark.parametrize(
    "mask",
    [
        {"conv": {"latent_kernel": False, "bias": False}},
        lambda params: jax.tree.map(lambda _: False, params),
        False,
    ],
)
def test_a_mask_that_selects_nothing(make, mask):
    parts = ["selects none of the 2 parameters (conv/bias, conv)", "`latent_kernel`", "mask="]
    assert_raises(ValueError, parts, make(mask=mask).init, PARAMS)


def test_a_model_without_latent_weights(make):
    params = {f"layer{i}": {"kernel": jnp.ones((3, 4))} for i in range(7)}
    parts = ["selects none of the 7 parameters (layer0/kernel, layer1/kernel,", ", ...)"]
    assert_raises(ValueError, [*parts, "BinaryConv"], make().init, params)


def test_a_mask_on_variable_types_is_refused_rather_than_empty():
    class Latent(nnx.Param):
        pass

    class Model(nnx.Module):
        def __init__(self):
            self.weight = Latent(jnp.ones((3, 4)))

    def by_type(params):
        return jax.tree.map(
            lambda x: isinstance(x, Latent), params, is_leaf=lambda x: isinstance(x, Latent)
        )

    tx = ovsw.scale_by_ags(mask=by_type)
    model = Model()

    def train_once():
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        optimizer.update(model, nnx.state(model, nnx.Param))

    assert_raises(ValueError, ["selects none", "Variable types", "nnx.Optimizer"], train_once)


@pytest.mark.parametrize("name", READ_GRADIENTS)
@pytest.mark.parametrize(
    ("gradients", "parts"),
    [
        (
            {"latent_kernel": jnp.ones((3, 1)), "bias": jnp.ones(4)},
            ["'conv'", "(3, 1)", "(3, 4)", "must be equal", "Pass `params`"],
        ),
        (
            {"latent_kernel": jnp.ones((3, 4))},
            ["gradients and params have different tree structures", "Pass the params"],
        ),
    ],
    ids=["shapes", "structures"],
)
def test_gradients_that_do_not_fit_the_params(name, gradients, parts):
    tx = TRANSFORMS[name]()
    assert_raises(ValueError, parts, tx.update, {"conv": gradients}, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize("name", [*FLIP_RULES, "lars_sgd", "bop"])
@pytest.mark.parametrize("shape", [(1, 4), (5, 4)])
def test_params_of_another_shape_than_the_state(name, shape):
    tx = TRANSFORMS[name]()
    state = tx.init({"conv": {"latent_kernel": jnp.ones(shape), "bias": jnp.ones(4)}})
    kept = [] if name in FLIP_RULES else ["(3, 4)", "their momentum"]
    assert_raises(ValueError, ["'conv'", *kept, str(shape)], tx.update, PARAMS, state, PARAMS)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.int8, jnp.bool_, jnp.complex64])
def test_latent_weights_that_are_not_real_floats(make, dtype):
    params = {"conv": {"latent_kernel": jnp.ones((3, 4), dtype), "bias": jnp.ones(4)}}
    parts = ["'conv'", f"dtype {jnp.dtype(dtype).name}", "real floating-point", "float32", "mask"]
    assert_raises(TypeError, parts, make().init, params)


NEGATIVE = [-0.1, -1e-9, np.nan, np.inf, -np.inf]
SGD, LARS = functools.partial(ovsw.ovsw_sgd, 0.1), functools.partial(ovsw.lars_sgd, 0.1)
# A factory, its hyperparameter, values out of range, and the rule that they break.
RANGES = [
    (ovsw.scale_by_ags, "lam", NEGATIVE, ["finite and >= 0", "lam=0 switches"]),
    (ovsw.silence_aware_decay, "tau", NEGATIVE, ["finite and >= 0", "tau=0 switches"]),
    *(
        (SGD, name, NEGATIVE, ["finite and >= 0", f"{name}=0 switches"])
        for name in ("lam", "tau", "weight_decay")
    ),
    (SGD, "momentum", [1.0, np.nan], ["is out of range"]),
    (ovsw.ovsw_sgd, "learning_rate", [-1.0, np.nan], ["is out of range"]),
    (LARS, "eta", [0.0, -1.0, np.nan, np.inf], ["finite and > 0"]),
    (ovsw.lars_sgd, "learning_rate", [-1.0, np.nan, np.inf], ["finite and >= 0"]),
    (LARS, "weight_decay", [-1e-9, np.nan], ["finite and >= 0"]),
    (LARS, "momentum", [-0.1, 1.0, np.nan], ["below 1"]),
    (ovsw.bop, "threshold", [-1e-9, np.nan, np.inf], ["finite and >= 0"]),
    (ovsw.bop, "adaptivity", [0.0, -1.0, 1.5, np.nan], ["above 0 and at most 1"]),
    (ovsw.clip_latent, "limit", [0.0, -1.0, np.nan, np.inf, 1e-45], ["finite and > 0"]),
]


@pytest.mark.parametrize(("make", "name", "values", "rule"), RANGES)
def test_hyperparameters_out_of_range(make, name, values, rule):
    for value in values:
        assert_raises(ValueError, [f"{name}={value:g}", *rule], make, **{name: value})
        array = jnp.array([0.1, value], jnp.float32)
        assert_raises(ValueError, [f"{name}={np.float32(value):g}"], make, **{name: array})
    assert_raises(TypeError, [f"{name}='0.1' is no real number"], make, **{name: "0.1"})


@pytest.mark.parametrize("value", ["0.1", None, 1j, [None]])
@pytest.mark.parametrize("name", ["tau", "momentum", "threshold"])
def test_hyperparameters_that_are_no_numbers(name, value):
    assert_raises(TypeError, [f"{name}=", "is no real number"], ovsw.sad, **{name: value})


RULE = ["strictly between 0 and 1", "0.999", "not the momentum of SGD"]
HORIZON = "threshold_for_horizon(momentum, steps)"
# Rules of a flip state, and what is said of them.
UNFIT = [
    *(({"momentum": x}, [f"momentum={x:g}", *RULE]) for x in (0.0, 1.0, -0.5, 1.5, np.nan, np.inf)),
    *(
        ({"threshold": x}, [f"threshold={x:g}", "finite and > 0", HORIZON])
        for x in (0.0, -1e-4, np.nan, np.inf)
    ),
    (
        {"momentum": 0.999, "threshold": 0.0011},
        ["0.0011 can never be reached", "1 - momentum = 0.001", "Use a threshold <= 1 - momentum"],
    ),
    ({"state": "bits"}, ["state='bits'", "'packed'", "'ema'"]),
    ({"state": "ema", "threshold": 1e-38}, ["threshold=1e-38 is below what float32 holds"]),
    ({"state": "ema", "momentum": 1 - 1e-9, "threshold": 1e-10}, ["is 1 in float32"]),
]


@pytest.mark.parametrize(("rule", "parts"), UNFIT)
def test_rules_of_a_flip_state_out_of_range(make_flips, rule, parts):
    assert_raises(ValueError, parts, make_flips, **rule)


# momentum, threshold, the state, what is said of them, and the state that holds them.
BEYOND = [
    (0.9996, 1e-4, "packed", "momentum=0.9996", "ema"),
    (0.999, 7e-8, "packed", "threshold=7e-08", "ema"),
    (0.99995, 1e-6, "packed8", "momentum=0.99995", "ema"),
    (0.999, 4.5e-5, "packed8", "threshold=4.5e-05", "packed"),
    (0.999, 9.5e-4, "packed8", "threshold=0.00095 at momentum=0.999", "packed"),
]


@pytest.mark.parametrize(("momentum", "threshold", "state", "value", "remedy"), BEYOND)
def test_a_horizon_that_a_state_cannot_hold(make_flips, momentum, threshold, state, value, remedy):
    rule = {"momentum": momentum, "threshold": threshold}
    parts = [value, f"{state} state", f"state='{remedy}'"]
    assert_raises(ValueError, parts, make_flips, **rule, state=state)
    assert_raises(ValueError, [HORIZON], make_flips, **rule, state=state)
    assert make_flips(**rule, state=remedy).init(PARAMS)


def test_a_threshold_that_one_flip_just_reaches(make_flips):
    """S is then at the threshold, not below it, in the step of the flip."""
    assert make_flips(momentum=0.75, threshold=0.25).init(PARAMS)


def test_an_unknown_variant_of_lars():
    parts = ["variant='old'", "'updated'", "'literal'"]
    assert_raises(ValueError, parts, ovsw.lars_sgd, 0.1, variant="old")


@pytest.mark.parametrize("axes", [(0, 2), (-3,)])
def test_axes_that_the_kernel_does_not_have(axes):
    parts = [f"axes={axes}", "'conv'", "(3, 4)", "does not exist", "ovsw.filter_axes(model)"]
    assert_raises(ValueError, [*parts, "axes=None"], ovsw.scale_by_ags(axes=axes).init, PARAMS)


def test_injected_hyperparameters_are_checked_too():
    injected = optax.inject_hyperparams(ovsw.silence_aware_decay)(tau=-1.0)
    assert_raises(ValueError, ["tau=-1", "finite and >= 0"], injected.init, PARAMS)


@pytest.mark.parametrize(
    ("function", "momentum", "other", "parts"),
    [
        *(
            (function, momentum, 100, [f"momentum={momentum:g}", "strictly between 0 and 1"])
            for function in (ovsw.silence_horizon, ovsw.threshold_for_horizon)
            for momentum in (0.0, 1.0, 2.0, np.nan)
        ),
        *(
            (ovsw.silence_horizon, 0.999, sigma, [f"threshold={sigma:g}", "threshold_for_horizon"])
            for sigma in (0.0, -1.0, np.nan, 0.0011)
        ),
        *(
            (ovsw.threshold_for_horizon, 0.999, n, [f"steps={n}", "whole number", "at least 1"])
            for n in (0, -3, 2.5, np.nan, np.inf)
        ),
        (ovsw.threshold_for_horizon, 0.9, 10**5, ["steps=100000", "no float holds", "nearer to 1"]),
    ],
)
def test_horizons_out_of_range(function, momentum, other, parts):
    assert_raises(ValueError, parts, function, momentum, other)


def test_metrics_of_a_state_that_has_none():
    state = optax.adam(0.1).init(PARAMS)
    remedy = ["holds no flip state", "ovsw.track_flip_state()", "ovsw.sad()"]
    assert_raises(ValueError, remedy, ovsw.flip_metrics, state)
    assert_raises(ValueError, remedy, ovsw.silent_mask, ovsw.ags().init(PARAMS))
    assert_raises(ValueError, remedy, ovsw.never_flipped_mask, ovsw.ags().init(PARAMS))
