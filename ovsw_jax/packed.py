r"""Flip history of a weight in two bytes: its last sign and a countdown to silence.

The rule asks two things of the moving average S of Eq. 15: is it below the threshold, and has the
weight ever flipped? Without a flip S shrinks by the fixed factor mu, so log S is a countdown. We
keep it in fixed point: a code is

    bit 15      the last sign, 1 for +
    bits 0-14   0 for a weight that never flipped, else a level of log S: one level is
                LOG_UNIT = 0.0005 nats, level TOP = 32767 is S = 1, level 1 is S ~ 0

With mu = 0.999 a step without a flip takes 2.001 levels. Levels are whole, so what a step leaves
over is kept in `phase`, one scalar for all weights; every weight then stays within half a level
of its true log S between two flips. The grid depends on neither mu nor sigma, so both may be
traced, scheduled or swept, and a stored code keeps its meaning.

A flip rounds log S to half a level. Gains of less than that are lost: of a weight that flips at
nearly every step S ends up to 0.22 nats too low (mu = 0.999; 0.40 at 0.9995), and such a weight
falls silent 221 steps early of the 9,206 that S = 1 lasts for with sigma = 1e-4.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from ovsw_jax.hyperparams import Hyperparameter, known_values

SIGN_BIT = 0x8000
TOP = 0x7FFF
LOG_UNIT = 0.0005
# A level above the lowest, so that S ~ 0 is below it whatever the phase.
MIN_THRESHOLD = math.exp(-(TOP - 2) * LOG_UNIT)
MAX_MOMENTUM = math.exp(-LOG_UNIT)
# log(1 + z) for z in [0, 1] to 3e-7, constant term first.
LOG1P: list[float] = (
    np.polynomial.Chebyshev.interpolate(np.log1p, 7, domain=[0, 1])
    .convert(kind=np.polynomial.Polynomial)
    .coef.tolist()
)


def check_range(momentum: Hyperparameter, threshold: Hyperparameter) -> None:
    """Raises ValueError if the known values span a horizon that 15 bits can't hold."""
    for v in known_values("momentum", momentum):
        if v > MAX_MOMENTUM:
            raise ValueError(
                f"momentum={v:g} makes a silence horizon that packed state cannot hold: its levels "
                f"resolve momentum up to {MAX_MOMENTUM:.6f}. Use state='ema', or a smaller "
                "momentum with a threshold from threshold_for_horizon(momentum, steps)."
            )
    for v in known_values("threshold", threshold):
        if v < MIN_THRESHOLD:
            raise ValueError(
                f"threshold={v:g} makes a silence horizon that packed state cannot hold: its "
                f"levels end at {MIN_THRESHOLD:.3g}. Use state='ema', or a larger momentum with a "
                "threshold from threshold_for_horizon(momentum, steps)."
            )


def init(weight: jax.Array) -> jax.Array:
    """Codes (uint16, shape of `weight`) of weights that never flipped."""
    return _with_sign(jnp.zeros(weight.shape, jnp.uint16), weight >= 0)


def average(code: jax.Array, phase: jax.Array) -> jax.Array:
    """S (float32) that codes stand for; `phase` is the one after the step that wrote them."""
    level = (code & jnp.uint16(TOP)).astype(jnp.float32)
    s = jnp.exp(jnp.minimum(level - (TOP - 0.5) - phase, 0) * LOG_UNIT)  # S is at most 1
    long_ago = jnp.where(level == 0, 0, float(jnp.finfo(jnp.float32).tiny))  # or never
    return jnp.where(level > 1, s, long_ago)


def of_average(average: jax.Array, positive: jax.Array, phase: jax.Array) -> jax.Array:
    """Codes at `phase` of weights with this S (float), the sign last seen being + or not."""
    level = jnp.floor(jnp.log(average) / LOG_UNIT + (TOP + phase).astype(average.dtype))
    level = jnp.where(average > 0, jnp.clip(level, 1, TOP), 0)
    return _with_sign(level.astype(jnp.uint16), positive)


