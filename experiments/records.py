"""A run folder read back: metrics.jsonl by optimizer, epoch and seed, with config and versions.

The one reader behind `experiments.figures` and `experiments.summary`; it imports no jax, so a
folder copied from a training machine can be drawn anywhere.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

DISPLAY_NAMES = {"sgd": "SGD", "ovsw": "OvSW", "ags": "SGD + AGS", "sad": "SGD + SAD"}
# Every row must hold these as finite fractions 0..1: the table is made of nothing else.
REQUIRED_RATIOS = ("test_top1", "never_flipped_ratio", "silent_ratio")


def display_name(optimizer: str) -> str:
    """Name of an optimizer key for tables and figures; an unknown key stands for itself."""
    return DISPLAY_NAMES.get(optimizer, optimizer)


def depth_order(names: Sequence[str]) -> list[str]:
    """Layer names from input to output.

    jax sorts dict keys, which puts "block10" before "block2"; numbers compare as numbers here.
    """
    return sorted(names, key=lambda name: [_number_or_text(p) for p in re.split(r"(\d+)", name)])


def _number_or_text(part: str) -> tuple[int, int, str]:
    return (0, int(part), "") if part.isdigit() else (1, 0, part)


@dataclass(frozen=True)
class Row:
    """One line of metrics.jsonl: one optimizer, one seed, one epoch (ratios are 0..1)."""

    optimizer: str
    seed: int
    epoch: int
    values: Mapping[str, float]
    layers: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Run:
    """A run folder's contents.

    Attributes:
      folder: the run folder.
      config: config.json.
      versions: versions.json; empty if the run has none.
      epochs: optimizer -> epoch -> seed -> Row. Only epochs that every seed of the optimizer
        finished, so that no mean silently changes its number of seeds.
      notes: what was left out of `epochs` and why, one sentence each.
    """

    folder: Path
    config: Mapping[str, Any]
    versions: Mapping[str, Any]
    epochs: Mapping[str, Mapping[int, Mapping[int, Row]]]
    notes: tuple[str, ...]

    @property
    def optimizers(self) -> list[str]:
        """Keys of the optimizers that were measured, in the config's order."""
        planned = [name for name in self.planned_optimizers if name in self.epochs]
        return planned + [name for name in self.epochs if name not in planned]

    @property
    def planned_optimizers(self) -> list[str]:
        """Optimizer keys of the config."""
        return [str(name) for name in self.config.get("optimizers", [])]

    @property
    def planned_epochs(self) -> int | None:
        """Epochs of the config, if it says."""
        epochs = self.config.get("epochs")
        return epochs if isinstance(epochs, int) else None

    @property
    def planned_seeds(self) -> list[int]:
        """Seeds of the config; none if it does not say."""
        seeds = self.config.get("seeds")
        return seeds if isinstance(seeds, list) else []

    def seeds(self, optimizer: str) -> list[int]:
        """Seeds that were measured, sorted."""
        return sorted(next(iter(self.epochs[optimizer].values())))

    def last_epoch(self, optimizer: str) -> int:
        """The last epoch that all of the optimizer's seeds finished."""
        return max(self.epochs[optimizer])

    def finished(self, optimizer: str) -> bool:
        """Whether every planned epoch and seed of the optimizer was measured."""
        if optimizer not in self.epochs:
            return False
        all_seeds = set(self.planned_seeds) <= set(self.seeds(optimizer))
        return all_seeds and self.last_epoch(optimizer) >= (self.planned_epochs or 0)

    def layers(self, optimizer: str) -> list[str]:
        """Names of the binary layers, from input to output."""
        rows = self.epochs[optimizer][self.last_epoch(optimizer)]
        return depth_order(list(next(iter(rows.values())).layers))

    def series(
        self, optimizer: str, metric: str, layer: str | None = None
    ) -> tuple[IntArray, FloatArray]:
        """A metric over the epochs, of the whole network or of one layer.

        Returns:
          epochs (E,) and values (seeds, E); NaN where a row has no finite value.
        """
        epochs = sorted(self.epochs[optimizer])
        values = [
            [_value(self.epochs[optimizer][epoch][seed], metric, layer) for epoch in epochs]
            for seed in self.seeds(optimizer)
        ]
        return np.array(epochs, np.int64), np.array(values, np.float64)

    def final(self, optimizer: str, metric: str) -> list[float]:
        """The metric at the last epoch, one value a seed."""
        rows = self.epochs[optimizer][self.last_epoch(optimizer)]
        return [rows[seed].values[metric] for seed in self.seeds(optimizer)]


