"""Modules with parameters for each channel: learned thresholds, PReLU, RPReLU."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

import ovsw_jax as ovsw
from tests.layer_oracle import numpy_sign, slopes

FEATURES = 3


def numpy_prelu(x, negative_slope):
    return np.where(x > 0, x, negative_slope * x)


def numpy_rprelu(x, negative_slope, shift_in, shift_out):
    above = x - shift_in + shift_out
    return np.where(x > shift_in, above, negative_slope * (x - shift_in) + shift_out)


def numpy_threshold_sign(x, threshold):
    return numpy_sign(x - threshold)


ORACLES = {
    "LearnedThresholdSign": numpy_threshold_sign,
    "PReLU": numpy_prelu,
    "RPReLU": numpy_rprelu,
}


def parameters(name, seed, dtype=jnp.float32):
    """Random parameters by name, as the module and its oracle name them."""
    _, *names = inspect.signature(ORACLES[name]).parameters
    rng = np.random.default_rng(seed)
    return {key: jnp.asarray(rng.normal(size=FEATURES), dtype) for key in names}


def apply_nnx(name, params, x):
    graph, _ = nnx.split(getattr(ovsw.nn, name)(FEATURES))
    return nnx.merge(graph, params)(x)


def apply_linen(name, params, x):
    return getattr(ovsw.linen, name)().apply({"params": params}, x)


APPLY = {"nnx": apply_nnx, "linen": apply_linen}


@given(
    name=st.sampled_from(list(ORACLES)),
    make=st.sampled_from(sorted(APPLY)),
    dtype=st.sampled_from([jnp.float32, jnp.bfloat16]),
    seed=st.integers(0, 2**31),
)
def test_forward_is_its_formula_in_the_dtype_of_the_input(name, make, dtype, seed):
    x = jnp.asarray(np.random.default_rng(seed).normal(size=(2, 4, FEATURES)), dtype)
    params = parameters(name, seed + 1)
    y = APPLY[make](name, params, x)
    assert y.dtype == dtype
    wide = {key: np.asarray(value, np.float64) for key, value in params.items()}
    expected = ORACLES[name](np.asarray(x, np.float64), **wide)
    tolerance = 1e-6 if dtype == jnp.float32 else 2**-8
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("make", APPLY)
@pytest.mark.parametrize("name", ["PReLU", "RPReLU"])
def test_gradients_are_slopes(name, make, float64):
    """All of them by finite differences of the NumPy formula."""
    x = np.random.default_rng(0).normal(size=(7, FEATURES))
    cotangent = np.random.default_rng(1).normal(size=x.shape)
    params = parameters(name, 2, jnp.float64)
    plain = {key: np.asarray(value) for key, value in params.items()}
    _, transpose = jax.vjp(lambda p, x: APPLY[make](name, p, x), params, jnp.asarray(x))
    gradients, dx = transpose(jnp.asarray(cotangent))

    def loss(x, **params):
        return (ORACLES[name](x, **params) * cotangent).sum()

    np.testing.assert_allclose(dx, slopes(lambda x: loss(x, **plain), x), atol=1e-8)
    for key, value in plain.items():
        expected = slopes(lambda v, key=key: loss(x, **plain | {key: v}), value)
        np.testing.assert_allclose(gradients[key], expected, atol=1e-8)


@pytest.mark.parametrize("make", APPLY)
def test_gradients_of_a_learned_threshold(make, float64):
    """The pseudo-gradient at x - threshold, and for the threshold minus its sum."""
    x = np.random.default_rng(0).normal(size=(2, 7, FEATURES))
    cotangent = np.random.default_rng(1).normal(size=x.shape)
    params = parameters("LearnedThresholdSign", 2, jnp.float64)
    _, transpose = jax.vjp(
        lambda p, x: APPLY[make]("LearnedThresholdSign", p, x), params, jnp.asarray(x)
    )
    gradients, dx = transpose(jnp.asarray(cotangent))
    window = np.maximum(2 - 2 * np.abs(x - np.asarray(params["threshold"])), 0)
    np.testing.assert_allclose(dx, cotangent * window, rtol=1e-12)
    np.testing.assert_allclose(
        gradients["threshold"], -(cotangent * window).sum((0, 1)), rtol=1e-12
    )


def test_a_learned_threshold_takes_any_sign():
    sign = ovsw.nn.LearnedThresholdSign(2, sign=ovsw.nn.ste_sign)
    other = ovsw.linen.LearnedThresholdSign(sign=ovsw.nn.ste_sign)
    x = jnp.asarray([[5.0, -5.0]])
    for f in (sign, lambda x: other.apply({"params": {"threshold": jnp.zeros(2)}}, x)):
        np.testing.assert_array_equal(jax.grad(lambda x, f=f: f(x).sum())(x), [[1, 1]])


def test_thresholds_are_finer_than_bfloat16():
    """1 + 2^-10 is 1 in bfloat16, and 1 is not below it."""
    sign = ovsw.nn.LearnedThresholdSign(1)
    sign.threshold[...] = jnp.asarray([1 + 2**-10])
    y = sign(jnp.ones((1, 1), jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    assert float(y[0, 0]) == -1


@pytest.mark.parametrize("name", ORACLES)
def test_where_parameters_start(name):
    start = {"threshold": 0, "shift_in": 0, "shift_out": 0, "negative_slope": 0.25}
    module = getattr(ovsw.nn, name)(FEATURES, rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16)
    in_nnx = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    in_linen = getattr(ovsw.linen, name)(param_dtype=jnp.bfloat16).init(
        jax.random.key(0), jnp.ones((2, FEATURES))
    )["params"]
    assert set(in_nnx) == set(in_linen) == set(parameters(name, 0))
    for params in (in_nnx, in_linen):
        for key, value in params.items():
            assert value.shape == (FEATURES,)
            assert value.dtype == jnp.bfloat16
            assert (value == start[key]).all()
    assert not any(jax.tree.leaves(ovsw.latent_mask(in_nnx)))


@pytest.mark.parametrize("name", ["PReLU", "RPReLU"])
def test_slopes_start_where_they_are_told(name):
    module = getattr(ovsw.nn, name)(2, negative_slope_init=-0.5)
    other = getattr(ovsw.linen, name)(negative_slope_init=-0.5)
    x = jnp.asarray([-2.0, 2.0])
    for y in (module(x), other.init_with_output(jax.random.key(0), x)[0]):
        assert y.tolist() == [1, 2]


@pytest.mark.parametrize("name", ORACLES)
def test_nan_shows_in_gradients(name):
    x = jnp.asarray([[jnp.nan, 1.0, 1.0]])
    dx = jax.grad(lambda x: apply_nnx(name, parameters(name, 0), x).sum())(x)
    forward = apply_nnx(name, parameters(name, 0), x)
    assert np.isnan(forward[0, 0]) or np.isnan(dx[0, 0])
    assert not np.isnan(forward[0, 1:]).any()


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("shape", [(2, 4), (2, 1), ()])
def test_channels_that_do_not_fit(name, shape):
    message = r"input of shape \(.*\) does not fit 3 channels: its last axis must have size 3"
    with pytest.raises(ValueError, match=message):
        getattr(ovsw.nn, name)(FEATURES)(jnp.ones(shape))


@pytest.mark.parametrize("name", ORACLES)
def test_integers_are_refused(name):
    message = r"input has dtype int32; .* Convert it, e.g. to float32"
    with pytest.raises(TypeError, match=message):
        getattr(ovsw.nn, name)(FEATURES)(jnp.ones((2, FEATURES), jnp.int32))
    with pytest.raises(TypeError, match=message):
        getattr(ovsw.linen, name)().init(jax.random.key(0), jnp.ones((2, FEATURES), jnp.int32))
