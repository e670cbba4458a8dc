"""Ctrl-C and SIGTERM: a training ends between two steps, with a checkpoint.

Where several processes train together none may leave by itself while the others wait for it: a
signal is then noted from the begin to the end, and heeded by all at one step.
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
        """Keeps the number of the signal."""
        super().__init__(signal.Signals(signum).name)
        self.status = 128 + signum


class Signals:
    """Signals that ask the process to stop.

    Attributes:
      asked: number of the signal that came while a training waited for its next step; else None.
    """

    def __init__(self) -> None:
        """Handles nothing yet."""
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
        """The first signal is noted in `asked`; whoever is between two steps heeds it.

        It may be entered again inside, which changes nothing.

        Raises:
          Stopped: at the second signal, or at the end if nobody has heeded the first.
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
