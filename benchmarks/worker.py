"""A measurement in a process of its own, which the driver asks for one number at a time.

Thread pools and allocators of two frameworks in one process would disturb each other. A worker
builds its program, runs it once, and then measures whenever it is told to, so that the driver can
take turns among several; in between it waits.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol


class Program(Protocol):
    """What a worker measures."""

    info: dict[str, Any]  # sent to the driver once, as JSON

    def step(self) -> None:
        """Starts one step."""

    def wait(self) -> None:
        """Returns when all steps are done."""


class Worker:
    """The driver's end: starts the process and asks it.

    Attributes:
      info: what the program says about itself.
    """

    def __init__(self, module: str, settings: Mapping[str, Any], variables: Mapping[str, str]):
        """Starts `python -m module` and waits until its program is ready.

        Args:
          module: calls `serve`.
          settings: for the function that makes the program, as JSON.
          variables: of the environment, beside those of this process.

        Raises:
          RuntimeError: if the worker fails; what it printed has gone to stderr.
        """
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(settings)],
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.info: dict[str, Any] = self._answer()

    def measure(self, steps: int) -> float:
        """Seconds a step, over `steps` steps."""
        assert self._process.stdin is not None
        print(steps, file=self._process.stdin, flush=True)
        return self._answer()

    def __enter__(self) -> "Worker":
        """The worker itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the process."""
        self._close()

    def _close(self) -> int:
        """Closes both pipes, of which the process sees one, and returns its exit code."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        return self._process.wait()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"{self._module} ended with exit code {self._close()} instead of answering; "
                "its message is above."
            )
        return json.loads(line)


def serve(build: Callable[..., Program]) -> None:
    """The worker's end: builds the program from the command line and measures till input ends.

    Args:
      build: makes the program, which has run once, from the settings as keyword arguments.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    program = build(**json.loads(sys.argv[1]))
    print(json.dumps(program.info), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_seconds_a_step(program, int(line))), file=answers, flush=True)


def _seconds_a_step(program: Program, steps: int) -> float:
    started = time.perf_counter()
    for _ in range(steps):
        program.step()
    program.wait()
    return (time.perf_counter() - started) / steps