def _value(row: Row, metric: str, layer: str | None) -> float:
    values = row.values if layer is None else row.layers.get(layer, {})
    return values.get(metric, math.nan)


def sample_std(values: FloatArray) -> FloatArray | None:
    """Sample standard deviation over seeds (axis 0, n - 1 in the divisor); None for one seed."""
    return None if len(values) < 2 else np.asarray(np.std(values, axis=0, ddof=1), np.float64)


def read_run(folder: Path) -> Run:
    """Reads a run folder, also one whose run was killed.

    A broken last line of metrics.jsonl (a kill in mid-write) and epochs that some seed did not
    finish are left out; `Run.notes` says so.

    Raises:
      FileNotFoundError: the folder lacks config.json or metrics.jsonl.
      ValueError: no finished epoch, or a file that no run writes like this.
    """
    folder = Path(folder)
    for name in ("config.json", "metrics.jsonl"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name} does not exist, so {folder} is not a run folder: give a folder "
                "that python -m experiments.train wrote"
            )
    rows, notes = _read_rows(folder / "metrics.jsonl")
    epochs, more_notes = _whole_epochs(rows)
    if not epochs:
        raise ValueError(
            f"{folder / 'metrics.jsonl'} holds no finished epoch, so there is nothing to "
            "summarise or draw: train for at least one epoch"
        )
    versions = folder / "versions.json"
    return Run(
        folder=folder,
        config=_read_object(folder / "config.json"),
        versions=_read_object(versions) if versions.is_file() else {},
        epochs=epochs,
        notes=(*notes, *more_notes),
    )


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, it must hold a JSON object")
    return content


def _read_rows(path: Path) -> tuple[list[Row], list[str]]:
    # A kill can cut a line inside a multi-byte character, hence bytes and errors="replace".
    lines = path.read_bytes().decode("utf-8", errors="replace").splitlines()
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    rows: list[Row] = []
    for number, line in numbered:
        try:
            content = json.loads(line)
        except ValueError as error:
            if number == numbered[-1][0]:
                return rows, [f"line {number} of {path.name} is cut off (a killed run): dropped"]
            raise ValueError(f"line {number} of {path} is not valid JSON: {error}") from error
        rows.append(_row(content, f"line {number} of {path}"))
    return rows, []


def _row(content: Any, where: str) -> Row:
    if not isinstance(content, dict):
        raise ValueError(f"{where} holds a {type(content).__name__}, it must hold a JSON object")
    missing = [
        key for key in ("optimizer", "seed", "epoch", *REQUIRED_RATIOS) if key not in content
    ]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}: each row must hold them")
    values = _numbers(content)
    for key in REQUIRED_RATIOS:
        if not 0 <= values.get(key, math.nan) <= 1:
            raise ValueError(f"{where}: {key} is {content[key]!r}, it must be a fraction 0..1")
    layers = {name: _numbers(layer) for name, layer in (content.get("layers") or {}).items()}
    return Row(
        str(content["optimizer"]), int(content["seed"]), int(content["epoch"]), values, layers
    )


def _numbers(content: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers; a diverged loss is a gap in its line, not an error."""
    return {
        key: float(value)
        for key, value in content.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def _whole_epochs(
    rows: Sequence[Row],
) -> tuple[dict[str, dict[int, dict[int, Row]]], list[str]]:
    """Groups rows by optimizer, epoch and seed; epochs that lack a seed go, with a note."""
    grouped: dict[str, dict[int, dict[int, Row]]] = {}
    for row in rows:
        grouped.setdefault(row.optimizer, {}).setdefault(row.epoch, {})[row.seed] = row
    notes = []
    for optimizer, epochs in grouped.items():
        seeds = {seed for by_seed in epochs.values() for seed in by_seed}
        for epoch in [epoch for epoch, by_seed in epochs.items() if len(by_seed) < len(seeds)]:
            missing = sorted(seeds - set(epochs.pop(epoch)))
            notes.append(
                f"epoch {epoch} of {display_name(optimizer)} left out: "
                f"seed {', '.join(map(str, missing))} did not finish it"
            )
    return {optimizer: epochs for optimizer, epochs in grouped.items() if epochs}, notes
