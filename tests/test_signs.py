"""Signs: exactly +1 and -1, and pseudo-gradients that are their formulas in NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ovsw_jax as ovsw
from tests.layer_oracle import numpy_sign


def numpy_swish(x, beta=5.0):
    """Darabi et al. 2018, as written; beyond 700 its cosh overflows, and the gradient is 0."""
    z = beta * np.clip(x, -700 / beta, 700 / beta)
    return beta * (2 - z * np.tanh(z / 2)) / (1 + np.cosh(z))


def numpy_tanh(x, t=1.0):
    return max(1 / t, 1) * t / np.cosh(t * np.clip(x, -350 / t, 350 / t)) ** 2  # 1 - tanh^2


GRADIENTS = {
    ovsw.nn.sign: lambda x: 0 * x,
    ovsw.nn.ste_sign: np.ones_like,
    ovsw.nn.clipped_ste_sign: lambda x: (np.abs(x) <= 1).astype(x.dtype),
    ovsw.nn.approx_sign: lambda x: np.maximum(2 - 2 * np.abs(x), 0),
}
SMOOTH = {
    "swish": (ovsw.nn.swish_sign, numpy_swish),
    "swish of 2": (partial(ovsw.nn.swish_sign, beta=2), partial(numpy_swish, beta=2)),
    "tanh": (ovsw.nn.tanh_sign, numpy_tanh),
    "soft tanh": (partial(ovsw.nn.tanh_sign, sharpness=0.1), partial(numpy_tanh, t=0.1)),
    "sharp tanh": (partial(ovsw.nn.tanh_sign, sharpness=10), partial(numpy_tanh, t=10)),
}
ALL = [*GRADIENTS, *(sign for sign, _ in SMOOTH.values())]
FLOATS = [jnp.float32, jnp.bfloat16, jnp.float16]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sign", GRADIENTS)
def test_signs_and_their_gradients(sign, dtype):
    x = jnp.asarray([-np.inf, -3, -1, -0.75, -1e-37, -0.0, 0.0, 0.25, 1, 2, np.inf], dtype)
    y, transpose = jax.vjp(sign, x)
    (gradient,) = transpose(jnp.full_like(y, 2))
    plain = np.asarray(x, np.float64)
    assert y.dtype == gradient.dtype == dtype
    np.testing.assert_array_equal(np.asarray(y, np.float64), numpy_sign(plain))
    with np.errstate(invalid="ignore"):
        expected = 2 * np.nan_to_num(GRADIENTS[sign](plain))
    np.testing.assert_array_equal(np.asarray(gradient, np.float64), expected)
    # Forward mode is the same linear map.
    _, tangent = jax.jvp(sign, (x,), (jnp.full_like(x, 2),))
    np.testing.assert_array_equal(tangent, gradient)


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_gradients_are_their_formulas(name, float64):
    sign, formula = SMOOTH[name]
    x = np.concatenate([np.linspace(-3, 3, 301), [-1e300, -800, -40, 40, 800, 1e300]])
    y, transpose = jax.vjp(sign, jnp.asarray(x))
    (gradient,) = transpose(jnp.full_like(y, 2))
    np.testing.assert_array_equal(y, numpy_sign(x))
    np.testing.assert_allclose(gradient, 2 * formula(x), rtol=1e-10, atol=1e-14)
    _, tangent = jax.jvp(sign, (jnp.asarray(x),), (jnp.full_like(y, 2),))
    np.testing.assert_array_equal(tangent, gradient)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_gradients_keep_narrow_dtypes(name, dtype):
    """They are computed in float32 and rounded once; infinities give 0."""
    sign, formula = SMOOTH[name]
    x = jnp.asarray([-np.inf, -60000, -2.5, -0.3, -0.0, 0.25, 0.7, 60000, np.inf], dtype)
    gradient = jax.vjp(sign, x)[1](jnp.ones_like(x))[0]
    assert gradient.dtype == dtype
    expected = formula(np.nan_to_num(np.asarray(x, np.float64)))
    tolerance = {jnp.float32: 1e-5, jnp.bfloat16: 2**-8, jnp.float16: 2**-11}[dtype]
    np.testing.assert_allclose(
        np.asarray(gradient, np.float64), expected, rtol=2 * tolerance, atol=1e-7
    )


# XLA takes a subnormal for zero on some backends.
numbers = st.floats(allow_nan=False, allow_subnormal=False, width=32)


@given(
    values=st.lists(numbers, min_size=8, max_size=8),
    dtype=st.sampled_from(FLOATS),
    sign=st.sampled_from(ALL),
)
def test_signs_are_exactly_one_with_finite_gradients(values, dtype, sign):
    with np.errstate(over="ignore"):
        x = jnp.asarray(np.asarray(values, np.float32)).astype(dtype)
    y, transpose = jax.vjp(sign, x)
    (gradient,) = transpose(jnp.ones_like(y))
    assert y.dtype == gradient.dtype == dtype
    np.testing.assert_array_equal(np.asarray(y, np.float32), numpy_sign(np.asarray(x, np.float32)))
    assert np.isfinite(np.asarray(gradient, np.float32)).all()


@pytest.mark.parametrize("sign", ALL)
def test_sign_of_nan_is_defined_and_its_gradient_tells(sign):
    """Unless the pseudo-gradient is the same everywhere, where there is nothing to tell by."""
    assert float(sign(jnp.nan)) == -1
    gradient = float(jax.grad(sign)(jnp.nan))
    constant = {ovsw.nn.sign: 0.0, ovsw.nn.ste_sign: 1.0}
    np.testing.assert_equal(gradient, constant.get(sign, np.nan))


@pytest.mark.parametrize("sign", ALL)
def test_signs_under_jit_and_vmap(sign):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)

    def both(x):
        y, transpose = jax.vjp(sign, x)
        return y, transpose(jnp.ones_like(y))[0]

    plain = both(x)
    for mapped in (jax.jit(both), jax.vmap(both), jax.jit(jax.vmap(jax.vmap(both)))):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), mapped(x), plain)


@pytest.mark.parametrize("sign", [ovsw.nn.swish_sign, ovsw.nn.tanh_sign])
def test_sharpness_may_be_traced_and_has_no_gradient(sign):
    x = jnp.asarray(np.random.default_rng(0).normal(size=5), jnp.float32)
    in_both = jax.jit(jax.grad(lambda x, b: sign(x, b).sum(), argnums=(0, 1)))
    for b in (0.5, 2.0):
        dx, db = in_both(x, b)
        assert db == 0
        np.testing.assert_allclose(dx, jax.grad(lambda x, b=b: sign(x, b).sum())(x), rtol=1e-6)
    assert in_both._cache_size() == 1


@pytest.mark.parametrize("value", [0.0, -1, np.nan, np.inf, jnp.float32(-1), np.array([1.0, 0.0])])
@pytest.mark.parametrize(
    ("sign", "name"), [(ovsw.nn.swish_sign, "beta"), (ovsw.nn.tanh_sign, "sharpness")]
)
def test_a_known_sharpness_is_above_zero_and_finite(sign, name, value):
    for function in (sign, jax.jit(lambda x, **constant: sign(x, value))):
        with pytest.raises(ValueError, match=rf"^{name}=\S+ must be above 0 and finite"):
            function(jnp.ones(2), **{name: value})
