"""Layers that are binary on one side only, that learn a threshold, or don't normalise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ovsw_jax as ovsw
from tests.layer_oracle import numpy_conv, numpy_sign

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 5, 4, 3))
COTANGENT = RNG.normal(size=(2, 3, 2, 2))


def both(layer, x):
    """Output and gradients of an NNX layer's parameters and input."""
    graph, params, rest = nnx.split(layer, nnx.Param, ...)
    y, transpose = jax.vjp(
        lambda p, x: nnx.merge(graph, p, rest)(x), nnx.to_pure_dict(params), jnp.asarray(x)
    )
    return y, *transpose(jnp.ones_like(y) if y.shape != COTANGENT.shape else jnp.asarray(COTANGENT))


def by_basis(linear, shape):
    """Gradient of a linear function's product with COTANGENT, one entry at a time."""
    gradient = np.zeros(shape)
    for i in np.ndindex(shape):
        unit = np.zeros(shape)
        unit[i] = 1
        gradient[i] = (linear(unit) * COTANGENT).sum()
    return gradient


def make_conv(**arguments):
    return ovsw.nn.BinaryConv(
        3, 2, (3, 3), padding="VALID", param_dtype=jnp.float64, rngs=nnx.Rngs(0), **arguments
    )


def test_binary_weights_alone(float64):
    layer = make_conv(input_sign=None, scale=None)
    y, gradients, dx = both(layer, X)
    signs = numpy_sign(np.asarray(layer.latent_kernel[...]))
    np.testing.assert_allclose(y, numpy_conv(X, signs), rtol=1e-12)
    expected = by_basis(lambda w: numpy_conv(X, w), signs.shape)
    np.testing.assert_allclose(gradients["latent_kernel"], expected, rtol=1e-10)
    np.testing.assert_allclose(dx, by_basis(lambda x: numpy_conv(x, signs), X.shape), rtol=1e-10)


def test_binary_activations_alone(float64):
    layer = make_conv(kernel_sign=None, scale=None)
    y, gradients, dx = both(layer, X)
    kernel = np.asarray(layer.kernel[...])
    np.testing.assert_allclose(y, numpy_conv(numpy_sign(X), kernel), rtol=1e-12)
    expected = by_basis(lambda w: numpy_conv(numpy_sign(X), w), kernel.shape)
    np.testing.assert_allclose(gradients["kernel"], expected, rtol=1e-10)
    deviation = np.sqrt(X.var(axis=(1, 2, 3), ddof=1, keepdims=True) + 1e-5)
    window = np.maximum(2 - 2 * np.abs(X / deviation), 0) / deviation
    behind = by_basis(lambda a: numpy_conv(a, kernel), X.shape)
    np.testing.assert_allclose(dx, behind * window, rtol=1e-10)


def test_real_input_is_never_normalised(float64):
    layer = ovsw.nn.BinaryDense(3, 2, input_sign=None, rngs=nnx.Rngs(0))
    trained = layer(jnp.asarray(X))
    layer.eval()
    np.testing.assert_array_equal(layer(jnp.asarray(X)), trained)


@pytest.mark.parametrize("make", [ovsw.nn.BinaryConv, ovsw.nn.BinaryDense])
def test_real_weights_have_another_name(make):
    """So that the default mask of the transforms leaves them alone."""
    size = {"kernel_size": (3, 3)} if make is ovsw.nn.BinaryConv else {}
    for missing, name in (("kernel_sign", "kernel"), ("input_sign", "latent_kernel")):
        options = {missing: None, "scale": "learned", "use_bias": True}
        layer = make(3, 4, **size, **options, rngs=nnx.Rngs(0))
        params = nnx.to_pure_dict(nnx.state(layer, nnx.Param))
        assert set(params) == {name, "bias", "filter_scale"}
        mask = ovsw.latent_mask(params)
        assert mask == {key: key == "latent_kernel" for key in params}
    real = make(3, 4, **size, kernel_sign=None, scale=None, rngs=nnx.Rngs(0))
    params = nnx.state(real, nnx.Param)
    with pytest.raises(ValueError, match="the mask selects none of the 1 parameters"):
        ovsw.sad(1e-3).init(params)


