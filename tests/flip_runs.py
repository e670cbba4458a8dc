"""Weights that flip at random, what a flip state says of them, and their float64 averages."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle

import ovsw_jax as ovsw

# What each observed weight does: its chance to flip in a step. The last two flip in bursts.
CHANCES = np.array([0, 1 / 3000, 1 / 1000, 1 / 300, 1 / 100, 1 / 30, 0.1, 0.3, 0.5, 1, 1, 0.5])


def float32(x):
    """The number as compiled code is given it, for the oracle too."""
    return float(np.float32(x))


def flip_pattern(seed, steps):
    """Signs (steps, weights) of weights that flip at random, from never to at every step."""
    rng = np.random.default_rng(seed)
    flips = rng.random((steps, len(CHANCES))) < CHANCES
    start, length = rng.integers(0, steps, 2), rng.integers(1, steps, 2)
    inside = (np.arange(steps)[:, None] >= start) & (np.arange(steps)[:, None] < start + length)
    flips[:, -2:] &= inside
    first = rng.random(len(CHANCES)) < 0.5
    return first ^ (np.cumsum(flips, axis=0) % 2 == 1)


@functools.cache
def _observer(state, dtype):
    """Compiled once: (signs, momenta, thresholds) -> silent, never flipped, flip shares."""

    @jax.jit
    def observe(positive, momentum, threshold):
        tx = ovsw.track_flip_state(
            momentum=lambda count: momentum[count],
            threshold=lambda count: threshold[count],
            state=state,
        )

        def step(carry, sign):
            params = {"latent_kernel": jnp.where(sign, 1, -1).astype(dtype)}
            _, carry = tx.update(params, carry, params)
            return carry, (
                ovsw.silent_mask(carry)["latent_kernel"],
                ovsw.never_flipped_mask(carry)["latent_kernel"],
                carry.flip_ratio["latent_kernel"],
            )

        start = tx.init({"latent_kernel": jnp.ones(positive.shape[1:], dtype)})
        return jax.lax.scan(step, start, positive)[1]

    return observe


def observe(state, positive, momentum, threshold, dtype=np.float32):
    """(silent, never flipped, flip share) at every step; a rule, or one of each step."""
    with jax.enable_x64(dtype == np.float64):
        rule = [np.broadcast_to(x, len(positive)).astype(dtype) for x in (momentum, threshold)]
        return jax.device_get(_observer(state, dtype)(positive, *map(jnp.asarray, rule)))


def averages(positive, momentum):
    """The oracle's S, flips and weights that never flipped, at every step."""
    tracker, rows = oracle.FlipTracker(), []
    momenta = np.broadcast_to(momentum, len(positive))
    for sign, mu in zip(np.where(positive, 1.0, -1.0), momenta, strict=True):
        tracker.momentum = mu
        flipped, _ = tracker.update(sign)
        rows.append((tracker.ema, flipped, ~tracker.ever_flipped))
    return (np.array(column) for column in zip(*rows, strict=True))
