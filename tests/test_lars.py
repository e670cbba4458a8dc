"""LARS for any finite input, judged by the NumPy oracle, by Optax and by its own rules."""

import functools

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from contract_cases import STEPS, assert_same, normal, train
from hypothesis import given
from hypothesis import strategies as st

import ovsw_jax as ovsw

pytestmark = pytest.mark.usefixtures("strict_promotion")

SHAPE = (3, 4)
VARIANTS = ("updated", "literal")


def kernels(elements):
    return hnp.arrays(np.float32, SHAPE, elements=elements)


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
ordinary = st.builds(
    lambda thousandths, exponent: np.float32(thousandths * 10.0 ** (exponent - 3)),
    st.integers(-1000, 1000),
    st.integers(-5, 1),
)
decays = st.sampled_from([0.0, 1e-4, 0.1])


@functools.cache
def jitted(variant):
    @jax.jit
    def update(gradient, weight, velocity, numbers):
        tx = ovsw.lars_sgd(**numbers, variant=variant)
        params = {"latent_kernel": weight}
        state = tx.init(params)._replace(velocity={"latent_kernel": velocity})
        updates, state = tx.update({"latent_kernel": gradient}, state, params)
        return tuple(t["latent_kernel"] for t in (updates, state.velocity, state.local_rate))

    return update


def move(gradient, weight, velocity=None, beta=0.5, eta=0.1, m=0.9, phi=1e-4, variant="updated"):
    """Update of W, V after it, and the layer's rate, for one layer in float32."""
    weight = np.asarray(weight, np.float32)
    velocity = np.zeros_like(weight) if velocity is None else velocity
    numbers = {"learning_rate": beta, "eta": eta, "momentum": m, "weight_decay": phi}
    arrays = (jnp.asarray(x, jnp.float32) for x in (gradient, weight, velocity))
    return jax.device_get(jitted(variant)(*arrays, jax.tree.map(jnp.float32, numbers)))


@given(kernels(ordinary), kernels(ordinary), kernels(ordinary), decays, st.sampled_from(VARIANTS))
def test_a_step_equals_the_oracle(gradient, weight, velocity, phi, variant):
    update, after, rate = move(gradient, weight, velocity, phi=phi, variant=variant)
    layer = oracle.Algorithm2(weight, 0.1, 0.9, phi, literal=variant == "literal")
    layer.velocity = velocity.astype(np.float64)
    expected_rate = layer.step(gradient, 0.5)
    np.testing.assert_allclose(rate, expected_rate, rtol=1e-5)
    size = np.abs(velocity).max() + np.abs(gradient).max() + np.abs(weight).max()
    np.testing.assert_allclose(after, layer.velocity, rtol=1e-5, atol=1e-6 * size)
    np.testing.assert_allclose(
        update, layer.weight - weight, rtol=1e-5, atol=1e-6 * size * (0.5 * expected_rate + 1e-6)
    )


@pytest.mark.parametrize("variant", VARIANTS)
@given(
    kernels(finite),
    kernels(finite),
    kernels(finite),
    st.sampled_from([0.0, 0.1, 1e30]),
    st.sampled_from([1e-30, 0.02, 1e30]),
    st.sampled_from([0.0, 1e-30, 5e-4, 1e30]),
)
def test_no_nan_comes_from_finite_inputs(variant, gradient, weight, velocity, beta, eta, phi):
    results = move(gradient, weight, velocity, beta=beta, eta=eta, phi=phi, variant=variant)
    assert not any(np.any(np.isnan(x)) for x in results)
    assert np.isfinite(results[-1])


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1.0, 1e19, 1e30])
def test_the_rate_depends_on_no_common_size_of_weights_and_gradients(size):
    rng = np.random.default_rng(0)
    gradient, weight = rng.standard_normal((2, *SHAPE))
    expected = oracle.lars_rate(gradient, weight, 0.1, 0.3)
    _, _, rate = move(gradient * size, weight * size, phi=0.3)
    assert rate == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("gradient", [0.0, 2.0])
def test_a_layer_of_zeros_never_moves(gradient, variant):
    gradient, velocity = np.full(SHAPE, gradient), np.ones(SHAPE, np.float32)
    update, after, rate = move(gradient, np.zeros(SHAPE), velocity, phi=0, variant=variant)
    assert rate == 0
    assert not update.any()
    np.testing.assert_allclose(after, 0.9 + gradient, rtol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_zero_gradient_without_decay_lets_the_layer_wait(variant):
    velocity = np.ones(SHAPE, np.float32)
    update, after, rate = move(np.zeros(SHAPE), np.ones(SHAPE), velocity, phi=0, variant=variant)
    assert rate == 0
    assert not update.any()
    np.testing.assert_allclose(after, 0.9, rtol=1e-6)
    # With decay the fraction is eta / phi, and the layer goes on along its momentum.
    update, _, rate = move(np.zeros(SHAPE), np.ones(SHAPE), velocity, phi=1e-2, variant=variant)
    assert rate == pytest.approx(0.1 / 1e-2)
    assert np.all(update < 0)


def test_what_is_not_finite_is_seen():
    gradient = np.ones(SHAPE, np.float32)
    gradient[0, 0] = np.nan
    assert np.all(np.isnan(move(gradient, np.ones(SHAPE))[0]))
    gradient[0, 0] = np.inf
    update, after, _ = move(gradient, np.ones(SHAPE))
    assert np.isnan(update[0, 0])
    assert np.isinf(after[0, 0])
    assert np.isfinite(update[1:]).all()


@pytest.mark.parametrize("decay_1d", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_other_parameters_take_plain_sgd(variant, decay_1d):
    tx = ovsw.lars_sgd(0.5, eta=0.1, weight_decay=0.2, variant=variant, decay_1d=decay_1d)
    decayed = {"conv": {"latent_kernel": True, "bias": decay_1d}, "head": {"kernel": True}}
    plain = optax.chain(optax.add_decayed_weights(0.2, mask=decayed), optax.sgd(0.5, momentum=0.9))
    params, gradients = normal(0), normal(1, STEPS)
    params["conv"]["bias"] += 1  # so that its decay shows
    actual, expected = (train(t, params, gradients)[2] for t in (tx, plain))
    assert_same(actual["head"], expected["head"])
    assert_same(actual["conv"]["bias"], expected["conv"]["bias"])
    assert not np.allclose(actual["conv"]["latent_kernel"], expected["conv"]["latent_kernel"])


def test_a_mask_of_true_is_lars_everywhere():
    params, grads = normal(0), normal(1)
    tx = ovsw.lars_sgd(1.0, eta=0.1, weight_decay=0.0, mask=True)
    updates, state = tx.update(grads, tx.init(params), params)
    for update, weight in zip(jax.tree.leaves(updates), jax.tree.leaves(params), strict=True):
        ratio = jnp.linalg.norm(update) / jnp.linalg.norm(weight)
        assert ratio == pytest.approx(0.1, rel=1e-5)
    assert len(jax.tree.leaves(state.local_rate)) == 3
