"""A run folder read back: metrics.jsonl by arm, epoch and seed, with config and versions.

An arm is an optimizer at one point of a sweep (see `experiments.sweep.arms`); in a plain
comparison it is the optimizer.

The one reader behind `experiments.figures` and `experiments.report`; it imports no jax, so a
folder copied from a training machine can be drawn anywhere.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.config.config_file import read_config, read_object
from experiments.optimizers import display_name
from experiments.sweep.arms import Arm, arms_of, planned_points
from experiments.sweep.grid import Value

__all__ = ["Arm", "FloatArray", "IntArray", "Row", "Run", "Value", "read_run"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Fractions 0..1. Every row must hold these, unless the run's weights are real; the others only
# rows of epochs that were evaluated, top-5 where there are classes enough.
FLIP_RATIOS = ("never_flipped_ratio", "silent_ratio")
TOP1, TOP5 = "test_top1", "test_top5"


def depth_order(names: Sequence[str]) -> list[str]:
    """Layer names from input to output.

    jax sorts dict keys, which puts "block10" before "block2"; numbers compare as numbers here.
    """
    return sorted(names, key=lambda name: [_number_or_text(p) for p in re.split(r"(\d+)", name)])


def _number_or_text(part: str) -> tuple[int, int, str]:
    return (0, int(part), "") if part.isdigit() else (1, 0, part)


@dataclass(frozen=True)
class Row:
    """One line of metrics.jsonl: one arm, one seed, one epoch (ratios are 0..1)."""

    optimizer: str
    seed: int
    epoch: int
    values: Mapping[str, float]
    layers: Mapping[str, Mapping[str, float]]
    point: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A run folder's contents.

    Attributes:
      folder: the run folder.
      config: config.json.
      versions: versions.json; empty if the run has none.
      known_arms: key -> arm, of all that were planned or measured, in the config's order.
      planned_arms: keys of the arms that the config plans.
      epochs: key of an arm -> epoch -> seed -> Row. Every epoch of an arm holds the same seeds,
        so that no mean silently changes its number of seeds.
      notes: what was left out of `epochs` and why, one sentence each.
    """

    folder: Path
    config: Mapping[str, Any]
    versions: Mapping[str, Any]
    known_arms: Mapping[str, Arm]
    planned_arms: Sequence[str]
    epochs: Mapping[str, Mapping[int, Mapping[int, Row]]]
    notes: tuple[str, ...]

    @property
    def arms(self) -> list[str]:
        """Keys of the arms that were measured, in the config's order."""
        return [key for key in self.known_arms if key in self.epochs]

    @property
    def optimizers(self) -> list[str]:
        """Keys of the optimizers that were measured, in the config's order."""
        return list(dict.fromkeys(self.known_arms[key].optimizer for key in self.arms))

    @property
    def is_sweep(self) -> bool:
        """Whether an optimizer has several points."""
        return any(arm.varied for arm in self.known_arms.values())

    def arms_of(self, optimizer: str) -> list[str]:
        """Keys of the optimizer's arms that were measured."""
        return [key for key in self.arms if self.known_arms[key].optimizer == optimizer]

    def varied(self, optimizer: str) -> tuple[str, ...]:
        """The fields in which the optimizer's arms differ, measured or only planned."""
        arms = (arm for arm in self.known_arms.values() if arm.optimizer == optimizer)
        return next(arms).varied

    def name(self, arm: str) -> str:
        """Name of an arm for tables and figures; an unknown key stands for itself."""
        return self.known_arms[arm].name if arm in self.known_arms else display_name(arm)

    @property
    def planned_epochs(self) -> int | None:
        epochs = self.config.get("epochs")
        return epochs if isinstance(epochs, int) else None

    @property
    def planned_seeds(self) -> list[int]:
        seeds = self.config.get("seeds")
        return seeds if isinstance(seeds, list) else []

    def seeds(self, arm: str) -> list[int]:
        """Seeds that were measured, sorted."""
        return sorted(next(iter(self.epochs[arm].values())))

    def last_epoch(self, arm: str) -> int:
        """The last epoch that all of the arm's seeds finished."""
        return max(self.epochs[arm])

    def top1_epoch(self, arm: str) -> int | None:
        """The last of these epochs at which top-1 was evaluated; None if it never was."""
        return max(self._evaluated(arm), default=None)

    def finished(self, arm: str) -> bool:
        """Whether every planned epoch and seed of the arm was measured."""
        return arm in self.epochs and not self.progress(arm)

    def progress(self, arm: str) -> list[str]:
        """What an unfinished arm has reached, as ["epoch 12 of 30", "2 of 3 seeds"] or less."""
        parts = []
        if self.last_epoch(arm) < (self.planned_epochs or 0):
            parts.append(f"epoch {self.last_epoch(arm)} of {self.planned_epochs}")
        if not set(self.planned_seeds) <= set(self.seeds(arm)):
            parts.append(f"{len(self.seeds(arm))} of {len(self.planned_seeds)} seeds")
        return parts

    def diverged(self, arm: str) -> list[int]:
        """Seeds whose training loss is not finite in the last epoch."""
        rows = self.epochs[arm][self.last_epoch(arm)]
        return [seed for seed in self.seeds(arm) if "loss" not in rows[seed].values]

    def layers(self, arm: str) -> list[str]:
        rows = self.epochs[arm][self.last_epoch(arm)]
        return depth_order(list(next(iter(rows.values())).layers))

    def series(
        self, arm: str, metric: str, layer: str | None = None
    ) -> tuple[IntArray, FloatArray]:
        """A metric over the epochs, of the whole network or of one layer.

        Returns:
          epochs (E,), for top-1 those that were evaluated, and values (seeds, E); NaN where a row
          has no finite value.
        """
        epochs = self._evaluated(arm) if metric == TOP1 else sorted(self.epochs[arm])
        values = [
            [_value(self.epochs[arm][epoch][seed], metric, layer) for epoch in epochs]
            for seed in self.seeds(arm)
        ]
        return np.array(epochs, np.int64), np.array(values, np.float64)

    def final(self, arm: str, metric: str) -> list[float]:
        """The metric at the last epoch, one value per seed; top-1 at `top1_epoch`, else NaN."""
        epoch = self.top1_epoch(arm) if metric in (TOP1, TOP5) else self.last_epoch(arm)
        rows = {} if epoch is None else self.epochs[arm][epoch]
        return [_value(rows[s], metric, None) if s in rows else math.nan for s in self.seeds(arm)]

    def holds(self, metric: str) -> bool:
        """Whether any row has the metric."""
        rows = (row for arm in self.epochs.values() for e in arm.values() for row in e.values())
        return any(metric in row.values for row in rows)

    def _evaluated(self, arm: str) -> list[int]:
        rows = self.epochs[arm].items()
        return sorted(e for e, by_seed in rows if all(TOP1 in r.values for r in by_seed.values()))


