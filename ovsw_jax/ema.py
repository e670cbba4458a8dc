"""Flip history of a weight as the literal moving average S of Eq. 15, for comparison.

S is never negative, so its sign bit holds the last sign of the weight: -0.0 is a weight that was
negative and never flipped. The functions are those of `ovsw_jax.packed`; the phase is a packed
state's own matter and only handed on here.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ovsw_jax.hyperparams import Hyperparameter, known_values
from ovsw_jax.precision import accurate_dtype


def check_range(momentum: Hyperparameter, threshold: Hyperparameter) -> None:
    """Raises ValueError if the known values are beyond float32, the history's dtype."""
    for v in known_values("momentum", momentum):
        if np.float32(v) >= 1:
            raise ValueError(
                f"momentum={v!r} is 1 in float32, in which S is kept: S would never decay. Use at "
                "most 0.9999999."
            )
    for v in known_values("threshold", threshold):
        if v <= np.finfo(np.float32).tiny:
            raise ValueError(
                f"threshold={v:g} is below what float32 holds, in which S is kept: no weight would "
                "ever be silent. Use a larger threshold, or a momentum nearer to 1 for a long "
                "horizon; threshold_for_horizon(momentum, steps) relates them."
            )


def init(weight: jax.Array) -> jax.Array:
    """History (float32, or float64 for float64 weights) of weights that never flipped."""
    return _with_sign(jnp.zeros_like(weight, accurate_dtype(weight)), weight >= 0)


def average(history: jax.Array, phase: jax.Array) -> jax.Array:
    """S, of the dtype of the history."""
    del phase
    return jnp.abs(history)


def of_average(average: jax.Array, positive: jax.Array, phase: jax.Array) -> jax.Array:
    """History of weights with this S (float), the sign last seen being + or not."""
    del phase
    return _with_sign(average, positive)


def last_sign_positive(history: jax.Array) -> jax.Array:
    """Whether the sign last seen was +."""
    return ~jnp.signbit(history)


def next_phase(phase: jax.Array, momentum: jax.Array | float) -> jax.Array:
    """The phase, as it is."""
    del momentum
    return phase


def update(
    history: jax.Array,
    positive: jax.Array,
    flipped: jax.Array,
    momentum: jax.Array | float,
    phase: jax.Array,
) -> jax.Array:
    """History after one step of Eq. 15; all arrays but the scalars have the shape of the weight."""
    del phase
    dtype = history.dtype
    average = jnp.abs(history)
    gain = jnp.asarray(1 - momentum, dtype)  # from mu's own precision, not the history's
    updated = jnp.asarray(momentum, dtype) * average + jnp.where(flipped, gain, 0)
    # An old flip must not underflow to "never flipped".
    updated = jnp.where(average > 0, jnp.maximum(updated, float(jnp.finfo(dtype).tiny)), updated)
    return _with_sign(updated, positive)


def silent(history: jax.Array, threshold: jax.Array, phase: jax.Array) -> jax.Array:
    """Whether S < sigma."""
    del phase
    return jnp.abs(history) < threshold.astype(history.dtype)


def never_flipped(history: jax.Array) -> jax.Array:
    """Whether the weight has kept the sign of its initialisation."""
    return history == 0


def _with_sign(average: jax.Array, positive: jax.Array) -> jax.Array:
    return jnp.where(positive, average, -average)
