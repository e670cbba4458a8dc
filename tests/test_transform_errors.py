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
    assert_raises(
        ValueError,
        ["selects none of the 2 parameters (conv/bias, conv)", "`latent_kernel`", "mask="],
        make(mask=mask).init,
        PARAMS,
    )


def test_a_model_without_latent_weights(make):
    params = {f"layer{i}": {"kernel": jnp.ones((3, 4))} for i in range(7)}
    assert_raises(
        ValueError,
        ["selects none of the 7 parameters (layer0/kernel, layer1/kernel,", ", ...)", "BinaryConv"],
        make().init,
        params,
    )


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
def test_params_and_gradients_of_different_shapes(name):
    tx = TRANSFORMS[name]()
    grads = {"conv": {"latent_kernel": jnp.ones((3, 1)), "bias": jnp.ones(4)}}
    assert_raises(
        ValueError,
        ["'conv'", "(3, 1)", "(3, 4)", "must be equal", "Pass `params`"],
        tx.update,
        grads,
        tx.init(PARAMS),
        PARAMS,
    )


@pytest.mark.parametrize("name", READ_GRADIENTS)
def test_params_and_gradients_of_different_structures(name):
    tx = TRANSFORMS[name]()
    grads = {"conv": {"latent_kernel": jnp.ones((3, 4))}}
    assert_raises(
        ValueError,
        ["gradients and params have different tree structures", "Pass the params"],
        tx.update,
        grads,
        tx.init(PARAMS),
        PARAMS,
    )


@pytest.mark.parametrize("shape", [(1, 4), (5, 4)])
def test_params_of_another_shape_than_the_flip_state(make_flips, shape):
    tx = make_flips()
    state = tx.init({"conv": {"latent_kernel": jnp.ones(shape), "bias": jnp.ones(4)}})
    assert_raises(ValueError, ["'conv'", str(shape)], tx.update, PARAMS, state, PARAMS)


@pytest.mark.parametrize("name", ["lars_sgd", "bop"])
@pytest.mark.parametrize("shape", [(1, 4), (5, 4)])
def test_params_of_another_shape_than_the_momentum(name, shape):
    tx = TRANSFORMS[name]()
    state = tx.init({"conv": {"latent_kernel": jnp.ones(shape), "bias": jnp.ones(4)}})
    parts = ["'conv'", "(3, 4)", "their momentum", str(shape), "must be equal"]
    assert_raises(ValueError, parts, tx.update, PARAMS, state, PARAMS)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.int8, jnp.bool_, jnp.complex64])
def test_latent_weights_that_are_not_real_floats(make, dtype):
    params = {"conv": {"latent_kernel": jnp.ones((3, 4), dtype), "bias": jnp.ones(4)}}
    assert_raises(
        TypeError,
        ["'conv'", f"dtype {jnp.dtype(dtype).name}", "real floating-point", "float32", "mask"],
        make().init,
        params,
    )


COEFFICIENTS = {
    "lam": ovsw.scale_by_ags,
    "tau": ovsw.silence_aware_decay,
    "weight_decay": functools.partial(ovsw.ovsw_sgd, 0.1),
}


