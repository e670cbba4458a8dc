"""Optimizer steps by themselves, with gradients that are given and signs that flip."""

import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax

import ovsw_jax as ovsw


class Stepper:
    """One optimizer with parameters and state of its own, jitted, with donated buffers.

    Signs flip as in training, and no work within a step is spent on that: steps take turns between
    two copies of the parameters, which differ in the signs of a share of the latent weights. Which
    ones is drawn again for every measurement. Learning rates should be small, so that the steps
    themselves flip next to none.

    Attributes:
      state_bytes: size of the optimizer's state.
      floor_bytes: what a step must move: gradients are read, parameters and state read and
        written, each once.
      compile_seconds: what the first step took, tracing and compiling included.
    """

    def __init__(
        self,
        tx: optax.GradientTransformation,
        params: Any,
        gradients: Any,
        *,
        flips: float,
    ):
        """Makes the first step.

        Args:
          tx: the optimizer.
          params: its parameters, which are copied.
          gradients: of every step.
          flips: share of the latent weights that flip between two steps, 0 to 1.

        Raises:
          ValueError: if `flips` is no share.
        """
        if not 0 <= flips <= 1:
            raise ValueError(f"--flips {flips} is no share: it must be between 0 and 1.")

        def step(params: Any, state: Any, gradients: Any) -> tuple[Any, Any]:
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        self._flips, self._key, self._turn = flips, jax.random.key(0), 0
        self._step = jax.jit(step, donate_argnums=(0, 1))
        self._gradients = gradients
        self._copies = [jax.tree.map(jnp.copy, params), params]
        self._state = tx.init(params)
        self.state_bytes = _bytes(self._state)
        self.floor_bytes = _bytes(gradients) + 2 * _bytes(params) + 2 * self.state_bytes
        self._differ()
        started = time.perf_counter()
        self._run(1)
        self.compile_seconds = time.perf_counter() - started

    def measure(self, steps: int) -> float:
        """Seconds a step, over `steps` steps."""
        self._differ()
        started = time.perf_counter()
        self._run(steps)
        return (time.perf_counter() - started) / steps

    def _run(self, steps: int) -> None:
        for _ in range(steps):
            self._turn = 1 - self._turn
            params = self._copies[self._turn]
            self._copies[self._turn], self._state = self._step(params, self._state, self._gradients)
        jax.block_until_ready((self._copies, self._state))

    def _differ(self) -> None:
        """Makes the second copy one of the first, with other signs."""
        self._key, key = jax.random.split(self._key)
        self._copies[1] = jax.block_until_ready(_flip(self._copies[0], key, self._flips))


def enough_steps(stepper: Stepper, at_least: int) -> int:
    """Steps of a measurement: `at_least`, more where that many take less than 50 ms."""
    return max(at_least, math.ceil(0.05 / stepper.measure(at_least)))


def small_gradients(params: Any) -> Any:
    """Gradients that look like parameters."""
    return jax.tree.map(lambda p: 0.01 * p[::-1], params)


def _flip(params: Any, key: jax.Array, share: float) -> Any:
    """`params` with the signs of a random `share` of the latent weights flipped."""
    leaves, structure = jax.tree.flatten(params)
    latent = jax.tree.leaves(ovsw.latent_mask(params))
    keys = jax.random.split(key, len(leaves))
    shares = [share if is_latent else 0.0 for is_latent in latent]
    return jax.tree.unflatten(structure, map(_flip_leaf, leaves, keys, shares))


@jax.jit
def _flip_leaf(x: jax.Array, key: jax.Array, share: float) -> jax.Array:
    """Compiled once a shape: a program of a thousand leaves would take minutes to compile."""
    drawn = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)  # half the time of 32 bits
    return jnp.where(drawn < jnp.round(share * 2**16).astype(jnp.uint32), -x, x)


def _bytes(tree: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))
