"""Both kinds of flip state against the NumPy moving average, for random rules and flip patterns."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from flip_runs import CHANCES, averages, flip_pattern, float32, observe
from hypothesis import given
from hypothesis import strategies as st

import ovsw_jax as ovsw

pytestmark = pytest.mark.usefixtures("strict_promotion")

STEPS = 1500
# Packed state keeps log S to half of this, anew at every flip (nats).
GRID = 0.0005
SMALLEST_LEVEL = math.exp(-32766 * GRID)


def enclosure(flipped, momentum):
    """Bounds of what a state that rounds log S to `GRID` at every flip can take S for.

    Between flips the packed level falls exactly as log S does, so that nothing adds up. At a flip
    mu S + (1 - mu) is rounded to within half a level, and what S was off before is carried over,
    shrunk by mu S / (mu S + 1 - mu). Many flips in a row therefore do add up, within these bounds.
    """
    rounding = math.exp(GRID / 2)
    per_step = math.exp(1e-7)  # mu and the phase are float32
    low, high = np.zeros(flipped.shape[1]), np.zeros(flipped.shape[1])
    rows = []
    for flips, mu in zip(flipped, np.broadcast_to(momentum, len(flipped)), strict=True):
        # A level at the bottom of the scale may stand for any smaller S, and counts as none.
        low = np.where(low <= 1.01 * SMALLEST_LEVEL, 0, low)
        low = np.where(flips, (mu * low + (1 - mu)) / rounding, mu * low) / per_step
        high = np.where(flips, (mu * high + (1 - mu)) * rounding, mu * high) * per_step
        high = np.where(high > 0, np.maximum(high, 1.01 * SMALLEST_LEVEL), high)
        rows.append((low, high))
    return (np.array(column) for column in zip(*rows, strict=True))


@st.composite
def rules(draw):
    """(mu, sigma) that packed state can hold: a horizon of 1 to about 1400 steps."""
    momentum = float32(1 - math.exp(draw(st.floats(math.log(5.01e-4), math.log(0.5)))))
    longest = math.log((1 - momentum) / 7.8e-8) / -math.log(momentum)
    horizon = draw(st.integers(1, int(min(longest, 1400))))
    return momentum, float32(ovsw.threshold_for_horizon(momentum, horizon))


seeds = st.integers(0, 2**32 - 1)


@given(rules(), seeds)
def test_packed_state_agrees_with_the_average_up_to_its_grid(rule, seed):
    momentum, threshold = rule
    positive = flip_pattern(seed, STEPS)
    _, flipped, never = averages(positive, momentum)
    silent, never_flipped, flip_ratio = observe("packed", positive, momentum, threshold)

    low, high = enclosure(flipped, momentum)
    must_be_silent, must_be_active = high < threshold, low >= threshold
    assert np.all(silent[must_be_silent])
    assert not np.any(silent[must_be_active])
    # Where flips are rare that leaves hardly a weight-step open.
    assert np.mean(must_be_silent | must_be_active, axis=0)[CHANCES <= 1 / 300].min() > 0.95
    np.testing.assert_array_equal(never_flipped, never)
    np.testing.assert_array_equal(np.rint(flip_ratio * len(CHANCES)), flipped.sum(axis=1))


@given(seeds)
def test_packed_state_follows_a_momentum_that_is_scheduled(seed):
    positive = flip_pattern(seed, STEPS)
    momentum = np.random.default_rng(seed).uniform(0.9, 0.999, STEPS).astype(np.float32)
    momentum, threshold = momentum.astype(np.float64), 1e-4
    _, flipped, _ = averages(positive, momentum)
    silent, _, _ = observe("packed", positive, momentum, threshold)
    low, high = enclosure(flipped, momentum)
    assert np.all(silent[high < threshold])
    assert not np.any(silent[low >= threshold])


@given(rules(), seeds, st.sampled_from([np.float32, np.float64]))
def test_ema_state_is_the_average(rule, seed, dtype):
    momentum, threshold = rule
    positive = flip_pattern(seed, STEPS)
    ema, flipped, never = averages(positive, momentum)
    silent, never_flipped, flip_ratio = observe("ema", positive, momentum, threshold, dtype)
    # STEPS roundings, and in float32 that of 1 - mu, may decide where S is all but sigma.
    tolerance = {np.float32: 1e-3, np.float64: 1e-12}[dtype]
    clear = np.abs(ema / threshold - 1) > tolerance
    np.testing.assert_array_equal(silent[clear], (ema < threshold)[clear])
    np.testing.assert_array_equal(never_flipped, never)
    np.testing.assert_array_equal(np.rint(flip_ratio * len(CHANCES)), flipped.sum(axis=1))


@given(rules(), st.integers(1, 90))
def test_one_flip_lasts_for_the_silence_horizon(rule, when):
    momentum, threshold = rule
    horizon = ovsw.silence_horizon(momentum, threshold)
    positive = np.tile(np.arange(STEPS)[:, None] >= when, (1, len(CHANCES)))
    for state, leeway in (("ema", 0), ("packed", math.ceil(GRID / 2 / -math.log(momentum)))):
        silent, _, _ = observe(state, positive, momentum, threshold)
        assert np.all(silent[:when])
        assert abs(np.sum(~silent[:, 0]) - horizon) <= leeway


@pytest.mark.parametrize("momentum", [0.5, 0.9, 0.99])
def test_packed_state_stays_silent_at_the_smallest_threshold_it_takes(momentum):
    accepted = [t for t in SMALLEST_LEVEL * np.geomspace(0.99, 1.05, 200) if _packed_takes(t)]
    assert accepted
    positive = np.tile(np.arange(STEPS)[:, None] >= 3, (1, len(CHANCES)))
    silent, _, _ = observe("packed", positive, momentum, accepted[0])
    horizon = oracle.silence_horizon(momentum, accepted[0])
    assert not np.any(silent[3 : 3 + horizon - 1])
    assert np.all(silent[3 + horizon + 1 :])
    assert np.all(silent[:3])


def _packed_takes(threshold):
    try:
        ovsw.track_flip_state(momentum=0.9, threshold=threshold)
    except ValueError:
        return False
    return True


def test_a_weight_whose_average_equals_the_threshold_is_not_silent():
    positive = np.tile(np.arange(STEPS)[:, None] >= 2, (1, len(CHANCES)))
    silent, _, _ = observe("ema", positive, 0.75, 0.25)  # one flip lifts S to exactly 0.25
    assert silent[:5, 0].tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("state", ["packed", "ema"])
def test_zero_counts_as_positive(state):
    tx = ovsw.track_flip_state(state=state)
    signs = [[1.0, -1.0, 0.0, -0.0], [0.0, 0.0, -0.0, 1.0], [-0.0, 1.0, -1.0, -2.0]]
    kernels = [{"latent_kernel": jnp.array(row)} for row in signs]
    flip_state = tx.init(kernels[0])
    never = []
    for params in kernels:
        _, flip_state = tx.update(params, flip_state, params)
        never.append(ovsw.never_flipped_mask(flip_state)["latent_kernel"].tolist())
    assert never == [[True] * 4, [True, False, True, True], [True, False, False, False]]


@pytest.mark.parametrize("state", ["packed", "ema"])
def test_weights_loaded_after_init_are_no_flip(state):
    tx = ovsw.track_flip_state(state=state)
    flip_state = tx.init({"latent_kernel": jnp.ones((3, 2))})
    loaded = {"latent_kernel": -jnp.ones((3, 2))}
    _, flip_state = tx.update(loaded, flip_state, loaded)
    assert flip_state.flip_ratio["latent_kernel"] == 0
    assert jnp.all(ovsw.never_flipped_mask(flip_state)["latent_kernel"])
    _, flip_state = tx.update(loaded, flip_state, {"latent_kernel": jnp.ones((3, 2))})
    assert flip_state.flip_ratio["latent_kernel"] == 1
    assert not jnp.any(ovsw.never_flipped_mask(flip_state)["latent_kernel"])


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38, 0.0])
def test_sad_passes_any_gradient_and_its_state_depends_on_none(value):
    tx = optax.chain(ovsw.silence_aware_decay(0.1))
    params = {"latent_kernel": jnp.array([[1.0, -2.0]])}
    usual = tx.update({"latent_kernel": jnp.ones((1, 2))}, tx.init(params), params)
    odd = tx.update({"latent_kernel": jnp.full((1, 2), value)}, tx.init(params), params)
    expected = np.float32(value) + np.float32(0.1) * np.array([[1.0, -2.0]], np.float32)
    np.testing.assert_allclose(odd[0]["latent_kernel"], expected, rtol=1e-6)
    assert jax.tree.all(jax.tree.map(lambda a, b: jnp.all(a == b), odd[1], usual[1]))
