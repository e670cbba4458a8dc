"""Bop: the signs of the NumPy oracle, and weights that are exactly -1 or +1."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import oracle
import pytest
from contract_cases import STEPS
from hypothesis import given
from hypothesis import strategies as st

import ovsw_jax as ovsw

pytestmark = pytest.mark.usefixtures("strict_promotion")

SHAPE = (3, 3, 8, 16)


@functools.cache
def jitted():
    @jax.jit
    def step(weight, gradient, momentum, threshold, adaptivity):
        tx = ovsw.bop(threshold, adaptivity=adaptivity)
        params = {"latent_kernel": weight}
        state = tx.init(params)._replace(momentum={"latent_kernel": momentum})
        updates, state = tx.update({"latent_kernel": gradient}, state, params)
        moved = optax.apply_updates(params, updates)
        return moved["latent_kernel"], state.momentum["latent_kernel"]

    return step


def step(weight, gradient, momentum=0.0, threshold=0.5, adaptivity=1.0):
    """Weights and m after one update; by default m is the gradient and 0.5 the threshold."""
    weight = jnp.asarray(weight)
    gradient = jnp.broadcast_to(jnp.asarray(gradient, weight.dtype), weight.shape)
    momentum = jnp.full(weight.shape, momentum, jnp.float32)
    numbers = jnp.float32(threshold), jnp.float32(adaptivity)
    return jax.device_get(jitted()(weight, gradient, momentum, *numbers))


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.003, 0.03, 0.3]),
    st.sampled_from([0.001, 0.1, 1.0]),
    st.sampled_from([1e-4, 0.05, 1.0, 1000.0]),
)
def test_signs_and_momentum_equal_the_oracle_from_any_initialisation(seed, tau, gamma, size):
    rng = np.random.default_rng(seed)
    start = (size * rng.standard_normal(SHAPE)).astype(np.float32)
    start[0] = 0.0
    gradients = rng.standard_normal((STEPS, *SHAPE)).astype(np.float32)
    params = {"latent_kernel": jnp.asarray(start)}
    tx = ovsw.bop(tau, adaptivity=gamma)
    expected, weight = oracle.Bop(start, tau, gamma), jnp.asarray(start)
    state = tx.init(params)
    momentum, clear = state.momentum["latent_kernel"], np.ones(SHAPE, bool)
    for t, gradient in enumerate(gradients):
        weight, momentum = jitted()(
            weight, gradient, momentum, jnp.float32(tau), jnp.float32(gamma)
        )
        clear &= expected.step(gradient) > 1e-6  # else rounding decides
        np.testing.assert_allclose(momentum, expected.momentum, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(np.sign(weight)[clear], expected.weight[clear])
        if t >= 2:
            np.testing.assert_array_equal(np.abs(weight), 1)
    assert clear.mean() > 0.9


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("flip", [False, True])
def test_every_half_precision_weight_ends_at_exactly_its_new_sign(dtype, flip):
    weight = np.arange(2**16, dtype=np.uint16).view(dtype)
    weight = weight[np.isfinite(weight.astype(np.float32))]
    if flip:  # a weight of nearly the largest size has no room to be added to
        weight = weight[np.abs(weight.astype(np.float32)) < 0.9 * float(ml_dtypes.finfo(dtype).max)]
    sign = np.where(weight >= 0, 1, -1)
    near = np.abs(weight.astype(np.float32)) <= 1 / float(ml_dtypes.finfo(dtype).eps)
    moved, _ = step(weight, sign if flip else -sign)
    expected = -sign if flip else sign
    np.testing.assert_array_equal(np.where(moved >= 0, 1, -1), expected)
    if not flip:
        np.testing.assert_array_equal(moved[near], expected[near])
    for _ in range(25):  # what was far comes nearer by the precision at each update
        again, _ = step(moved, 0.0)
        np.testing.assert_array_equal(again[near], expected[near])
        moved = again
    np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize("gradient", [jnp.bfloat16, jnp.float16])
def test_half_precision_gradients_of_float32_weights(gradient):
    weight = jnp.asarray(np.random.default_rng(0).standard_normal(1000), jnp.float32)
    params = {"latent_kernel": weight}
    tx = ovsw.bop(0.5)
    updates, _ = tx.update({"latent_kernel": jnp.ones(1000, gradient)}, tx.init(params), params)
    moved = optax.apply_updates(params, updates)["latent_kernel"]
    np.testing.assert_array_equal(moved, jnp.sign(weight))


@pytest.mark.parametrize(
    ("weight", "gradient", "after"),
    [
        (1.0, 0.75, -1.0),
        (-1.0, -0.75, 1.0),
        (1.0, -0.75, 1.0),
        (-1.0, 0.75, -1.0),
        (1.0, 0.5, 1.0),  # at the threshold, not above it
        (-1.0, -0.5, -1.0),
        (0.0, 0.75, -1.0),  # 0 stands for +1
        (-0.0, -0.75, 1.0),
        (0.5, 0.75, -1.0),
        (-0.5, 0.75, -1.0),
        (1.0, np.nan, 1.0),  # no flip
        (-1.0, np.nan, -1.0),
        (1.0, np.inf, -1.0),
        (np.nan, 0.0, np.nan),  # it is seen
    ],
)
def test_one_weight(weight, gradient, after):
    moved, _ = step(np.float32([weight]), gradient)
    np.testing.assert_array_equal(moved, [after])


@pytest.mark.parametrize("weight", [-1.0, 1.0])
@pytest.mark.parametrize("gradient", [0.0, -0.0])
def test_a_zero_gradient_flips_nothing_even_at_threshold_0(gradient, weight):
    moved, _ = step(np.float32([weight]), gradient, threshold=0.0)
    assert moved.tolist() == [weight]


def test_a_weight_whose_momentum_is_nan_stays_and_its_state_shows_why():
    moved, momentum = step(np.float32([0.3, 0.3]), [np.nan, 1.0])
    assert np.isnan(momentum[0])
    moved, momentum = step(moved, 1.0, momentum=momentum)
    assert moved[0] == 1
    assert np.isnan(momentum).tolist() == [True, False]