def _value(row: Row, metric: str, layer: str | None) -> float:
    values = row.values if layer is None else row.layers.get(layer, {})
    return values.get(metric, math.nan)


def sample_std(values: FloatArray) -> FloatArray | None:
    """Sample standard deviation over seeds (axis 0, n - 1 in the divisor); None for one seed."""
    return None if len(values) < 2 else np.asarray(np.std(values, axis=0, ddof=1), np.float64)


def read_run(folder: Path) -> Run:
    """Reads a run folder, also one whose run was killed.

    A broken last line of metrics.jsonl (a kill in mid-write) is left out, and so is what some seeds
    measured and others did not reach; `Run.notes` says so.

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
    config = read_config(folder / "config.json")
    versions = folder / "versions.json"
    required = FLIP_RATIOS if config.get("binary", "both") == "both" else ()
    rows, notes = _read_rows(folder / "metrics.jsonl", required)
    planned = planned_points(config)
    found = arms_of([*planned, *((row.optimizer, row.point) for row in rows)], config)
    arms = {arm.key: arm for arm in found}
    keys = [arm.key for arm in found]
    epochs, more_notes = _largest_block(_by_seed(rows, keys[len(planned) :]), arms)
    if not epochs:
        raise ValueError(
            f"{folder / 'metrics.jsonl'} holds no finished epoch, so there is nothing to "
            "summarise or draw: train for at least one epoch"
        )
    return Run(
        folder=folder,
        config=config,
        versions=read_object(versions) if versions.is_file() else {},
        known_arms=arms,
        planned_arms=list(dict.fromkeys(keys[: len(planned)])),
        epochs=epochs,
        notes=(*notes, *more_notes),
    )


def _read_rows(path: Path, required: Sequence[str]) -> tuple[list[Row], list[str]]:
    # A kill can cut a line inside a multi-byte character, hence bytes and errors="replace".
    lines = path.read_bytes().decode("utf-8", errors="replace").splitlines()
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    rows: list[Row] = []
    for number, line in numbered:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == numbered[-1][0]:
                return rows, [f"line {number} of {path.name} is cut off (a killed run): dropped"]
            raise ValueError(f"line {number} of {path} is not valid JSON: {error}") from error
        where = f"line {number} of {path}"
        try:
            rows.append(_row(content, required, where))
        except (TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{where} is no row of a run: {error}") from error
    return rows, []


def _row(content: Any, required: Sequence[str], where: str) -> Row:
    if not isinstance(content, dict):
        raise ValueError(f"{where} holds a {type(content).__name__}, it must hold a JSON object")
    missing = [key for key in ("optimizer", "seed", "epoch", *required) if key not in content]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}: each row must hold them")
    values = _numbers(content)
    for key in (*required, *(name for name in (TOP1, TOP5) if name in content)):
        if not 0 <= values.get(key, math.nan) <= 1:
            raise ValueError(f"{where}: {key} is {content[key]!r}, it must be a fraction 0..1")
    return Row(
        optimizer=str(content["optimizer"]),
        seed=int(content["seed"]),
        epoch=int(content["epoch"]),
        values=values,
        layers={name: _numbers(layer) for name, layer in (content.get("layers") or {}).items()},
        point=_point(content.get("point") or {}, where),
    )


def _point(content: Any, where: str) -> dict[str, Value]:
    numbers = {} if not isinstance(content, dict) else _numbers(content)
    if not isinstance(content, dict) or any(
        name not in numbers and not isinstance(value, str) for name, value in content.items()
    ):
        raise ValueError(
            f"{where}: point is {content!r}, it must be an object of finite numbers and texts"
        )
    return {name: numbers[name] if name in numbers else str(v) for name, v in content.items()}


def _numbers(content: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers; a diverged loss is a gap in its line, not an error."""
    return {
        key: float(value)
        for key, value in content.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


BySeed = dict[int, dict[int, Row]]  # seed -> epoch -> row


def _by_seed(rows: Sequence[Row], keys: Sequence[str]) -> dict[str, BySeed]:
    by_arm: dict[str, BySeed] = {}
    for row, key in zip(rows, keys, strict=True):  # a repeated epoch: the later row counts
        by_arm.setdefault(key, {}).setdefault(row.seed, {})[row.epoch] = row
    return by_arm


def _largest_block(
    by_arm: Mapping[str, BySeed], arms: Mapping[str, Arm]
) -> tuple[dict[str, dict[int, dict[int, Row]]], list[str]]:
    """Arm -> epoch -> seed -> row, for the block of epochs x seeds with the most rows.

    A run that was stopped has seeds of unequal length: by one epoch if they trained together, by
    many if they trained one after another. The block drops the one epoch in the first case and the
    seed that had just begun in the second; a note says so.
    """
    blocks: dict[str, dict[int, dict[int, Row]]] = {}
    notes: list[str] = []
    for key, by_seed in by_arm.items():
        epochs, seeds = _block_of(by_seed)
        blocks[key] = {e: {seed: by_seed[seed][e] for seed in seeds} for e in epochs}
        notes += _left_out(arms[key].name, by_seed, epochs, seeds)
    return blocks, notes


def _block_of(by_seed: Mapping[int, Mapping[int, Row]]) -> tuple[list[int], list[int]]:
    """Epochs from the first on, and the seeds that have them all; of equals, more seeds."""
    epochs = sorted({epoch for of_seed in by_seed.values() for epoch in of_seed})
    candidates = [
        (epochs[:count], sorted(s for s in by_seed if set(epochs[:count]) <= set(by_seed[s])))
        for count in range(1, len(epochs) + 1)
    ]
    return max(candidates, key=lambda block: (len(block[0]) * len(block[1]), len(block[1])))


def _left_out(
    name: str,
    by_seed: Mapping[int, Mapping[int, Row]],
    epochs: Sequence[int],
    seeds: Sequence[int],
) -> Iterator[str]:
    for seed in sorted(set(by_seed) - set(seeds)):
        yield f"seed {seed} of {name} left out: it stopped at epoch {max(by_seed[seed])}"
    if any(max(by_seed[seed]) > epochs[-1] for seed in seeds):
        yield f"{name} is taken at epoch {epochs[-1]}, the last one that all its seeds finished"
