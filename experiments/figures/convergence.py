"""Training loss and test top-1 against the epoch (as Fig. 8 of the paper)."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from experiments.figures import style
from experiments.figures.points import Point, arm_columns, column, over_epochs, select
from experiments.report import epochs_to_match
from experiments.run.reader import TOP1, Run

_FACTORS = {"loss": 1.0, TOP1: 100.0}
_REACHED = "test_top1 reaches the mean with which SGD ends"
_WIDE = 30.0  # largest over smallest loss


def points(run: Run) -> list[Point]:
    """A point per arm, metric and epoch; and where the mean first reaches SGD's last one."""
    found = [
        point
        for metric, factor in _FACTORS.items()
        for arm in run.arms
        for point in over_epochs(run, arm, metric, factor)
    ]
    return found + [mark for arm in run.arms for mark in _reached(run, arm, found)]


def _reached(run: Run, arm: str, found: list[Point]) -> list[Point]:
    level = epochs_to_match.level(run, arm)
    if level is None:
        return []
    start = arm_columns(run, arm)
    line = select(found, **start, metric=TOP1)
    high = [point for point in line if point["mean"] >= 100 * level - 1e-9]
    return [
        {**start, "metric": _REACHED, "epoch": p["epoch"], "mean": 100 * level} for p in high[:1]
    ]


def figure(run: Run) -> Figure:
    """One line per arm: mean over seeds, with a band of one sample std on either side.

    A dotted line at SGD's final mean; a large mark where a mean first reaches it.
    """
    found = points(run)
    fig = style.new_figure(3.5 + 0.2 * math.ceil(len(run.arms) / 4))
    several = any(len(run.seeds(arm)) > 1 for arm in run.arms)
    style.set_title(fig, style.run_title(run, seeds=several))
    panels = fig.subplots(1, 2)
    labels = ("Training loss (nats)", style.top1_label(run))
    for axes, metric, label in zip(panels, _FACTORS, labels, strict=True):
        _draw_panel(axes, run, found, metric)
        axes.set_ylabel(label)
    panels[0].set_title("Training loss")
    panels[1].set_title("Accuracy")
    _log_if_wide(panels[0])
    marks = select(found, metric=_REACHED)
    _draw_marks(panels[1], run, marks)
    title = ["Mean over seeds, band: ± sample standard deviation"] * several
    title += ["Dotted: where SGD ends; large marks: first epoch there"] * bool(marks)
    style.legend_below(fig, panels[0], "\n".join(title) or None)
    return fig


def _draw_panel(axes: Axes, run: Run, found: list[Point], metric: str) -> None:
    for arm, look in style.looks(run.arms).items():
        line = select(found, **arm_columns(run, arm), metric=metric)
        epochs, mean, std = (column(line, name) for name in ("epoch", "mean", "std"))
        if len(run.seeds(arm)) > 1:
            axes.fill_between(epochs, mean - std, mean + std, color=look.color, alpha=0.25, lw=0)
        axes.plot(
            epochs,
            mean,
            color=look.color,
            linestyle=look.linestyle,
            marker=look.marker,
            markersize=4,
            markevery=style.marker_every(len(epochs)),
            linewidth=1.6,
            label=f"{run.name(arm)} (n = {len(run.seeds(arm))})",
        )
    style.epoch_axis(axes, 1, max(run.last_epoch(arm) for arm in run.arms))


def _draw_marks(axes: Axes, run: Run, marks: list[Point]) -> None:
    """The level of SGD, and a large mark on it in the epoch in which a mean first is there."""
    looks = style.looks(run.arms)
    if not marks:
        return
    axes.axhline(marks[0]["mean"], color="black", linestyle=":", linewidth=1, zorder=1)
    for mark in marks:
        axes.plot(
            mark["epoch"],
            mark["mean"],
            looks[mark["optimizer"]].marker,
            color=looks[mark["optimizer"]].color,
            markersize=8,
            markerfacecolor="white",
            markeredgewidth=1.8,
            zorder=5,
        )


def _log_if_wide(axes: Axes) -> None:
    """A loss that falls by a factor of 30 would lie on the axis for most of a linear panel."""
    drawn = np.concatenate([np.asarray(line.get_ydata(), np.float64) for line in axes.lines])
    drawn = drawn[np.isfinite(drawn)]
    if drawn.size == 0 or drawn.min() <= 0 or drawn.max() / drawn.min() < _WIDE:
        return
    low, high = float(drawn.min()), float(drawn.max())
    axes.set_yscale("log")
    axes.set_ylim(0.7 * low, 1.4 * high)
    steps = (1, 2, 5) if high / low < 500 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel(f"{axes.get_ylabel()}, log scale")
