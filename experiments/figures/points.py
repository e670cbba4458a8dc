"""The numbers behind a figure: what is drawn is what NAME.csv beside NAME.png holds.

Every figure is drawn from a list of points, each a dict of its coordinates (optimizer, field of
the sweep, epoch, layer, metric) with n, mean and sample std over the seeds. Ratios are in percent.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.run.reader import FloatArray, Run, sample_std

Point = dict[str, Any]


def spread(values: FloatArray) -> Point:
    """n, mean and std of (n,) values, one per seed; one seed has no std (NaN).

    >>> spread(np.array([90.0, 92.0]))["mean"]
    91.0
    """
    std = sample_std(values)
    mean = float(np.mean(values)) if len(values) else math.nan
    return {"n": len(values), "mean": mean, "std": math.nan if std is None else float(std)}


def arm_columns(run: Run, arm: str) -> Point:
    """Optimizer and varied fields, which tell the arm from the run's others; a column each."""
    fields = dict.fromkeys(f for known in run.known_arms.values() for f in known.varied)
    found = run.known_arms[arm]
    return {"optimizer": found.optimizer, **{f: found.point.get(f, "") for f in fields}}


def over_epochs(run: Run, arm: str, metric: str, factor: float, layer: str = "") -> list[Point]:
    """A point per epoch; the mean is NaN where a seed has no finite value."""
    epochs, values = run.series(arm, metric, layer or None)
    of_layer = {"layer": layer} if layer else {}
    start = {**arm_columns(run, arm), **of_layer, "metric": metric}
    return [
        {**start, "epoch": int(epoch), **spread(factor * column)}
        for epoch, column in zip(epochs, values.T, strict=True)
    ]


def select(points: Sequence[Point], **wanted: Any) -> list[Point]:
    """The points that have all of these values."""
    return [p for p in points if all(p.get(key) == value for key, value in wanted.items())]


def column(points: Sequence[Point], name: str) -> FloatArray:
    """One column of points, (len(points),)."""
    return np.array([point[name] for point in points], np.float64)


def write_csv(path: Path, points: Sequence[Mapping[str, Any]]) -> None:
    """Writes points as a table; NaN becomes an empty cell."""
    heads = list(dict.fromkeys(key for point in points for key in point))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(heads)
        writer.writerows([_cell(point.get(head, "")) for head in heads] for point in points)


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return f"{value:.6g}" if math.isfinite(value) else ""