@pytest.mark.parametrize("value", [-0.1, -1e-9, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", COEFFICIENTS)
def test_coefficients_out_of_range(name, value):
    parts = [f"{name}={value:g}", "finite and >= 0", f"{name}=0 switches"]
    assert_raises(ValueError, parts, COEFFICIENTS[name], **{name: value})
    assert_raises(ValueError, parts, ovsw.ovsw_sgd, 0.1, **{name: value})
    array = jnp.array([0.1, value], jnp.float32)
    assert_raises(ValueError, [f"{name}={value:g}"], COEFFICIENTS[name], **{name: array})


@pytest.mark.parametrize("value", [0.0, 1.0, -0.5, 1.5, np.nan, np.inf])
def test_momentum_of_the_flip_state_out_of_range(make_flips, value):
    assert_raises(
        ValueError,
        [f"momentum={value:g}", "strictly between 0 and 1", "0.999", "not the momentum of SGD"],
        make_flips,
        momentum=value,
    )


@pytest.mark.parametrize("value", [0.0, -1e-4, np.nan, np.inf])
def test_threshold_out_of_range(make_flips, value):
    assert_raises(
        ValueError,
        [f"threshold={value:g}", "finite and > 0", "threshold_for_horizon(momentum, steps)"],
        make_flips,
        threshold=value,
    )


def test_a_threshold_that_one_flip_cannot_reach(make_flips):
    assert_raises(
        ValueError,
        [
            "threshold=0.0011 can never be reached",
            "1 - momentum = 0.001",
            "Use a threshold <= 1 - momentum",
            "threshold_for_horizon",
        ],
        make_flips,
        momentum=0.999,
        threshold=0.0011,
    )
    # Equal is allowed: S is then at the threshold, not below it, in the step of the flip.
    assert make_flips(momentum=0.75, threshold=0.25).init(PARAMS)


# By hyperparameter: a factory, values out of range, and the rule that they break.
BASELINES = {
    "eta": (functools.partial(ovsw.lars_sgd, 0.1), [0.0, -1.0, np.nan, np.inf], "finite and > 0"),
    "learning_rate": (ovsw.lars_sgd, [-1.0, np.nan, np.inf], "finite and >= 0"),
    "weight_decay": (functools.partial(ovsw.lars_sgd, 0.1), [-1e-9, np.nan], "finite and >= 0"),
    "momentum": (functools.partial(ovsw.lars_sgd, 0.1), [-0.1, 1.0, np.nan], "below 1"),
    "threshold": (ovsw.bop, [-1e-9, np.nan, np.inf], "finite and >= 0"),
    "adaptivity": (ovsw.bop, [0.0, -1.0, 1.5, np.nan], "above 0 and at most 1"),
    "limit": (ovsw.clip_latent, [0.0, -1.0, np.nan, np.inf, 1e-45], "finite and > 0"),
}


@pytest.mark.parametrize("name", BASELINES)
def test_hyperparameters_of_the_baselines_out_of_range(name):
    make, values, rule = BASELINES[name]
    for value in values:
        assert_raises(ValueError, [f"{name}={value:g}", rule], make, **{name: value})
        array = jnp.array([0.1, value], jnp.float32)
        assert_raises(ValueError, [f"{name}={np.float32(value):g}"], make, **{name: array})
    assert_raises(TypeError, [f"{name}='0.1' is no real number"], make, **{name: "0.1"})


def test_an_unknown_variant_of_lars():
    parts = ["variant='old'", "'updated'", "'literal'"]
    assert_raises(ValueError, parts, ovsw.lars_sgd, 0.1, variant="old")


PACKED_CANNOT_HOLD = {
    "momentum=0.9996": {"momentum": 0.9996, "threshold": 1e-4},
    "threshold=7e-08": {"momentum": 0.999, "threshold": 7e-8},
}


@pytest.mark.parametrize("value", PACKED_CANNOT_HOLD)
def test_a_horizon_that_packed_state_cannot_hold(make_flips, value):
    rule = PACKED_CANNOT_HOLD[value]
    assert_raises(
        ValueError, [value, "packed state cannot hold", "state='ema'"], make_flips, **rule
    )
    assert make_flips(**rule, state="ema").init(PARAMS)  # the remedy works


def test_an_unknown_kind_of_flip_state(make_flips):
    assert_raises(ValueError, ["state='bits'", "'packed'", "'ema'"], make_flips, state="bits")


@pytest.mark.parametrize("axes", [(0, 2), (-3,)])
def test_axes_that_the_kernel_does_not_have(axes):
    assert_raises(
        ValueError,
        [
            f"axes={axes}",
            "'conv'",
            "(3, 4)",
            "does not exist",
            "ovsw.filter_axes(model)",
            "axes=None",
        ],
        ovsw.scale_by_ags(axes=axes).init,
        PARAMS,
    )


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
        (
            ovsw.threshold_for_horizon,
            0.9,
            100_000,
            ["steps=100000", "no float holds", "nearer to 1"],
        ),
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
