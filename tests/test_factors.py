"""Factors of filters, standardised kernels, and the signs that look at a whole filter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

import ovsw_jax as ovsw
from tests.layer_oracle import numpy_sign, slopes

KERNEL = np.random.default_rng(0).normal(0.2, 0.7, size=(3, 2, 4, 5))
AXES = (0, 1, 2)


def numpy_standardized(kernel):
    centered = kernel - kernel.mean(AXES)
    return centered / np.sqrt(kernel.var(AXES, ddof=1) + 1e-5)


FACTORS = {
    ovsw.nn.mean_magnitude: lambda kernel: np.abs(kernel).mean(AXES),
    ovsw.nn.standardized_scale: lambda kernel: np.abs(numpy_standardized(kernel)).mean(AXES),
}


@pytest.mark.parametrize("factor", FACTORS)
def test_factors_are_their_formulas_without_gradient(factor, float64):
    kernel = jnp.asarray(KERNEL)
    np.testing.assert_allclose(factor(kernel), FACTORS[factor](KERNEL), rtol=1e-12)
    gradient = jax.grad(lambda kernel: factor(kernel).sum())(kernel)
    np.testing.assert_array_equal(gradient, np.zeros_like(KERNEL))


def test_standardized_kernel_is_its_formula_and_so_is_its_gradient(float64):
    expected = numpy_standardized(KERNEL)
    np.testing.assert_allclose(
        ovsw.nn.standardize_kernel(jnp.asarray(KERNEL)), expected, rtol=1e-12
    )
    cotangent = np.random.default_rng(1).normal(size=KERNEL.shape)
    _, transpose = jax.vjp(ovsw.nn.standardize_kernel, jnp.asarray(KERNEL))
    by_differences = slopes(lambda kernel: (numpy_standardized(kernel) * cotangent).sum(), KERNEL)
    np.testing.assert_allclose(transpose(jnp.asarray(cotangent))[0], by_differences, atol=1e-7)


@given(
    mean=st.floats(-1e3, 1e3),
    deviation=st.floats(1e-2, 1e3),
    dtype=st.sampled_from([jnp.float32, jnp.bfloat16]),
    seed=st.integers(0, 2**31),
)
def test_standardized_kernel_has_mean_0_and_variance_1(mean, deviation, dtype, seed):
    kernel = np.random.default_rng(seed).normal(mean, deviation, size=(3, 3, 8, 2))
    kernel = jnp.asarray(kernel, dtype)
    spread = np.asarray(kernel, np.float64).std(AXES, ddof=1)
    standardized = ovsw.nn.standardize_kernel(kernel)
    assert standardized.dtype == dtype
    wide = np.asarray(standardized, np.float64)
    np.testing.assert_allclose(wide.mean(AXES), 0, atol=5e-3)
    np.testing.assert_allclose(
        wide.std(AXES, ddof=1), spread / np.sqrt(spread**2 + 1e-5), rtol=5e-3, atol=1e-3
    )


def test_filters_that_cannot_be_standardized():
    constant = jnp.full((3, 3, 2, 4), 0.3)
    np.testing.assert_array_equal(ovsw.nn.standardize_kernel(constant), jnp.zeros_like(constant))
    assert np.isfinite(jax.grad(lambda w: ovsw.nn.standardize_kernel(w).sum())(constant)).all()
    single = jnp.asarray([[[[0.3, -0.2]]]])
    np.testing.assert_array_equal(ovsw.nn.standardize_kernel(single), single)


def test_magnitude_aware_sign_and_its_gradient(float64):
    y, transpose = jax.vjp(ovsw.nn.magnitude_aware_sign, jnp.asarray(KERNEL))
    magnitude = np.abs(KERNEL).mean(AXES)
    np.testing.assert_allclose(y, magnitude * numpy_sign(KERNEL), rtol=1e-12)
    cotangent = np.random.default_rng(1).normal(size=KERNEL.shape)
    expected = cotangent * magnitude * (np.abs(KERNEL) <= 1)
    np.testing.assert_allclose(transpose(jnp.asarray(cotangent))[0], expected, rtol=1e-12)
    assert 0 < (expected == 0).mean() < 1


@pytest.mark.parametrize("sign", [ovsw.nn.ste_sign, ovsw.nn.clipped_ste_sign])
def test_standardized_sign_and_its_gradient(sign, float64):
    y, transpose = jax.vjp(lambda w: ovsw.nn.standardized_sign(w, sign), jnp.asarray(KERNEL))
    standardized = numpy_standardized(KERNEL)
    np.testing.assert_array_equal(y, numpy_sign(standardized))
    assert (numpy_sign(standardized) != numpy_sign(KERNEL)).any()
    cotangent = np.random.default_rng(1).normal(size=KERNEL.shape)
    behind = cotangent * (np.abs(standardized) <= 1 if sign is ovsw.nn.clipped_ste_sign else 1)
    gradient = np.asarray(transpose(jnp.asarray(cotangent))[0])
    by_differences = slopes(lambda kernel: (numpy_standardized(kernel) * behind).sum(), KERNEL)
    np.testing.assert_allclose(gradient, by_differences, atol=1e-7)
    np.testing.assert_allclose(gradient.mean(AXES), 0, atol=1e-12)  # as its docstring says


@pytest.mark.parametrize("make", ["nnx", "linen"])
def test_factor_that_is_a_function(make):
    """Called with the kernel; its gradient, if it has one, reaches the latent weights."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(3, 2)), jnp.float32)

    def apply(scale, kernel):
        if make == "linen":
            layer = ovsw.linen.BinaryDense(2, scale=scale)
            return layer.apply({"params": {"latent_kernel": kernel}}, x, train=False)
        layer = ovsw.nn.BinaryDense(3, 2, scale=scale, rngs=nnx.Rngs(0))
        return nnx.merge(nnx.split(layer)[0], {"latent_kernel": kernel})(x)

    frozen, free = ovsw.nn.mean_magnitude, lambda W: jnp.abs(W).mean(0)
    products = numpy_sign(np.asarray(x)) @ numpy_sign(np.asarray(kernel))
    gradients = []
    for scale in (frozen, free):
        expected = products * np.abs(kernel).mean(0)
        np.testing.assert_allclose(apply(scale, kernel), expected, rtol=1e-6)
        gradients.append(jax.grad(lambda w, s=scale: apply(s, w).sum())(kernel))
    through_factor = products.sum(0) * numpy_sign(np.asarray(kernel)) / 3
    np.testing.assert_allclose(gradients[1] - gradients[0], through_factor, rtol=1e-5, atol=1e-6)
