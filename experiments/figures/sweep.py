"""Any sweep: lines over the one field that varies, else a row per setting."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.figures import curves, scales, style
from experiments.figures.points import Point, arm_columns, column, select
from experiments.optimizers import display_name
from experiments.run.reader import Run
from experiments.sweep.arms import field_name

_COLUMNS = 2
_METRICS = (curves.TOP1_METRIC, curves.NEVER_FLIPPED)


def points(run: Run) -> list[Point]:
    """A point per arm and metric; arms without top-1 yet have none of it."""
    return curves.points(run, run.arms, _METRICS)


def figure(run: Run) -> Figure:
    """Lines if all optimizers that vary do so in one and the same number, else rows."""
    varied = {run.varied(name) for name in run.optimizers} - {()}
    field = next(iter(varied))[0] if {len(fields) for fields in varied} == {1} else ""
    of = curves.curves(run, field) if len(varied) == 1 and field else []
    swept = sum(len(curve.arms) for curve in of)
    if of and swept == sum(len(run.arms_of(name)) for name in run.optimizers if run.varied(name)):
        return _lines(run, field, of)
    return _rows(run)


def _lines(run: Run, field: str, of: Sequence[curves.Curve]) -> Figure:
    found = points(run)
    fig = style.new_figure(4.2)
    style.set_title(fig, f"{style.run_title(run)} (ours)")
    panels = fig.subplots(1, 2)
    labels = (style.top1_label(run), "Never flipped (% of binary weights)")
    for axes, metric, label in zip(panels, _METRICS, labels, strict=True):
        mine = select(found, metric=metric.name)
        swept = [point for point in mine if point[field] != ""]
        if swept:
            scales.swept_values(axes, list(column(swept, field)), 3.2)
            curves.draw(axes, swept, field, of, metric)
        for point in select(mine, **{field: ""}):
            curves.draw_level(axes, point)
        style.at_least(axes)
        axes.set_xlabel(f"{field_name(field)} (log scale)")
        axes.set_ylabel(label)
        axes.grid(True)
    style.legend_below(fig, panels, style.spread_title(run, "bars and bands"))
    return fig


def _rows(run: Run) -> Figure:
    """A panel per optimizer, its settings as rows from best to worst, one x axis for all."""
    found = select(points(run), metric=curves.TOP1_METRIC.name)
    if not found:
        raise style.NothingToDrawError("top-1 was not evaluated at any setting yet")
    panels = {name: ranked for name in run.optimizers if (ranked := _ranked(found, name))}
    names = list(panels)
    columns = min(_COLUMNS, len(names))
    heights = [
        max(len(panels[name]) for name in names[i : i + columns])
        for i in range(0, len(names), columns)
    ]
    fig = style.new_figure(
        1.2 + sum(0.2 * rows + 0.55 for rows in heights), width=1.2 * style.WIDTH
    )
    style.set_title(fig, f"{style.run_title(run)}: every setting (ours)")
    grid = fig.subplots(
        len(heights),
        columns,
        sharex=True,
        squeeze=False,
        gridspec_kw={"height_ratios": [rows + 0.6 for rows in heights]},
    ).ravel()
    for axes, name in zip(grid, names, strict=False):
        _draw_rows(axes, run, name, panels[name])
        axes.tick_params(axis="x", labelbottom=True)
    for axes in grid[len(names) :]:
        axes.set_visible(False)
    _set_limits(grid[0], found)
    several = any(point["n"] > 1 for point in found)
    bars = "mean over seeds, bars: ± sample standard deviation" if several else "one seed"
    fig.supxlabel(
        f"{style.top1_label(run)}; {bars}; large mark and bold: best of the optimizer", fontsize=9
    )
    return fig


def _label(run: Run, point: Point) -> str:
    arm = next(arm for arm in run.arms if point.items() >= arm_columns(run, arm).items())
    label = ", ".join(run.known_arms[arm].labels) or "as configured"
    return label + (" (diverged)" if run.diverged(arm) else "")


def _ranked(found: Sequence[Point], name: str) -> list[Point]:
    return sorted(select(found, optimizer=name), key=lambda point: -point["mean"])


def _draw_rows(axes: Axes, run: Run, name: str, ranked: Sequence[Point]) -> None:
    look = style.looks([name])[name]
    for y, point in enumerate(ranked):
        best = y == 0 and len(ranked) > 1
        axes.errorbar(
            point["mean"],
            y,
            xerr=None if math.isnan(point["std"]) else point["std"],
            color=look.color,
            marker=look.marker,
            markersize=8 if best else 5,
            markeredgecolor="black",
            markerfacecolor=look.color if best else "white",
            capsize=3,
        )
        axes.annotate(
            style.percent_spread(point),
            (1.02, y),
            xycoords=axes.get_yaxis_transform(),
            va="center",
            annotation_clip=False,
            fontsize=8,
            fontweight="bold" if best else "normal",
        )
    axes.set_yticks(range(len(ranked)), [_label(run, point) for point in ranked])
    if len(ranked) > 1:
        axes.get_yticklabels()[0].set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(ranked) - 0.5, -0.5)
    axes.set_title(display_name(name), fontweight="bold", loc="left")
    axes.grid(True)


def _set_limits(axes: Axes, found: Sequence[Point]) -> None:
    std = np.nan_to_num(column(found, "std"))
    low = float(np.min(column(found, "mean") - std))
    high = float(np.max(column(found, "mean") + std))
    margin = max(0.06 * (high - low), 0.5)
    axes.set_xlim(low - margin, high + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
