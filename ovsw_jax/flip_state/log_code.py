r"""Flip history of a weight as an unsigned integer: its last sign and a countdown to silence.

The rule asks two things of the moving average S of Eq. 15: is it below the threshold, and has the
weight ever flipped? Without a flip S shrinks by the fixed factor mu, so log S is a countdown. It
is kept in fixed point: a code is

    highest bit   the last sign, 1 for +
    other bits    0 for a weight that never flipped, else a level of log S: one level is `unit`
                  nats, the highest level `top` is S = 1, level 1 is S ~ 0

Levels are whole, so what a step leaves over is kept in `phase`, one scalar for all weights: between
two flips a weight loses nothing to rounding. The grid depends on neither mu nor sigma, so both may
be traced, scheduled or swept, and a stored code keeps its meaning.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ovsw_jax.hyperparams import Hyperparameter, known_values


@dataclass(frozen=True)
class LogCode:
    """What all kinds that are codes share; a subclass adds `update` to make a `FlipStateKind`.

    Attributes:
      name, description: see `FlipStateKind`.
      dtype: of a code, an unsigned integer type.
      unit: nats per level.
      middle: level n stands for log S = (n + middle - top - phase) * unit: 0.5 where a flip is
        rounded down to a level, 0 where it is rounded to the nearest one.
      max_momentum: the largest mu whose flips and steps the levels resolve.
      finer: the kind to use for a smaller threshold.
    """

    name: str
    description: str
    dtype: Any
    unit: float
    middle: float
    max_momentum: float
    finer: str

    @property
    def top(self) -> int:
        """The highest level, and the mask of the bits that hold a level."""
        return int(jnp.iinfo(self.dtype).max) >> 1

    @property
    def sign_bit(self) -> int:
        """The bit that holds the last sign."""
        return self.top + 1

    @property
    def min_threshold(self) -> float:
        """A level above the lowest, so that S ~ 0 is below it whatever the phase."""
        return math.exp(-(self.top - 2) * self.unit)

    def holds(self, dtype: Any) -> bool:
        """Whether codes are of this dtype."""
        return bool(dtype == jnp.dtype(self.dtype))

    def check_range(self, momentum: Hyperparameter, threshold: Hyperparameter) -> None:
        """Raises ValueError if the known values span a horizon that the levels can't hold."""
        for v in known_values("momentum", momentum):
            if v > self.max_momentum:
                raise ValueError(
                    f"momentum={v:g} makes a silence horizon that {self.name} state cannot hold: "
                    f"its levels resolve momentum up to {self.max_momentum:.6f}. Use state='ema', "
                    "or a smaller momentum with a threshold from "
                    "threshold_for_horizon(momentum, steps)."
                )
        for v in known_values("threshold", threshold):
            if v < self.min_threshold:
                raise ValueError(
                    f"threshold={v:g} makes a silence horizon that {self.name} state cannot hold: "
                    f"its levels end at {self.min_threshold:.3g}. Use state={self.finer!r}, or a "
                    "larger momentum with a threshold from threshold_for_horizon(momentum, steps)."
                )

    def init(self, weight: jax.Array) -> jax.Array:
        """Codes of weights that never flipped."""
        return self.with_sign(jnp.zeros(weight.shape, self.dtype), weight >= 0)

    def next_phase(self, phase: jax.Array, momentum: jax.Array | float) -> jax.Array:
        """The phase after one step."""
        return self.levels_lost(phase, momentum)[1]

    def last_sign_positive(self, history: jax.Array) -> jax.Array:
        """Whether the last sign is +."""
        return (history & self.dtype(self.sign_bit)) != 0

    def silent(self, history: jax.Array, threshold: jax.Array, phase: jax.Array) -> jax.Array:
        """Whether S < sigma; `phase` is the one after the step that wrote the code."""
        log_threshold = jnp.log(threshold.astype(jnp.float32))
        boundary = log_threshold / self.unit + (self.top - self.middle) + phase
        # A weight that never flipped, level 0, is silent under every threshold.
        lowest_active = jnp.clip(jnp.ceil(boundary), 1, self.top + 1).astype(self.dtype)
        return self.level(history) < lowest_active

    def never_flipped(self, history: jax.Array) -> jax.Array:
        """Whether the weight has kept the sign of its initialisation."""
        return self.level(history) == 0

    def average(self, history: jax.Array, phase: jax.Array) -> jax.Array:
        """S (float32) that codes stand for; `phase` is the one after the step that wrote them."""
        level = self.level(history).astype(jnp.float32)
        levels_to_one = jnp.minimum(level - (self.top - self.middle) - phase, 0)  # S is at most 1
        long_ago = jnp.where(level == 0, 0, float(jnp.finfo(jnp.float32).tiny))  # or never
        return jnp.where(level > 1, jnp.exp(levels_to_one * self.unit), long_ago)

    def of_average(self, average: jax.Array, positive: jax.Array, phase: jax.Array) -> jax.Array:
        """Codes at `phase` of weights with this S (float) and last sign."""
        one = (self.top + (0.5 - self.middle) + phase).astype(average.dtype)  # the level of S = 1
        level = jnp.floor(jnp.log(average) / self.unit + one)
        level = jnp.where(average > 0, jnp.clip(level, 1, self.top), 0)
        return self.with_sign(level.astype(self.dtype), positive)

    def in_dtype(self, history: jax.Array, dtype: Any) -> jax.Array:
        """The codes as they are: they hold no averages."""
        del dtype
        return history

    # ---- for `update` of a subclass

    def level(self, history: jax.Array) -> jax.Array:
        """The levels alone."""
        return history & self.dtype(self.top)

    def with_sign(self, level: jax.Array, positive: jax.Array) -> jax.Array:
        """Codes of these levels and signs."""
        return level | jnp.where(positive, self.dtype(self.sign_bit), self.dtype(0))

    def levels_lost(
        self, phase: jax.Array, momentum: jax.Array | float
    ) -> tuple[jax.Array, jax.Array]:
        """Whole levels (float32) that a step without a flip loses, and the fraction left over."""
        # A momentum near 0 loses all levels at once.
        decay = jnp.maximum(self.log_momentum(momentum), -(self.top + 1) * self.unit)
        due = phase - decay / self.unit
        whole = jnp.floor(due)
        return whole, due - whole

    def log_momentum(self, momentum: jax.Array | float) -> jax.Array:
        """The logarithm of mu in float32, from mu's own precision."""
        return jnp.log1p(-self.gain(momentum))

    def gain(self, momentum: jax.Array | float) -> jax.Array:
        """1 - mu in float32, what a flip adds to S; from mu's own precision."""
        return jnp.asarray(1 - momentum, jnp.float32)
