"""TensorBoard's files, written synchronously.

tensorboardX's own writer uses a thread, which ends at its first error, such as a full disk. A later
call then waits for it forever.
"""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import HistogramProto, Summary
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar


class EventFile:
    """A file of scalars, histograms and other summaries of one training."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._file = RecordWriter(str(folder / name))
        self._described: set[str] = set()  # the first description of a tag holds
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add_scalars(
        self, values: Mapping[str, float], step: int, about: Mapping[str, str] | None = None
    ) -> None:
        """Adds scalars by tag; `about` describes some, which TensorBoard shows beside the curve."""
        texts = {tag: text for tag, text in (about or {}).items() if tag not in self._described}
        self._described |= texts.keys()
        found = [
            value
            for tag, x in values.items()
            for value in scalar(tag, x, summary_description=texts.get(tag, "")).value
        ]
        self.add_summary(Summary(value=found), step)

    def add_histogram(self, tag: str, counts: np.ndarray, edges: np.ndarray, step: int) -> None:
        """Adds counts of the intervals between `edges`, one more than counts."""
        histogram = HistogramProto(
            min=edges[0],
            max=edges[-1],
            num=counts.sum(),
            bucket_limit=edges[1:],
            bucket=counts,
        )
        self.add_summary(Summary(value=[Summary.Value(tag=tag, histo=histogram)]), step)

    def add_summary(self, summary: Summary, step: int = 0) -> None:
        """Adds what tensorboardX made."""
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        self._file.close()

    def _write(self, event: Event) -> None:
        self._file.write(event.SerializeToString())
        self._file.flush()
