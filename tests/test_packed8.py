"""One byte a weight against float64: every code, random rules, and weights that flip a lot."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from flip_runs import CHANCES, averages, flip_pattern, float32, observe
from hypothesis import given
from hypothesis import strategies as st

import ovsw_jax as ovsw
from ovsw_jax.flip_state import KINDS

pytestmark = pytest.mark.usefixtures("strict_promotion")

packed8 = KINDS["packed8"]
UNIT = 0.08  # nats a level
TOP = 127
LOWEST = math.exp(-126 * UNIT)
CODES = np.arange(256, dtype=np.uint8)
STEPS = 3000
momenta = st.floats(math.log(1.01e-4), math.log(0.5)).map(lambda x: float32(1 - math.exp(x)))
phases = st.floats(0, 1, exclude_max=True, width=32)
seeds = st.integers(0, 2**32 - 1)


def log_average(code, phase):
    """log S that codes stand for in float64; -inf for a weight that never flipped, or long ago."""
    level = (code & 0x7F).astype(np.float64)
    return np.where(level > 1, (level - TOP - phase) * UNIT, -np.inf)


@functools.cache
def step():
    """Compiled once: codes, signs now, mu, phase -> codes and phase after the step."""

    @jax.jit
    def run(code, positive, momentum, phase):
        flipped = positive != packed8.last_sign_positive(code)
        after = packed8.update(code, positive, flipped, momentum, phase)
        return after, packed8.next_phase(phase, momentum)

    return run


def stepped(positive, momentum, phase):
    code, after = step()(CODES, positive, np.float32(momentum), np.float32(phase))
    assert code.dtype == jnp.uint8
    return np.asarray(code), float(after)


@given(momenta, phases)
def test_without_a_flip_every_code_decays_exactly(momentum, phase):
    code, after = stepped(CODES >= 128, momentum, phase)
    np.testing.assert_array_equal(code >> 7, CODES >> 7)
    np.testing.assert_array_equal((code & 0x7F) == 0, (CODES & 0x7F) == 0)
    held = (code & 0x7F) > 1
    assert held.any()
    expected = log_average(CODES, phase) + math.log(momentum)
    # Of a level, as float32 holds the phase.
    np.testing.assert_allclose(log_average(code, after)[held], expected[held], atol=1e-5 * UNIT)
    assert np.all(expected[~held] < -124 * UNIT)


@given(momenta, phases)
def test_a_flip_rounds_every_code_to_a_neighbouring_level(momentum, phase):
    code, after = stepped(CODES < 128, momentum, phase)
    np.testing.assert_array_equal(code >> 7, 1 - (CODES >> 7))
    assert not np.any((code & 0x7F) == 0)
    decayed = momentum * np.exp(log_average(CODES, phase))
    exact = np.log(decayed + (1 - momentum))
    error = np.abs(log_average(code, after) - exact) / UNIT
    fine = decayed * math.expm1(2.001 * UNIT) < 1 - momentum
    fine &= exact <= (0.5 - after) * UNIT  # of which the nearest level is no higher than the top
    assert fine.any()
    assert np.all(error[fine] <= 0.5 + 1e-3)
    # At the top rounding up would give S > 1, and small gains are rounded up or down.
    assert np.all(error <= 1 + 1e-3)


@given(phases, st.floats(math.log(packed8.min_threshold), 0))
def test_every_code_is_silent_below_the_threshold(phase, log_threshold):
    threshold = float32(math.exp(log_threshold))
    silent = packed8.silent(jnp.asarray(CODES), jnp.float32(threshold), jnp.float32(phase))
    distance = log_average(CODES, phase) - math.log(threshold)
    clear = np.abs(distance) > 1e-4 * UNIT
    np.testing.assert_array_equal(np.asarray(silent)[clear], (distance < 0)[clear])
    never = np.asarray(packed8.never_flipped(jnp.asarray(CODES)))
    np.testing.assert_array_equal(never, (CODES & 0x7F) == 0)


def enclosure(flipped, momentum):
    """Bounds of S for a state that rounds it at every flip as the docstring of packed8 says."""
    low, high = np.zeros(flipped.shape[1]), np.zeros(flipped.shape[1])
    rows = []
    for flips in flipped:
        # A level at the bottom may stand for any smaller S, and counts as none.
        low = np.where(low <= 1.1 * LOWEST, 0, low)
        for bound, direction in ((low, -1), (high, 1)):
            gained = momentum * bound + (1 - momentum)
            levels = np.where(gained > bound * math.exp(2 * UNIT), 0.5, 1.0)
            # Where rounding may have been either, the wider one.
            levels = np.where(gained > bound * math.exp(3.1 * UNIT), levels, 1.0)
            rounded = gained * np.exp(direction * levels * UNIT)
            bound[:] = np.where(flips, rounded, momentum * bound) * math.exp(direction * 1e-7)
        high = np.where(high > 0, np.clip(high, 1.1 * LOWEST, 1.0), high)
        rows.append((low.copy(), high.copy()))
    return (np.array(column) for column in zip(*rows, strict=True))


@st.composite
def rules(draw):
    """(mu, sigma) that one byte can hold: a horizon of 4 to about 2000 steps."""
    momentum = float32(1 - math.exp(draw(st.floats(math.log(5e-4), math.log(0.5)))))
    nats_a_step = -math.log(momentum)
    longest = math.log((1 - momentum) / 5e-5) / nats_a_step
    shortest = math.ceil(0.41 / nats_a_step)
    horizon = draw(st.integers(shortest, int(min(longest, max(2000, shortest)))))
    return momentum, float32(ovsw.threshold_for_horizon(momentum, horizon))


@pytest.mark.long
@given(rules(), seeds)
def test_the_mask_agrees_with_the_average_up_to_its_grid(rule, seed):
    momentum, threshold = rule
    positive = flip_pattern(seed, STEPS)
    average, flipped, never = averages(positive, momentum)
    silent, never_flipped, _ = observe("packed8", positive, momentum, threshold)

    low, high = enclosure(flipped, momentum)
    must_be_silent, must_be_active = high < threshold, low >= threshold
    assert np.all(silent[must_be_silent])
    assert not np.any(silent[must_be_active])
    np.testing.assert_array_equal(never_flipped, never)
    # Where the average is far from the threshold no rounding matters, however often it flips.
    far = np.abs(np.log(np.maximum(average, 1e-30) / threshold)) > 1.0
    assert np.mean((silent != (average < threshold))[far]) < 2e-3


@pytest.mark.parametrize("momentum", [0.99, 0.999])
def test_one_flip_is_neither_early_nor_late_on_average(momentum):
    """Weights that flip at different steps are rounded differently; the mean is the horizon."""
    threshold, weights = 0.1 * (1 - momentum), 400
    horizon = ovsw.silence_horizon(momentum, threshold)
    steps = np.arange(weights + 2 * horizon)
    silent, _, _ = observe("packed8", steps[:, None] > np.arange(weights), momentum, threshold)
    error = np.sum(~silent, axis=0) - horizon
    level = UNIT / -math.log(momentum)
    assert abs(error.mean()) < 0.06 * level
    assert np.std(error) > 0.2 * level  # they do differ


@pytest.mark.long
@pytest.mark.parametrize("chance", [0.02, 0.05, 0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("momentum", [0.99, 0.999, 0.9995])
def test_many_small_gains_add_up(momentum, chance):
    """A weight that flips often must stay awake for as long as the average says.

    With the nearest level alone a gain below half of one is lost: at mu = 0.999 and a flip a step
    the weight would fall silent 3,600 steps early.
    """
    active, weights, threshold = 3000, 100, 1e-4
    rng = np.random.default_rng(0)
    flips = rng.random((active, weights)) < chance
    last = np.cumsum(flips, axis=0) % 2 == 1
    rest = int(math.log(1 / threshold) / -math.log(momentum)) + 500
    positive = np.concatenate([last, np.broadcast_to(last[-1], (rest, weights))])
    silent, _, _ = observe("packed8", positive, momentum, threshold)
    average, _, _ = averages(positive, momentum)
    assert np.all(silent[-1])
    late = np.sum(~silent[active:], axis=0) - np.sum(average[active:] >= threshold, axis=0)
    nats = late * -math.log(momentum)
    assert abs(nats.mean()) < 0.2
    assert np.quantile(np.abs(nats), 0.95) < 0.6


@pytest.mark.parametrize("momentum", [0.5, 0.9, 0.99])
def test_the_smallest_threshold_it_takes(momentum):
    threshold = np.float32(packed8.min_threshold * 1.0001)
    assert ovsw.track_flip_state(momentum=momentum, threshold=threshold, state="packed8")
    positive = np.tile(np.arange(STEPS)[:, None] >= 3, (1, len(CHANCES)))
    silent, never_flipped, _ = observe("packed8", positive, momentum, threshold)
    horizon = oracle.silence_horizon(momentum, float(threshold))
    leeway = math.ceil(UNIT / 2 / -math.log(momentum))
    assert abs(np.sum(~silent[:, 0]) - horizon) <= leeway
    assert np.all(silent[-1])
    assert not np.any(never_flipped[-1])  # an old flip is never forgotten


def test_a_weight_that_never_flipped_is_silent_at_any_threshold():
    code = packed8.init(jnp.array([-1.0, -0.0, 0.0, 1.0]))
    np.testing.assert_array_equal(packed8.last_sign_positive(code), [False, True, True, True])
    for threshold in np.geomspace(1e-1, 1e-30, 9):
        assert np.all(packed8.silent(code, jnp.float32(threshold), jnp.float32(0.5)))


@pytest.mark.parametrize(("momentum", "threshold"), [(0.999, 6.7e-4), (0.9, 0.1), (0.5, 0.4)])
def test_short_horizons_that_a_byte_holds(momentum, threshold):
    assert ovsw.sad(momentum=momentum, threshold=threshold, state="packed8")
