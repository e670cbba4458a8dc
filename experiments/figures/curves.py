"""A metric against one field of a sweep: a curve for each optimizer and what else varies."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from experiments.figures import style
from experiments.figures.points import Point, arm_columns, column, select, spread
from experiments.optimizers import display_name
from experiments.run.reader import TOP1, FloatArray, Run
from experiments.sweep.arms import field_name, value_text
from experiments.sweep.grid import Value

_LINESTYLES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Metric:
    """What is drawn: its name in the CSV, and its values in percent, one per seed."""

    name: str
    values: Callable[[Run, str], FloatArray]


def _final(name: str) -> Metric:
    return Metric(name, lambda run, arm: 100 * np.array(run.final(arm, name), np.float64))


def _mean_flip_rate(run: Run, arm: str) -> FloatArray:
    return np.asarray(100 * run.series(arm, "epoch_flip_ratio")[1].mean(axis=1), np.float64)


TOP1_METRIC = _final(TOP1)
NEVER_FLIPPED = _final("never_flipped_ratio")
SILENT = _final("silent_ratio")
FLIP_RATE = Metric("mean_epoch_flip_ratio", _mean_flip_rate)


@dataclass(frozen=True)
class Curve:
    """Arms of one optimizer that differ in one field only, by its value.

    Attributes:
      optimizer: key of the optimizer.
      rest: the other fields that tell the optimizer's arms apart.
      arms: value of the field -> key of the arm, ascending.
    """

    optimizer: str
    rest: Mapping[str, Value]
    arms: Mapping[float, str]

    @property
    def label(self) -> str:
        """For a legend: `OvSW, Kaiming normal`."""
        return ", ".join([display_name(self.optimizer), *self.rest_labels])

    @property
    def rest_labels(self) -> list[str]:
        """What else varies, a label for each field."""
        return [
            f"Kaiming {value}" if field == "init" else f"{field_name(field)} {value_text(value)}"
            for field, value in self.rest.items()
        ]


def curves(run: Run, field: str, optimizer: str | None = None) -> list[Curve]:
    """The curves over a numeric field, in the config's order, of one optimizer or of all."""
    found: dict[tuple[str, tuple[tuple[str, Value], ...]], dict[float, str]] = {}
    for key in run.arms if optimizer is None else run.arms_of(optimizer):
        arm = run.known_arms[key]
        value = arm.point.get(field)
        if isinstance(value, float):
            rest = tuple((k, v) for k, v in arm.point.items() if k != field)
            found.setdefault((arm.optimizer, rest), {})[value] = key
    return [
        Curve(optimizer, dict(rest), dict(sorted(arms.items())))
        for (optimizer, rest), arms in found.items()
    ]


def points(run: Run, arms: Iterable[str], metrics: Sequence[Metric]) -> list[Point]:
    """A point per arm and metric; none where the metric is not known yet."""
    arms = list(arms)
    found = [
        {**arm_columns(run, arm), "metric": metric.name, **spread(metric.values(run, arm))}
        for metric in metrics
        for arm in arms
    ]
    return [point for point in found if math.isfinite(point["mean"])]


def arms_on(of: Sequence[Curve]) -> Iterator[str]:
    """The arms of several curves."""
    return (arm for curve in of for arm in curve.arms.values())


def on_curve(points: Sequence[Point], curve: Curve, metric: Metric) -> list[Point]:
    """The points of one metric on one curve."""
    return select(points, metric=metric.name, optimizer=curve.optimizer, **curve.rest)


def draw(
    axes: Axes,
    found: Sequence[Point],
    field: str,
    of: Sequence[Curve],
    metric: Metric,
) -> None:
    """Mean and std of a metric along every curve; optimizers differ in colour and marker.

    What else varies makes lines dashed and markers larger and hollow, so that of two curves of
    the same values both are seen.
    """
    looks = style.looks([curve.optimizer for curve in of])
    rests = list(dict.fromkeys(tuple(curve.rest.items()) for curve in of))
    for curve in of:
        if not (mine := on_curve(found, curve, metric)):
            continue
        variant = rests.index(tuple(curve.rest.items()))
        look = looks[curve.optimizer]
        std = column(mine, "std")
        axes.errorbar(
            column(mine, field),
            column(mine, "mean"),
            yerr=None if np.isnan(std).all() else np.nan_to_num(std),
            color=look.color,
            linestyle=_LINESTYLES[variant % 4] if len(rests) > 1 else look.linestyle,
            marker=look.marker,
            markersize=5 + 4 * (variant > 0),
            markerfacecolor=look.color if variant == 0 else "white",
            linewidth=1.6,
            elinewidth=1.2,
            capsize=3.5,
            label=f"{curve.label} ({counts(mine)})",
            clip_on=False,
            zorder=3 + (variant == 0),
        )


def level(run: Run, optimizer: str, metric: Metric) -> list[Point]:
    """The point of an optimizer that does not vary, to compare a sweep with; none if it varies."""
    arms = run.arms_of(optimizer)
    return points(run, arms, [metric]) if len(arms) == 1 else []


def draw_level(axes: Axes, point: Point) -> None:
    """A line across the panel, with a band of one std, for an optimizer that does not vary."""
    name = str(point["optimizer"])
    look = style.looks([name])[name]
    axes.axhline(
        point["mean"],
        color=look.color,
        linestyle=look.linestyle,
        label=f"{display_name(name)} ({counts([point])})",
    )
    if not np.isnan(point["std"]):
        low, high = point["mean"] - point["std"], point["mean"] + point["std"]
        axes.axhspan(low, high, color=look.color, alpha=0.2, lw=0)


def counts(of: Sequence[Point]) -> str:
    """Number of seeds: `n = 3`, or `n = 2 to 3` where points differ."""
    found = sorted({point["n"] for point in of})
    return "n = " + " to ".join(map(str, [found[0], found[-1]][: len(found)] if found else [0]))
