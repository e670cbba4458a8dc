"""NaN and infinity: `optax.apply_if_finite` around the rules, and `jax_debug_nans`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from longer import long_but

import ovsw_jax as ovsw

STATES = ("packed", "packed8", "ema")
BAD = (jnp.nan, jnp.inf, -jnp.inf)
PARAMS = {
    "conv": {"latent_kernel": jnp.linspace(-1, 1, 3 * 3 * 4 * 2).reshape(3, 3, 4, 2)},
    "fc": {"bias": jnp.zeros(3), "kernel": jnp.ones((2, 3))},
}
LEAVES = len(jax.tree.leaves(PARAMS))
OPTIMIZERS = {
    "ovsw_sgd": lambda state: ovsw.ovsw_sgd(0.1, state=state),
    "chain": lambda state: optax.chain(ovsw.ags(), ovsw.sad(state=state), optax.adam(0.1)),
    "observed": lambda state: optax.chain(ovsw.track_flip_state(state=state), optax.sgd(0.1, 0.9)),
}


def gradients(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), PARAMS)


def spoil(tree, leaf, place, value):
    leaves, treedef = jax.tree.flatten(tree)
    index = np.unravel_index(place % leaves[leaf].size, leaves[leaf].shape)
    leaves[leaf] = leaves[leaf].at[index].set(value)
    return treedef.unflatten(leaves)


def stepper(tx):
    @jax.jit
    def step(grads, state, params):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


@pytest.fixture(scope="module")
def guarded():
    """A guarded optimizer, its compiled step, and where it stands after three finite steps."""
    made = {}

    def make(name, state):
        if (name, state) not in made:
            tx = optax.apply_if_finite(OPTIMIZERS[name](state), 5)
            step, stands = stepper(tx), (PARAMS, tx.init(PARAMS))
            for seed in range(3):
                stands = step(gradients(seed), stands[1], stands[0])
            made[name, state] = step, stands
        return made[name, state]

    return make


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", OPTIMIZERS)
@given(leaf=st.integers(0, LEAVES - 1), place=st.integers(0, 71), value=st.sampled_from(BAD))
def test_a_bad_gradient_changes_nothing(guarded, name, state, leaf, place, value):
    """Weights, momentum and flip state are what they were; the next step is as if it never was."""
    step, (params, before) = guarded(name, state)
    after_params, after = step(spoil(gradients(7), leaf, place, value), before, params)
    assert_same(after_params, params)
    assert_same(after.inner_state, before.inner_state)
    assert (int(after.notfinite_count), int(after.total_notfinite)) == (1, 1)
    assert_same(ovsw.flip_metrics(after), ovsw.flip_metrics(before))
    went_on = step(gradients(8), after, after_params)
    undisturbed = step(gradients(8), before, params)
    assert_same(went_on[0], undisturbed[0])
    assert_same(went_on[1].inner_state, undisturbed[1].inner_state)
    assert int(went_on[1].notfinite_count) == 0


SIZES = st.sampled_from([0.0, 1e-38, 1e-20, 1.0, 1e20, 3e38])
RULES = {
    "ovsw": ovsw.ags(0.04),
    "ags 0": ovsw.ags(0.0),
    **{state: ovsw.sad(state=state) for state in STATES},
    "tracked": ovsw.track_flip_state(),
    "lars": ovsw.lars_sgd(0.1, weight_decay=0.0),
    "lars literal": ovsw.lars_sgd(0.1, variant="literal"),
    "bop": ovsw.bop(1e-6, adaptivity=1e-3),
    "ovsw_sgd": ovsw.ovsw_sgd(0.1),
}


@pytest.mark.parametrize("name", long_but(RULES, "ovsw_sgd", "lars", "bop"))
@given(weight=SIZES, gradient=SIZES)
def test_no_rule_makes_a_nan_of_finite_numbers(name, weight, gradient):
    """Not on the way either, for dead filters and norms beyond the range."""
    tx, pattern = RULES[name], jnp.array([[1.0, -1.0], [1.0, 0.0]])
    params, grads = {"latent_kernel": weight * pattern}, {"latent_kernel": gradient * pattern}
    with jax.debug_nans(True):
        updates, state = tx.update(grads, tx.init(params), params)
        tx.update(grads, state, params)
    assert not any(np.isnan(x).any() for x in jax.tree.leaves(updates))


def layer_loss(layer, images):
    return jnp.sum(jnp.square(layer(images)))


@pytest.mark.parametrize("kind", ["conv", "dense"])
def test_layers_under_debug_nans(kind):
    """Dead filters and dead inputs raise no alarm; a NaN in a weight's gradient does."""
    layer, images = layers_of()[kind]
    kernel = layer.latent_kernel[...]
    with jax.debug_nans(True):
        for weights in (kernel, kernel.at[..., 0].set(0), jnp.zeros_like(kernel)):
            layer.latent_kernel[...] = weights
            for x in (images, jnp.zeros_like(images)):
                grads = jax.tree.leaves(nnx.grad(layer_loss)(layer, x))
                assert all(np.isfinite(g).all() for g in grads)
        with pytest.raises(FloatingPointError, match="nan"):
            nnx.grad(lambda m, x: layer_loss(m, x) * jnp.log(-jnp.sum(x * x)))(layer, images)


