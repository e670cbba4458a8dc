r"""Flip history of a weight in one byte: `log_code.py` with seven bits for log S.

    bit 7       the last sign, 1 for +
    bits 0-6    0 for a weight that never flipped, else a level of 0.08 nats; level 127 is S = 1

With mu = 0.999 a level lasts 80 steps. A flip rounds log S to the nearest level: the weight then
falls silent up to half a level early or late, 40 steps of the 2,302 that one flip lasts for with
sigma = 1e-4.

A weight that flips all the time gains a fraction of a level per flip, which the nearest level would
never show. Such gains are rounded up as often as they are large: the phase runs evenly through
[0, 1) and so says when.
"""

import math

import jax
import jax.numpy as jnp

from ovsw_jax.flip_state.log_code import LogCode
from ovsw_jax.hyperparams import Hyperparameter, known_values

UNIT = 0.08  # nats per level
# So that a flip, which lifts S to 1 - mu at least, lifts it above the lowest levels.
MAX_MOMENTUM = 0.9999
# A horizon of five levels is met to a tenth of it.
MIN_HORIZON = 5 * UNIT


class Packed8(LogCode):
    """One byte per weight; a step looks up each code in a table of all of them."""

    def __init__(self) -> None:
        """The code of the module's docstring."""
        super().__init__(
            name="packed8",
            description="one byte, coarser",
            dtype=jnp.uint8,
            unit=UNIT,
            middle=0.0,
            max_momentum=MAX_MOMENTUM,
            finer="packed",
        )

    def check_range(self, momentum: Hyperparameter, threshold: Hyperparameter) -> None:
        """Raises ValueError if the known values make a horizon that seven bits can't hold."""
        super().check_range(momentum, threshold)
        for mu in known_values("momentum", momentum):
            for sigma in known_values("threshold", threshold):
                nats, nats_per_step = math.log((1 - mu) / sigma), -math.log(mu)
                if nats < MIN_HORIZON and nats_per_step < self.unit / 2:
                    raise ValueError(
                        f"threshold={sigma:g} at momentum={mu:g} makes a silence horizon of about "
                        f"{nats / nats_per_step:.0f} steps, too short for packed8 state: its "
                        f"levels last {self.unit / nats_per_step:.0f}. Use state='packed', or a "
                        "smaller momentum with a threshold from "
                        "threshold_for_horizon(momentum, steps)."
                    )

    def update(
        self,
        history: jax.Array,
        positive: jax.Array,
        flipped: jax.Array,
        momentum: jax.Array | float,
        phase: jax.Array,
    ) -> jax.Array:
        """Codes after one step; see `FlipStateKind.update`."""
        decayed, lifted = self._next_levels(momentum, phase)
        row = self.level(history) | jnp.where(flipped, jnp.uint8(self.top + 1), jnp.uint8(0))
        table = jnp.concatenate([decayed, lifted])
        # Weights sharded over explicit axes must be told to stay so.
        level = table.at[row].get(mode="promise_in_bounds", out_sharding=jax.typeof(row).sharding)
        return self.with_sign(level, positive)

    def _next_levels(
        self, momentum: jax.Array | float, phase: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """For each level (128,) the one after a step without a flip, and with one."""
        lost, phase_after = self.levels_lost(phase, momentum)
        level = jnp.arange(self.top + 1, dtype=jnp.float32)
        left = level - lost
        decayed = jnp.where(level == 0, 0, jnp.maximum(left, 1))

        log_decayed = (left - self.top - phase_after) * self.unit
        s = jnp.where(level > 1, jnp.exp(log_decayed), 0)  # mu S
        gain = self.gain(momentum)
        exact = jnp.log(s + gain) / self.unit + self.top + phase_after
        below_two_levels = gain < math.expm1(2 * self.unit) * s
        lifted = jnp.floor(exact + jnp.where(below_two_levels, phase, 0.5))
        return decayed.astype(jnp.uint8), jnp.clip(lifted, 1, self.top).astype(jnp.uint8)
