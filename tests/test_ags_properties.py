"""Properties of AGS for any finite input, judged by the NumPy oracle."""

import functools

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ovsw_jax as ovsw

pytestmark = pytest.mark.usefixtures("strict_promotion")

FAN_IN, FILTERS = 3, 4
# Beyond this a float32 sum of squares overflows, and the rule leaves the filter alone.
LARGEST_NORM = 1e19


def kernels(elements):
    return hnp.arrays(np.float32, (FAN_IN, FILTERS), elements=elements)


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
# Filters as they occur in training, so that most of them are judged by lam and not by a clamp.
ordinary = st.builds(
    lambda mantissa, exponent: np.float32(mantissa * 10.0**exponent),
    st.floats(-1, 1, width=32),
    st.integers(-5, 1),
)
coefficients = st.floats(1e-4, 10).map(np.float32)


@functools.cache
def jitted(axes=None):
    """AGS of one kernel: gradient, weight, lam -> new gradient and the leaves of the state."""

    @jax.jit
    def update(gradient, weight, lam):
        tx = ovsw.scale_by_ags(lam, axes=axes)
        params = {"latent_kernel": weight}
        updates, state = tx.update({"latent_kernel": gradient}, tx.init(params), params)
        return updates["latent_kernel"], jax.tree.leaves(state)

    return update


def scale(gradient, weight, lam, axes=None):
    scaled, state = jitted(axes)(gradient, weight, jnp.float32(lam))
    return np.asarray(scaled), [np.asarray(x) for x in state]


def norms(kernel):
    return oracle.filter_norm(kernel, (0,))[0]


def bits(x):
    return np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}")


@given(kernels(ordinary | finite), kernels(ordinary | finite), coefficients)
def test_no_filter_above_the_clamps_is_left_below_the_floor(gradient, weight, lam):
    scaled, _ = scale(gradient, weight, lam)
    g_norm, w_norm = norms(gradient), norms(weight)
    covered = (g_norm >= 1e-6) & (w_norm >= 1e-3) & (w_norm < LARGEST_NORM)
    ratio = norms(scaled) / np.where(covered, w_norm, 1)
    assert np.all(ratio[covered] >= lam * (1 - 1e-5))


@given(
    kernels(ordinary | finite), kernels(ordinary | finite), coefficients | st.just(np.float32(0))
)
def test_filters_at_or_above_the_floor_keep_every_bit(gradient, weight, lam):
    scaled, (_, rescaled, *_) = scale(gradient, weight, lam)
    assert lam > 0 or rescaled == 0
    ratio = oracle.ags(gradient, weight, lam, axes=(0,)).ratio
    kept = (ratio > lam * (1 + 1e-5)) | (norms(weight) > 2 * LARGEST_NORM)
    np.testing.assert_array_equal(bits(scaled)[:, kept], bits(gradient)[:, kept])


@given(kernels(ordinary), kernels(ordinary), coefficients)
def test_ags_equals_the_oracle(gradient, weight, lam):
    scaled, (_, rescaled, ratio, filters) = scale(gradient, weight, lam)
    expected = oracle.ags(gradient, weight, lam, axes=(0,))
    clear = np.abs(expected.ratio / lam - 1) > 1e-5  # else rounding decides
    np.testing.assert_allclose(scaled[:, clear], expected.gradient[:, clear], rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(ratio, expected.ratio.mean(), rtol=1e-5)
    assert abs(rescaled - expected.rescaled.mean()) <= np.mean(~clear) + 1e-6
    assert filters == FILTERS


@given(
    kernels(ordinary),
    kernels(ordinary),
    coefficients,
    st.integers(0, FILTERS - 1),
    st.sampled_from([np.nan, np.inf, -np.inf]),
)
def test_a_filter_that_is_not_finite_passes_and_touches_no_other(gradient, weight, lam, bad, value):
    clean, _ = scale(gradient, weight, lam)
    gradient[1, bad] = value
    scaled, _ = scale(gradient, weight, lam)
    others = np.arange(FILTERS) != bad
    np.testing.assert_array_equal(bits(scaled)[:, bad], bits(gradient)[:, bad])
    np.testing.assert_array_equal(bits(scaled)[:, others], bits(clean)[:, others])


def test_a_filter_exactly_at_the_floor_is_not_rescaled():
    weight = np.full((1, FILTERS), 4, np.float32)
    gradient = np.array([[0.5, 1.0, 2.0, -1.0]], np.float32)
    scaled, (_, rescaled, ratio, _) = scale(gradient, weight, 0.25)
    assert scaled.tolist() == [[1.0, 1.0, 2.0, -1.0]]
    assert rescaled == 1 / FILTERS
    assert ratio == 4.5 / 16


@pytest.mark.filterwarnings("ignore:all axes but the last are taken as one filter")
@pytest.mark.parametrize("shape", [(7,), (5, 6), (3, 4, 5), (3, 3, 2, 4), (2, 3, 3, 2, 4)])
def test_kernels_of_one_to_five_axes(shape):
    rng = np.random.default_rng(len(shape))
    weight = rng.standard_normal(shape).astype(np.float32)
    gradient = (rng.standard_normal(shape) * 10.0 ** rng.uniform(-3, 0, shape[-1])).astype("f4")
    scaled, (_, rescaled, _, filters) = scale(gradient, weight, 0.04)
    expected = oracle.ags(gradient, weight, 0.04, axes=tuple(range(len(shape) - 1)))
    np.testing.assert_allclose(scaled, expected.gradient, rtol=1e-5)
    assert rescaled == pytest.approx(expected.rescaled.mean())
    assert filters == shape[-1]


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64])
def test_other_precisions_follow_the_oracle_to_their_rounding(dtype):
    rng = np.random.default_rng(6)
    size = 10.0 ** rng.uniform(-3, 0, 64)
    gradient = (rng.standard_normal((20, 64)) * size).astype(dtype)
    weight = rng.standard_normal((20, 64)).astype(dtype)
    expected = oracle.ags(gradient.astype(np.float64), weight.astype(np.float64), 0.04, axes=(0,))
    assert 0 < expected.rescaled.mean() < 1
    with jax.enable_x64(dtype is np.float64):
        tx = ovsw.scale_by_ags(0.04)
        params = {"latent_kernel": jnp.asarray(weight)}
        updates, _ = tx.update({"latent_kernel": jnp.asarray(gradient)}, tx.init(params), params)
        scaled = np.asarray(updates["latent_kernel"])
    assert scaled.dtype == dtype
    tolerance = float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(
        scaled.astype(np.float64), expected.gradient, rtol=max(tolerance, 1e-13), atol=1e-7
    )
    kept = ~expected.rescaled
    np.testing.assert_array_equal(bits(scaled)[:, kept], bits(gradient)[:, kept])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_gradients_of_float32_weights_keep_their_dtype(dtype):
    params = {"latent_kernel": jnp.ones((8, 4), jnp.float32)}
    grads = {"latent_kernel": jnp.full((8, 4), 1e-3, dtype)}
    tx = ovsw.scale_by_ags(0.04)
    updates, _ = tx.update(grads, tx.init(params), params)
    assert updates["latent_kernel"].dtype == dtype
    np.testing.assert_allclose(updates["latent_kernel"].astype(jnp.float32), 0.04, rtol=1e-2)