def last_sign_positive(code: jax.Array) -> jax.Array:
    """Whether the sign last seen was +."""
    return (code & jnp.uint16(SIGN_BIT)) != 0


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
      code: uint16, any shape; codes before the step.
      positive: bool, same shape; whether the weight is >= 0 now.
      flipped: bool, same shape; whether that differs from the last sign.
      momentum: scalar mu.
      phase: float32 scalar; the phase before the step.
    """
    levels_lost, phase_after = _levels_lost(phase, momentum)
    level = code & jnp.uint16(TOP)
    lost = jnp.clip(levels_lost, 0, TOP).astype(jnp.uint16)
    decayed = jnp.where(level == 0, level, jnp.maximum(level, lost + jnp.uint16(1)) - lost)
    lifted = _lift(level, momentum, phase, phase_after)
    return _with_sign(jnp.where(flipped, lifted, decayed), positive)


def _levels_lost(phase: jax.Array, momentum: jax.Array | float) -> tuple[jax.Array, jax.Array]:
    """Whole levels that S loses in one step without a flip, and the fraction left over."""
    # A momentum near 0 loses all levels at once.
    decay = jnp.maximum(jnp.log(jnp.asarray(momentum, jnp.float32)), -(TOP + 1) * LOG_UNIT)
    due = phase - decay / LOG_UNIT
    whole = jnp.floor(due)
    return whole.astype(jnp.int32), due - whole


def _lift(
    level: jax.Array, momentum: jax.Array | float, phase: jax.Array, phase_after: jax.Array
) -> jax.Array:
    """Levels after a flip, of mu S + (1 - mu) = (1 - mu) (1 + mu S / (1 - mu))."""
    mu = jnp.asarray(momentum, jnp.float32)
    # From mu's own precision, not float32's; a mu that rounds to 1 lifts by next to nothing.
    gain = jnp.maximum(jnp.asarray(1 - momentum, jnp.float32), float(jnp.finfo(jnp.float32).tiny))
    lowest = jnp.log(gain) / LOG_UNIT + TOP + phase_after  # where S was 0
    middle = TOP - 0.5 + phase  # of the level that log S = 0 falls in
    log_ratio = (level.astype(jnp.float32) - middle) * LOG_UNIT + (jnp.log(mu) - jnp.log(gain))
    above = jnp.where(level > 1, _log1p_exp(log_ratio) / LOG_UNIT, 0.0)
    return jnp.clip(jnp.floor(lowest + above), 1, TOP).astype(jnp.uint16)


def _log1p_exp(x: jax.Array) -> jax.Array:
    """log(1 + e^x), a third faster on a CPU than by XLA's own logarithm."""
    z = jnp.exp(-jnp.abs(x))
    log1p = jnp.zeros_like(z)
    for coefficient in reversed(LOG1P):
        log1p = log1p * z + coefficient
    return jnp.maximum(x, 0) + log1p


def _with_sign(level: jax.Array, positive: jax.Array) -> jax.Array:
    return level | jnp.where(positive, jnp.uint16(SIGN_BIT), jnp.uint16(0))


def silent(code: jax.Array, threshold: jax.Array, phase: jax.Array) -> jax.Array:
    """Whether S < sigma; `phase` is the one after the step that wrote `code`."""
    boundary = jnp.log(threshold.astype(jnp.float32)) / LOG_UNIT + (TOP - 0.5) + phase
    # A weight that never flipped, level 0, is silent under every threshold.
    lowest_active = jnp.clip(jnp.ceil(boundary), 1, TOP + 1).astype(jnp.uint16)
    return (code & jnp.uint16(TOP)) < lowest_active


def never_flipped(code: jax.Array) -> jax.Array:
    """Whether the weight has kept the sign of its initialisation."""
    return (code & jnp.uint16(TOP)) == 0
