"""Packed flip state over 100,000 steps against a float64 average: the error doesn't grow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ovsw_jax as ovsw

STEPS = 100_000
EVERY = 100  # steps between two checks
WEIGHTS = 300
# mu and sigma: silence horizons of 459, 2302, 500 and 3219 steps.
RULES = [(0.99, 1e-4), (0.999, 1e-4), (0.999, 6.0683e-4), (0.9995, 1e-4)]
# Nats a level, the top level, and where in a level its S lies, by the docstrings of both kinds.
LEVELS = {"packed": (0.0005, 32767, 0.5), "packed8": (0.08, 127, 0.0)}
# By how much float32 may decay S faster or slower than float64 does, in nats a step.
FLOAT32 = 1e-7
# Weight-steps with another mask, at most, in simulations and in results/packed8.
STATED_SHARE = {"packed": 0.00043, "packed8": 0.00373}


def flip_pattern():
    """Flips (STEPS, WEIGHTS): steady chances from never to every step, then bursts and silences."""
    rng = np.random.default_rng(0)
    chance = 10 ** rng.uniform(-4.5, 0, WEIGHTS)
    chance[:10], chance[10:15] = 0, 1
    flips = rng.random((STEPS, WEIGHTS)) < chance
    for w in range(WEIGHTS // 2, WEIGHTS):
        lengths = rng.exponential([rng.choice([30, 300, 3000])], 2 + STEPS // 10)
        lengths[1::2] = rng.exponential(rng.choice([500, 3000, 20_000]), len(lengths) // 2)
        ends = np.cumsum(np.ceil(lengths))
        flips[:, w] &= np.searchsorted(ends, np.arange(STEPS), side="right") % 2 == w % 2
    flips[0] = False  # initialisation is no flip
    return flips


@functools.cache
def signs():
    return np.logical_xor.accumulate(flip_pattern(), axis=0)


@functools.cache
def averages():
    """Per rule S (checks, rules, WEIGHTS) in float64, and for both kinds the bounds of their S.

    Between flips a code falls as log S does. A flip rounds to the nearest level; in packed8 small
    gains are rounded either way. What S was off before is carried over, less the more a flip adds.
    So errors of many flips in a row do add up, and single flips forget them.
    """
    mu = np.float32([rule[0] for rule in RULES]).astype(np.float64)[:, None]
    gain = 1 - mu
    s = np.zeros((len(RULES), WEIGHTS))
    bounds = {kind: np.zeros((2, *s.shape)) for kind in LEVELS}
    away = np.array([-1.0, 1.0])[:, None, None]  # the lower bound falls, the upper rises
    rows = []
    for t, flips in enumerate(flip_pattern()):
        s = mu * s + gain * flips
        for kind, (unit, top, _) in LEVELS.items():
            bound = bounds[kind]
            before = mu * bound
            after = before + gain * flips
            levels = 0.5 if kind == "packed" else 1 - 0.5 * (after > bound * np.exp(3.1 * unit))
            after *= np.exp(away * (FLOAT32 + flips * (levels * unit)))
            # The lowest level stands for any smaller S, and counts as none at the next flip.
            lowest = 1.01 * np.exp((2 - top) * unit)
            after[0] *= after[0] > lowest
            after[1] = np.where(after[1] > 0, np.clip(after[1], lowest, 1), 0)
            bounds[kind] = after
        if (t + 1) % EVERY == 0:
            rows.append((s, bounds["packed"], bounds["packed8"]))
    s, *both = (np.array(column) for column in zip(*rows, strict=True))
    return s, dict(zip(LEVELS, both, strict=True))


def observed(kind):
    """log S that the state stands for, silent and never flipped, at every check of every rule."""

    def observe(momentum, threshold, positive):
        tx = ovsw.track_flip_state(
            momentum=lambda _: momentum, threshold=lambda _: threshold, state=kind
        )

        def step(state, sign):
            params = {"latent_kernel": jnp.where(sign, 1.0, -1.0)}
            return tx.update(params, state, params)[1], None

        def until_check(state, signs):
            state, _ = jax.lax.scan(step, state, signs)
            masks = ovsw.silent_mask(state), ovsw.never_flipped_mask(state)
            return state, (state.history, state.phase, *masks)

        start = tx.init({"latent_kernel": jnp.where(positive[0, 0], 1.0, -1.0)})
        return jax.lax.scan(until_check, start, positive)[1]

    rules = jnp.asarray(np.float32(list(RULES)).T)
    positive = signs().reshape(STEPS // EVERY, EVERY, WEIGHTS)
    seen = jax.jit(jax.vmap(observe, (0, 0, None), 1))(*rules, positive)
    history, phase, silent, never = (np.asarray(*jax.tree.leaves(x)) for x in seen)
    unit, top, middle = LEVELS[kind]
    level = (history & top).astype(np.float64)
    log_s = np.where(level > 1, (level - top + middle - phase[..., None]) * unit, -np.inf)
    return log_s, silent, never


@pytest.mark.long
@pytest.mark.parametrize("kind", LEVELS)
def test_packed_state_does_not_drift(kind):
    s, bounds = averages()
    low, high = np.moveaxis(bounds[kind], 1, 0)
    log_s, silent, never = observed(kind)
    unit, top, middle = LEVELS[kind]
    lowest = np.exp((2 - top) * unit)

    assert np.all(np.exp(log_s) <= np.maximum(high, lowest) * np.exp(middle * unit))
    assert np.all(np.exp(log_s) >= np.where(low > lowest, low, 0))
    np.testing.assert_array_equal(never, s == 0)
    sigma = np.float32([rule[1] for rule in RULES]).astype(np.float64)[:, None]
    differs = silent != (s < sigma)
    assert np.all((low <= sigma) & (sigma <= high) | ~differs)

    assert np.all(np.mean(differs, axis=(0, 2)) < STATED_SHARE[kind])

    held = (s > 2 * lowest) & (log_s > -np.inf)
    error = np.where(held, log_s - np.log(np.maximum(s, 1e-300)), 0)
    # A weight takes a few thousand steps to its first flips, so the first tenth is another case.
    size = [np.abs(e).sum() / h.sum() for e, h in zip(tenths(error), tenths(held), strict=True)]
    assert size[9] < 1.1 * size[1]
    off = [np.mean(d) for d in tenths(differs)]
    assert np.mean(off[6:]) < 1.5 * np.mean(off[1:5]) + 1e-5


def tenths(x):
    return np.array_split(x, 10)
