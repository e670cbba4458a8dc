r"""Flip history of a weight in one byte: its last sign and a coarse countdown to silence.

The scheme of `ovsw_jax.packed` with seven bits for log S. A code is

    bit 7       the last sign, 1 for +
    bits 0-6    0 for a weight that never flipped, else a level of log S: one level is
                LOG_UNIT = 0.08 nats, level TOP = 127 is S = 1, level 1 is S ~ 0

With mu = 0.999 a level lasts 80 steps. How much of one has gone by is `phase`, one scalar for all
weights, so that nothing is lost between two flips. A flip rounds log S to the nearest level: the
weight then falls silent up to half a level early or late, 40 steps of the 2,302 that one flip lasts
for with sigma = 1e-4. The grid depends on neither mu nor sigma.

A weight that flips all the time gains a fraction of a level a flip, which the nearest level would
never show. Such gains are rounded up as often as they are large: the phase runs evenly through
[0, 1) and so says when.
"""

import math

import jax
import jax.numpy as jnp

from ovsw_jax.hyperparams import Hyperparameter, known_values

SIGN_BIT = 0x80
TOP = 0x7F
LOG_UNIT = 0.08
# A level above the lowest, so that S ~ 0 is below it whatever the phase.
MIN_THRESHOLD = math.exp(-(TOP - 2) * LOG_UNIT)
# So that a flip, which lifts S to 1 - mu at least, lifts it above the lowest levels.
MAX_MOMENTUM = 0.9999
# A horizon of five levels is met to a tenth of it.
MIN_HORIZON = 5 * LOG_UNIT


def check_range(momentum: Hyperparameter, threshold: Hyperparameter) -> None:
    """Raises ValueError if the known values make a horizon that seven bits can't hold."""
    momenta, thresholds = known_values("momentum", momentum), known_values("threshold", threshold)
    for v in momenta:
        if v > MAX_MOMENTUM:
            raise ValueError(
                f"momentum={v:g} makes a silence horizon that packed8 state cannot hold: it counts "
                f"steps up to momentum {MAX_MOMENTUM}. Use state='ema', or a smaller momentum "
                "with a threshold from threshold_for_horizon(momentum, steps)."
            )
    for v in thresholds:
        if v < MIN_THRESHOLD:
            raise ValueError(
                f"threshold={v:g} makes a silence horizon that packed8 state cannot hold: its "
                f"levels end at {MIN_THRESHOLD:.3g}. Use state='packed', or a larger momentum with "
                "a threshold from threshold_for_horizon(momentum, steps)."
            )
    for mu in momenta:
        for sigma in thresholds:
            nats, nats_a_step = math.log((1 - mu) / sigma), -math.log(mu)
            if nats < MIN_HORIZON and nats_a_step < LOG_UNIT / 2:
                raise ValueError(
                    f"threshold={sigma:g} at momentum={mu:g} makes a silence horizon of about "
                    f"{nats / nats_a_step:.0f} steps, too short for packed8 state: its levels "
                    f"last {LOG_UNIT / nats_a_step:.0f}. Use state='packed', or a smaller "
                    "momentum with a threshold from threshold_for_horizon(momentum, steps)."
                )


def init(weight: jax.Array) -> jax.Array:
    """Codes (uint8, shape of `weight`) of weights that never flipped."""
    return _with_sign(jnp.zeros(weight.shape, jnp.uint8), weight >= 0)


def average(code: jax.Array, phase: jax.Array) -> jax.Array:
    """S (float32) that codes stand for; `phase` is the one after the step that wrote them."""
    level = (code & jnp.uint8(TOP)).astype(jnp.float32)
    s = jnp.exp((level - TOP - phase) * LOG_UNIT)
    long_ago = jnp.where(level == 0, 0, float(jnp.finfo(jnp.float32).tiny))  # or never
    return jnp.where(level > 1, s, long_ago)


