"""Flip history of a weight as the literal moving average S of Eq. 15, for comparison.

S is never negative, so its sign bit holds the last sign of the weight: -0.0 is a weight that was
negative and never flipped. No time step is left over, so the phase stays as it is.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovsw_jax.hyperparams import Hyperparameter, known_values
from ovsw_jax.precision import accurate_dtype


class Ema:
    """A float per weight: float32, or float64 for float64 weights."""

    name = "ema"
    description = "the literal float average"

    def holds(self, dtype: Any) -> bool:
        """Whether averages are of this dtype."""
        return bool(jnp.issubdtype(dtype, jnp.floating))

    def check_range(self, momentum: Hyperparameter, threshold: Hyperparameter) -> None:
        """Raises ValueError if the known values are beyond float32, the history's dtype."""
        for v in known_values("momentum", momentum):
            if np.float32(v) >= 1:
                raise ValueError(
                    f"momentum={v!r} is 1 in float32, in which S is kept: S would never decay. Use "
                    "at most 0.9999999."
                )
        for v in known_values("threshold", threshold):
            if v <= np.finfo(np.float32).tiny:
                raise ValueError(
                    f"threshold={v:g} is below what float32 holds, in which S is kept: no weight "
                    "would ever be silent. Use a larger threshold, or a momentum nearer to 1 for a "
                    "long horizon; threshold_for_horizon(momentum, steps) relates them."
                )

    def init(self, weight: jax.Array) -> jax.Array:
        """History of weights that never flipped."""
        return _with_sign(jnp.zeros_like(weight, accurate_dtype(weight)), weight >= 0)

    def update(
        self,
        history: jax.Array,
        positive: jax.Array,
        flipped: jax.Array,
        momentum: jax.Array | float,
        phase: jax.Array,
    ) -> jax.Array:
        """History after one step; see `FlipStateKind.update`."""
        del phase
        dtype = history.dtype
        average = jnp.abs(history)
        gain = jnp.asarray(1 - momentum, dtype)  # from mu's own precision, not the history's
        updated = jnp.asarray(momentum, dtype) * average + jnp.where(flipped, gain, 0)
        # An old flip must not underflow to "never flipped".
        tiny = float(jnp.finfo(dtype).tiny)
        updated = jnp.where(average > 0, jnp.maximum(updated, tiny), updated)
        return _with_sign(updated, positive)

    def next_phase(self, phase: jax.Array, momentum: jax.Array | float) -> jax.Array:
        """The phase, as it is."""
        del momentum
        return phase

    def last_sign_positive(self, history: jax.Array) -> jax.Array:
        """Whether the last sign is +."""
        return ~jnp.signbit(history)

    def silent(self, history: jax.Array, threshold: jax.Array, phase: jax.Array) -> jax.Array:
        """Whether S < sigma."""
        del phase
        return jnp.abs(history) < threshold.astype(history.dtype)

    def never_flipped(self, history: jax.Array) -> jax.Array:
        """Whether the weight has kept the sign of its initialisation."""
        return history == 0

    def average(self, history: jax.Array, phase: jax.Array) -> jax.Array:
        """S, of the dtype of the history."""
        del phase
        return jnp.abs(history)

    def of_average(self, average: jax.Array, positive: jax.Array, phase: jax.Array) -> jax.Array:
        """History of weights with this S (float) and last sign."""
        del phase
        return _with_sign(average, positive)

    def in_dtype(self, history: jax.Array, dtype: Any) -> jax.Array:
        """The history in this dtype, in which an old flip doesn't become "never flipped"."""
        average = jnp.abs(history)
        least = jnp.where(average > 0, float(jnp.finfo(dtype).tiny), 0).astype(dtype)
        average = jnp.maximum(average.astype(dtype), least)
        return _with_sign(average, self.last_sign_positive(history))


def _with_sign(average: jax.Array, positive: jax.Array) -> jax.Array:
    return jnp.where(positive, average, -average)
