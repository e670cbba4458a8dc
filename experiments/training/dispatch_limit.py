"""How far the host runs ahead of the devices."""

import time
from typing import Any

import jax

SECONDS_AHEAD = 0.25


class Pace:
    """Waits for the devices once in a while, so that the host knows where they are.

    JAX returns before a step is made, and a run of long steps would be asked to stop, to save or to
    tell how fast it is a minute before its devices get there. They idle for one dispatch a wait.

    Attributes:
      allowed: calls from one wait to the next; several processes must wait at the same ones.
    """

    def __init__(self) -> None:
        """Starts with a wait at the first call, which compiles, and at the second."""
        self._calls, self.allowed = 0, 1
        self._since = time.perf_counter()

    def caught_up(self, result: Any) -> bool:
        """After each call: whether this was one to wait for.

        Args:
          result: of the call, any pytree of arrays.
        """
        self._calls += 1
        if self._calls < self.allowed:
            return False
        jax.block_until_ready(result)
        seconds = time.perf_counter() - self._since
        self.allowed = max(1, int(SECONDS_AHEAD * self._calls / max(seconds, 1e-9)))
        self._calls, self._since = 0, time.perf_counter()
        return True