def of_average(average: jax.Array, positive: jax.Array, phase: jax.Array) -> jax.Array:
    """Codes at `phase` of weights with this S (float), the sign last seen being + or not."""
    level = jnp.floor(jnp.log(average) / LOG_UNIT + (TOP + 0.5 + phase).astype(average.dtype))
    level = jnp.where(average > 0, jnp.clip(level, 1, TOP), 0)
    return _with_sign(level.astype(jnp.uint8), positive)


def last_sign_positive(code: jax.Array) -> jax.Array:
    """Whether the sign last seen was +."""
    return (code & jnp.uint8(SIGN_BIT)) != 0


def next_phase(phase: jax.Array, momentum: jax.Array | float) -> jax.Array:
    """The phase after one step."""
    return _levels_lost(phase, momentum)[1]


def update(
    code: jax.Array,
    positive: jax.Array,
    flipped: jax.Array,
    momentum: jax.Array | float,
    phase: jax.Array,
) -> jax.Array:
    """Codes after one step of Eq. 15.

    Args:
      code: uint8, any shape; codes before the step.
      positive: bool, same shape; whether the weight is >= 0 now.
      flipped: bool, same shape; whether that differs from the last sign.
      momentum: scalar mu.
      phase: float32 scalar; the phase before the step.
    """
    decayed, lifted = _next_levels(momentum, phase)
    row = (code & jnp.uint8(TOP)) | jnp.where(flipped, jnp.uint8(TOP + 1), jnp.uint8(0))
    table = jnp.concatenate([decayed, lifted])
    # Weights sharded over explicit axes must be told to stay so.
    level = table.at[row].get(mode="promise_in_bounds", out_sharding=jax.typeof(row).sharding)
    return _with_sign(level, positive)


def _levels_lost(phase: jax.Array, momentum: jax.Array | float) -> tuple[jax.Array, jax.Array]:
    """Whole levels that S loses in one step without a flip, and the fraction left over."""
    # A momentum near 0 loses all levels at once.
    decay = jnp.maximum(jnp.log1p(-_gain(momentum)), -(TOP + 1) * LOG_UNIT)
    due = phase - decay / LOG_UNIT
    whole = jnp.floor(due)
    return whole, due - whole


def _next_levels(momentum: jax.Array | float, phase: jax.Array) -> tuple[jax.Array, jax.Array]:
    """For each level (128,) the one after a step without a flip, and with one."""
    lost, phase_after = _levels_lost(phase, momentum)
    level = jnp.arange(TOP + 1, dtype=jnp.float32)
    left = level - lost
    decayed = jnp.where(level == 0, 0, jnp.maximum(left, 1))

    s = jnp.where(level > 1, jnp.exp((left - TOP - phase_after) * LOG_UNIT), 0)  # mu S
    gain = _gain(momentum)
    exact = jnp.log(s + gain) / LOG_UNIT + TOP + phase_after
    below_two_levels = gain < math.expm1(2 * LOG_UNIT) * s
    lifted = jnp.floor(exact + jnp.where(below_two_levels, phase, 0.5))
    return decayed.astype(jnp.uint8), jnp.clip(lifted, 1, TOP).astype(jnp.uint8)


def _gain(momentum: jax.Array | float) -> jax.Array:
    return jnp.asarray(1 - momentum, jnp.float32)  # from mu's own precision, not float32's


def _with_sign(level: jax.Array, positive: jax.Array) -> jax.Array:
    return level | jnp.where(positive, jnp.uint8(SIGN_BIT), jnp.uint8(0))


def silent(code: jax.Array, threshold: jax.Array, phase: jax.Array) -> jax.Array:
    """Whether S < sigma; `phase` is the one after the step that wrote `code`."""
    boundary = jnp.log(threshold.astype(jnp.float32)) / LOG_UNIT + TOP + phase
    # A weight that never flipped, level 0, is silent under every threshold.
    lowest_active = jnp.clip(jnp.ceil(boundary), 1, TOP + 1).astype(jnp.uint8)
    return (code & jnp.uint8(TOP)) < lowest_active


def never_flipped(code: jax.Array) -> jax.Array:
    """Whether the weight has kept the sign of its initialisation."""
    return (code & jnp.uint8(TOP)) == 0
