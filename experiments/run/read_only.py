"""The run folder as seen by the other processes of a run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.config import Config
from experiments.run.folder import RunFolder
from experiments.run.histograms import Counts
from experiments.sweep.members import Member


class ReadOnlyRunFolder(RunFolder):
    """Reads what the first process wrote, and takes part in checkpoints.

    It writes nothing but data.json, after an image that it could not read.
    """

    def _open(self, config: Config, data: Mapping[str, Any] | None) -> None:
        self._check_same(config)
        self._check_same_data(data)

    def note_continued(self) -> None:
        """Left to the first process."""

    def keep_networks(self, counted: Callable[[], Mapping[str, Any]]) -> None:
        """Left to the first process."""

    def keep_rows(
        self, rows: Iterable[Mapping[str, Any]], dropped: Sequence[Mapping[str, Any]]
    ) -> None:
        """Left to the first process."""

    def write_metrics(self, rows: Sequence[dict[str, Any]]) -> None:
        """Left to the first process."""

    def write_histograms(self, member: Member, epoch: int, step: int, counts: Counts) -> None:
        """Left to the first process."""

    def finish_events(self) -> None:
        """Left to the first process."""

    def keep_latent(self, optimizer: str, kind: str, layers: dict[str, np.ndarray]) -> None:
        """Left to the first process."""

    def close(self) -> None:
        self.checkpoints.close()
