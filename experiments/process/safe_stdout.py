"""Standard output and error that a full disk or a closed pipe only silences."""

import os
import sys
from contextlib import suppress
from typing import Any, TextIO, cast


class _Unfailing:
    """A stream of text that drops what can't be written."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def never_fail() -> None:
    """Replaces both streams for the rest of the process; writes resume when they can."""
    for name in ("stdout", "stderr"):
        # Python has none where the process was started with a closed one.
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115
        setattr(sys, name, cast(TextIO, _Unfailing(stream)))
