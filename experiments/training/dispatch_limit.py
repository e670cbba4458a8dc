"""Limits how far the host runs ahead of the devices."""

import time
from typing import Any

import jax

SECONDS_AHEAD = 0.25


class DispatchLimit:
    """Waits for the devices once in a while, so that the host knows where they are.

    JAX returns before a step is done. Without waits, long steps would let the host run ahead by
    minutes, and a signal, a checkpoint or the speed shown would come that much too early. A wait
    leaves the devices idle for one dispatch.

    Attributes:
      allowed: calls from one wait to the next; several processes must wait at the same ones. The
        first two calls wait, since the first one compiles.
    """

    def __init__(self) -> None:
        self._calls, self.allowed = 0, 1
        self._since = time.perf_counter()

    def caught_up(self, result: Any) -> bool:
        """Called with the `result` of each call, any pytree of arrays; whether it waited for it."""
        self._calls += 1
        if self._calls < self.allowed:
            return False
        jax.block_until_ready(result)
        seconds = time.perf_counter() - self._since
        self.allowed = max(1, int(SECONDS_AHEAD * self._calls / max(seconds, 1e-9)))
        self._calls, self._since = 0, time.perf_counter()
        return True
