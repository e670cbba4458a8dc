"""Ctrl-C and SIGTERM: a training ends between two steps, with a checkpoint.

If several processes train together, none may leave while the others wait for it. A signal is then
noted from begin to end, and all processes act on it at the same step.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from experiments.process import distributed

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NOTE = b"stopping at the next step, with a checkpoint; once more stops at once\n"


class Stopped(KeyboardInterrupt):
    """The process was asked to stop.

    Attributes:
      status: what the process should exit with, as a shell reports the signal: 130 for Ctrl-C, 143
        for SIGTERM.
    """

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.status = 128 + signum


class Signals:
    """Signals that ask the process to stop.

    Attributes:
      asked: number of the signal that came while a training waited for its next step; else None.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._waits = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Signals raise `Stopped`. Does nothing outside the main thread, where Python has none."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The first signal is noted in `asked`, for the training to act on between two steps.

        Entering it again inside changes nothing.

        Raises:
          Stopped: at the second signal, or at the end if nothing acted on the first.
        """
        if self._waits:
            yield
            return
        self._waits = True
        try:
            yield
        finally:
            self._waits, asked, self.asked = False, self.asked, None
        if asked is not None:
            raise Stopped(asked)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._waits and self.asked is not None and not distributed.alone():
            os._exit(128 + signum)  # the others notice that it is gone
        if not self._waits or self.asked is not None:
            raise Stopped(signum)
        self.asked = signum
        with suppress(OSError):
            os.write(2, _NOTE)  # print may be under way
