"""RUN/tensorboard/: what a run measures, as TensorBoard shows it, a folder per training.

Scalars    the numbers of metrics.jsonl, and the silence horizon
Histograms latent_weights/LAYER, all weights by size, and silent_weights/LAYER, the silent ones
HParams    what tells trainings apart, beside their accuracy and silent share
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX.summary import hparams

from experiments.config import Config
from experiments.optimizers import users
from experiments.run.events import EventFile
from experiments.run.histograms import BINS, KINDS, Counts
from experiments.run.silence import horizon
from experiments.sweep.grid import Value
from experiments.sweep.members import VARIABLE, Member

# Beside what a grid may vary: with --logdir runs these tell runs apart.
_OF_RUNS = ("data", "epochs", "batch_size")
# The columns of HParams that are measured. Others are in the scalars.
_MEASURED = ("test_top1", "train_top1", "loss", "silent_ratio", "never_flipped_ratio")


class TensorBoard:
    """The event files of the trainings of a run, open for writing."""

    def __init__(self, folder: Path, config: Config):
        self._folder, self._config = folder, config
        self._files: dict[str, EventFile] = {}

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Adds the scalars of a row of metrics.jsonl."""
        member = Member(row["optimizer"], row["point"], row["seed"])
        values = {metric: value for metric, value in row.items() if isinstance(value, float)}
        for layer, metrics in row["layers"].items():
            values |= {f"{metric}/{layer}": value for metric, value in metrics.items()}
        values, about = self._with_horizon(values, member.point)
        self._file(member).add_scalars(values, row["step"], about)

    def add_histograms(self, member: Member, step: int, counts: Counts) -> None:
        """Adds the latent weights of each layer, as `experiments.run.histograms` counts them."""
        for layer, found in counts.items():
            edges = np.linspace(-found["limit"], found["limit"], BINS + 1)
            by_kind = dict(zip(KINDS, np.asarray(found["counts"]), strict=True))
            silent = by_kind["silent"] + by_kind["never_flipped"]
            file = self._file(member)
            file.add_histogram(f"latent_weights/{layer}", silent + by_kind["flipping"], edges, step)
            file.add_histogram(f"silent_weights/{layer}", silent, edges, step)

    def finish(self) -> None:
        """Closes the files of finished trainings: a sweep has many."""
        for file in self._files.values():
            file.add_summary(hparams({}, {})[2])  # the end of a training
        self.close()

    def close(self) -> None:
        """Closes all files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _file(self, member: Member) -> EventFile:
        point = "".join(f"-{name}={_short(value)}" for name, value in member.point.items())
        name = f"{member.optimizer}{point}-seed{member.seed}"
        if name not in self._files:
            self._files[name] = file = EventFile(self._folder / name)
            # TensorBoard takes the columns from one training of all that it shows.
            columns, _, _ = hparams(self._hyperparameters(member), dict.fromkeys(_MEASURED))
            _, used, _ = hparams(self._hyperparameters(member, used=True), {})
            file.add_summary(columns)
            file.add_summary(used)
        return self._files[name]

    def _hyperparameters(self, member: Member, used: bool = False) -> dict[str, Value | int]:
        """All, or only those that the training uses."""
        fields = (*_OF_RUNS, *(field for field in VARIABLE if field != "optimizer"))
        values = {
            field: member.point.get(field, getattr(self._config, field))
            for field in fields
            if not used or member.optimizer in users(field)
        }
        return {"optimizer": member.optimizer, "seed": member.seed, **values}

    def _with_horizon(
        self, values: dict[str, float], point: Mapping[str, Value]
    ) -> tuple[dict[str, float], dict[str, str]]:
        """With the silence horizon, and what the curves of silent shares mean below it."""
        silent = [tag for tag in values if tag.partition("/")[0] == "silent_ratio"]
        if not silent:
            return values, {}
        fields = ("flip_momentum", "threshold")
        momentum, threshold = (float(point.get(f, getattr(self._config, f))) for f in fields)
        steps = horizon(momentum, threshold)
        about = (
            f"The silence horizon is {steps:,} steps. Until more are run, silent equals never "
            "flipped by construction."
        )
        return {**values, "silence_horizon": float(steps)}, dict.fromkeys(silent, about)


def _short(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else value