def test_both_kinds_of_weights_start_alike():
    """One seed, one kernel, under either name: a network keeps its weights when it turns binary."""
    real = ovsw.nn.BinaryConv(3, 4, (3, 3), kernel_sign=None, scale=None, rngs=nnx.Rngs(7))
    latent = ovsw.nn.BinaryConv(3, 4, (3, 3), rngs=nnx.Rngs(7))
    np.testing.assert_array_equal(real.kernel[...], latent.latent_kernel[...])


def test_learned_factor_of_real_weights_starts_at_1():
    layer = ovsw.nn.BinaryDense(3, 4, kernel_sign=None, scale="learned", rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(layer.filter_scale[...], np.ones(4))
    params = ovsw.linen.BinaryDense(4, kernel_sign=None, scale="learned").init(
        jax.random.key(0), jnp.ones((1, 3)), train=False
    )["params"]
    np.testing.assert_array_equal(params["filter_scale"], np.ones(4))


def test_without_normalisation_training_is_evaluation():
    layer = ovsw.nn.BinaryConv(3, 2, (3, 3), normalize_input=False, rngs=nnx.Rngs(0))
    normalized = ovsw.nn.BinaryConv(3, 2, (3, 3), rngs=nnx.Rngs(0))
    x = 3 * jnp.asarray(X, jnp.float32)
    trained, other = both(layer, x), both(normalized, x)
    layer.eval(), normalized.eval()
    jax.tree.map(np.testing.assert_array_equal, both(layer, x), trained)
    jax.tree.map(np.testing.assert_array_equal, both(normalized, x), trained)
    assert not np.allclose(other[2], trained[2])


VARIANTS = {
    "weights only": {"input_sign": None},
    "weights only, mean magnitude": {"input_sign": None, "scale": ovsw.nn.mean_magnitude},
    "activations only": {"kernel_sign": None, "scale": None},
    "activations only, learned": {"kernel_sign": None, "scale": "learned", "use_bias": True},
    "not normalised": {"normalize_input": False},
    "mean magnitude": {"scale": ovsw.nn.mean_magnitude},
    "magnitude-aware": {"kernel_sign": ovsw.nn.magnitude_aware_sign, "scale": None},
    "standardised": {"kernel_sign": ovsw.nn.standardized_sign},
    "learned threshold": {"normalize_input": False, "input_sign": "LearnedThresholdSign"},
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(
    ("train", "dtype"), [(True, jnp.float32), (True, jnp.bfloat16), (False, None)]
)
@pytest.mark.parametrize("kind", ["BinaryConv", "BinaryDense"])
def test_linen_is_the_same(kind, name, train, dtype):
    arguments = VARIANTS[name] | {"dtype": dtype}
    in_linen = dict(arguments)
    if arguments.get("input_sign") == "LearnedThresholdSign":
        arguments["input_sign"] = ovsw.nn.LearnedThresholdSign(3)
        in_linen["input_sign"] = ovsw.linen.LearnedThresholdSign()
    size = {"kernel_size": (3, 3), "strides": 3} if kind == "BinaryConv" else {}
    layer = getattr(ovsw.nn, kind)(3, 2, **size, **arguments, rngs=nnx.Rngs(0))
    layer.train() if train else layer.eval()
    other = getattr(ovsw.linen, kind)(2, **size, **in_linen)
    params = nnx.to_pure_dict(nnx.state(layer, nnx.Param))
    x = jnp.asarray(X, jnp.float32)
    initial = other.init(jax.random.key(0), x, train=train)["params"]
    assert jax.tree.map(jnp.shape, initial) == jax.tree.map(jnp.shape, params)
    y, transpose = jax.vjp(lambda p, x: other.apply({"params": p}, x, train=train), params, x)
    assert y.dtype == (dtype or jnp.float32)
    results = both(layer, x), (y, *transpose(jnp.ones_like(y)))
    jax.tree.map(np.testing.assert_array_equal, *results)
