"""The point of the library at a glance: never-flipped share and top-1, side by side."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from experiments.figures import style
from experiments.figures.points import Point, arm_columns, spread
from experiments.run.reader import TOP1, Run

_NEVER = "never_flipped_ratio"
_MIN_SPAN = 2.0  # percentage points of top-1: do not magnify noise any further
_HALF_HEIGHT = 0.31  # of a bar; rows are 1 apart


def points(run: Run) -> list[Point]:
    """A point per arm and metric; `seed_values` are the marks, one per seed."""
    found = []
    for metric in (_NEVER, TOP1):
        for arm in run.arms:
            values = 100 * np.array(run.final(arm, metric), np.float64)
            found.append({**arm_columns(run, arm), "metric": metric, **spread(values)})
            found[-1]["seed_values"] = " ".join(f"{value:.6g}" for value in values)
    return found


def figure(run: Run) -> Figure:
    """Bars of the never-flipped share (0 to 100 %) beside points of test top-1 (zoomed axis).

    A row per optimizer, so that any number of them fits; the numbers have a column of their own.
    """
    fig = style.new_figure(1.9 + 0.62 * len(run.arms), gap=0.1)
    style.set_title(fig, style.run_title(run))
    left, right = fig.subplots(1, 2)
    _draw_panel(left, run, _NEVER, bars=True)
    left.set_title("Weights whose sign never flipped")
    left.set_xlabel("Never flipped (% of binary weights)")
    left.set_xlim(0, 100)

    _draw_panel(right, run, TOP1, bars=False)
    right.set_title("Accuracy")
    right.tick_params(axis="y", labelleft=False)
    _zoom(right, run)
    from_zero = right.get_xlim()[0] == 0
    right.set_xlabel(style.top1_label(run) + ("" if from_zero else ", axis does not start at 0"))
    fig.supxlabel(_caption(run), fontsize=8)
    return fig


def _caption(run: Run) -> str:
    if all(len(run.seeds(name)) == 1 for name in run.arms):
        return "Values at the last epoch; one seed, so no spread is known"
    return "Mean ± sample standard deviation over seeds at the last epoch; each mark is one seed"


def _draw_panel(axes: Axes, run: Run, metric: str, *, bars: bool) -> None:
    names = run.arms
    for y, (name, look) in enumerate(style.looks(names).items()):
        values = 100 * np.array(run.final(name, metric))
        point = spread(values)
        mean, std = point["mean"], point["std"]
        if np.isnan(mean):
            _print_beside(axes, "not yet", y)
            continue
        if bars:
            axes.barh(
                y, mean, 2 * _HALF_HEIGHT, color=look.color, edgecolor="white", hatch=look.hatch
            )
        else:
            axes.vlines(mean, y - _HALF_HEIGHT, y + _HALF_HEIGHT, color=look.color, linewidth=3)
        several = len(values) > 1
        if several:
            axes.errorbar(mean, y + 0.2, xerr=std, color="black", capsize=4, zorder=3)
        axes.scatter(
            values,
            y + style.side_by_side(len(values), -0.22, 0.04 if several else 0.22),
            s=24,
            marker=look.marker,
            facecolor="white",
            edgecolor="black" if bars else look.color,
            linewidth=1.2,
            zorder=4,
            clip_on=False,  # a seed at exactly 100 % stays whole
        )
        _print_beside(axes, style.percent_spread(point), y)
    axes.set_yticks(range(len(names)), [style.arm_label(run, name) for name in names])
    axes.tick_params(axis="y", length=0, labelsize=10)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(True, axis="x")


def _print_beside(axes: Axes, text: str, y: float) -> None:
    axes.annotate(
        text,
        (1.03, y),
        xycoords=axes.get_yaxis_transform(),
        va="center",
        annotation_clip=False,
        fontsize=10,
        fontweight="bold",
    )


def _zoom(axes: Axes, run: Run) -> None:
    """Limits around the seeds and the error bars; no ticks where no accuracy can be."""
    reached: list[float] = []
    for name in run.arms:
        values = 100 * np.array(run.final(name, TOP1))
        mean, std = values.mean(), spread(values)["std"]
        reached += [*values, mean - np.nan_to_num(std), mean + np.nan_to_num(std)]
    known = np.array(reached)[np.isfinite(reached)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 100.0)
    margin = max(_MIN_SPAN - (high - low), 0.2 * (high - low)) / 2
    low, high = max(0.0, low - margin), high + margin
    axes.set_xlim(low, high)
    ticks = MaxNLocator(nbins=5).tick_values(low, high)
    axes.xaxis.set_major_locator(
        FixedLocator([float(t) for t in ticks if low <= t <= min(high, 100 + 1e-6)])
    )
