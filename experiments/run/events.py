"""TensorBoard's files of a training, written before the training goes on.

tensorboardX's own writer has a thread of its own. It ends at the first error, of a full disk say,
and whoever adds something then waits for it forever.
"""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar


class EventFile:
    """A file of scalars, a record a step."""

    def __init__(self, folder: Path):
        """Makes the file.

        Args:
          folder: of one training; made if need be.
        """
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._file = RecordWriter(str(folder / name))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Writes what was measured at a step."""
        found = [value for tag, x in values.items() for value in scalar(tag, x).value]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=found)))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, event: Event) -> None:
        self._file.write(event.SerializeToString())
        self._file.flush()