def layers_of(scale="standardized", **options):
    """Layers of each kind that know what is in training: (of an input, train) and an input."""
    options |= {"scale": scale}
    conv = ovsw.nn.BinaryConv(4, 2, (3, 3), rngs=nnx.Rngs(0), **options)
    dense = ovsw.nn.BinaryDense(4, 2, rngs=nnx.Rngs(0), **options)
    rng = np.random.default_rng(0)
    maps = jnp.asarray(rng.normal(size=(2, 3, 3, 4)), jnp.float32)
    return {"conv": (conv, maps), "dense": (dense, maps[:, 0, 0])}


def outputs(layer, x):
    """In training, in evaluation."""
    layer.train()
    trained = layer(x)
    layer.eval()
    return np.asarray(trained), np.asarray(layer(x))


@pytest.mark.parametrize("bad", long_but(BAD, jnp.nan))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalize_input": False, "scale": None},
        {"kernel_sign": None, "scale": "learned", "use_bias": True},
        {"threshold": True, "normalize_input": False},
    ],
    ids=["default", "not normalised", "real weights", "threshold"],
)
def test_a_sample_that_is_not_finite_shows_in_training(options, bad):
    """All of its output, and nothing of the other samples; evaluation takes NaN for -1."""
    if (options := dict(options)).pop("threshold", False):
        options["input_sign"] = ovsw.nn.LearnedThresholdSign(4)
    for layer, x in layers_of(**options).values():
        spoilt = x.at[(0,) * x.ndim].set(bad)
        trained, evaluated = outputs(layer, spoilt)
        assert np.isnan(trained[0]).all()
        np.testing.assert_array_equal(trained[1], outputs(layer, x)[0][1])
        as_sign = x.at[(0,) * x.ndim].set(1 if bad > 0 else -1)
        np.testing.assert_array_equal(evaluated, outputs(layer, as_sign)[1])
    layer.train()
    grads = nnx.grad(lambda m: m(spoilt).sum())(layer)  # of the dense layer; no loss shows here
    kernel = grads["kernel" if options.get("kernel_sign", 1) is None else "latent_kernel"]
    assert np.isnan(kernel[...]).all()


@pytest.mark.parametrize("bad", long_but(BAD, jnp.nan))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": "learned"},
        {"scale": None},
        {"scale": lambda kernel: jnp.ones(kernel.shape[-1])},
        {"input_sign": None, "scale": None},
        {"kernel_sign": ovsw.nn.standardized_sign, "scale": None},
        {"kernel_sign": ovsw.nn.magnitude_aware_sign, "scale": None},
    ],
    ids=["default", "learned", "none", "function", "real input", "standardized", "magnitude"],
)
def test_a_filter_that_is_not_finite_shows(options, bad):
    for layer, x in layers_of(**options).values():
        clean = outputs(layer, x)
        layer.latent_kernel[...] = layer.latent_kernel[...].at[..., 0, 1].set(bad)
        for y, expected in zip(outputs(layer, x), clean, strict=True):
            assert not np.isfinite(y[..., 1]).any()
            np.testing.assert_array_equal(y[..., 0], expected[..., 0])
    single = ovsw.nn.BinaryDense(1, 1, kernel_init=nnx.initializers.constant(bad), rngs=nnx.Rngs(0))
    assert np.isnan(single(jnp.ones((1, 1))))


@pytest.mark.parametrize("bad", long_but(BAD, jnp.nan))
def test_a_threshold_that_is_not_finite_shows_in_training(bad):
    sign = ovsw.nn.LearnedThresholdSign(4)
    sign.threshold[...] = sign.threshold[...].at[2].set(bad)
    for layer, x in layers_of(input_sign=sign, normalize_input=False).values():
        assert np.isnan(outputs(layer, x)[0]).all()


@pytest.mark.parametrize("bad", long_but(BAD, jnp.nan))
def test_linen_layers_tell_likewise(bad):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4)), jnp.float32)
    spoilt = x.at[0, 0].set(bad)
    for normalize, sign in (
        (True, ovsw.nn.approx_sign),
        (False, ovsw.linen.LearnedThresholdSign()),
    ):
        layer = ovsw.linen.BinaryDense(2, input_sign=sign, normalize_input=normalize)
        variables = layer.init(jax.random.key(0), x, train=False)
        y = layer.apply(variables, spoilt, train=True)
        assert np.isnan(y[0]).all()
        assert np.isfinite(y[1]).all()
        assert np.isfinite(layer.apply(variables, spoilt, train=False)).all()
    variables["params"]["input_sign"]["threshold"] = jnp.full(4, bad)
    assert np.isnan(layer.apply(variables, x, train=True)).all()


@pytest.mark.long
def test_one_bad_pixel_is_in_the_loss():
    """Batch norm behind the first layer makes NaN of the whole batch."""
    model = ovsw.models.SmallResNet(3, in_channels=1, widths=(8,), rngs=nnx.Rngs(0))
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 1)).at[0, 0, 0, 0].set(jnp.nan)
    logits = model(images)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(4) % 3).mean()
    assert np.isnan(loss)
