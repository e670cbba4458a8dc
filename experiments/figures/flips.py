"""Flip ratio and silent ratio of every layer over the epochs (as Figs. 10-25 of the paper)."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from experiments.figures import style
from experiments.figures.points import Point, over_epochs
from experiments.run import silence
from experiments.run.reader import Run, depth_order

_METRICS = (
    ("epoch_flip_ratio", "Flipped within the epoch\n(% of the layer's weights)"),
    ("silent_ratio", "Silent\n(% of the layer's weights)"),
)
_MOST_NAMED = 6  # more layers than this get a colour bar instead of a legend
_MOST_COLUMNS = 4  # optimizers side by side
_MOST_TICKS = 20  # names beside the colour bar
_LINESTYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
_MARKERS = ("o", "s", "^", "v", "D", "P")


def points(run: Run) -> list[Point]:
    """A point per arm, layer, metric and epoch."""
    return [
        point
        for metric, _ in _METRICS
        for arm in run.arms
        for layer in run.layers(arm)
        for point in over_epochs(run, arm, metric, 100.0, layer)
    ]


def figure(run: Run) -> Figure:
    """Small multiples: a row per metric, a column per optimizer, a line per layer.

    A line is the mean over seeds. Many optimizers get rows instead, so that the page stays narrow.
    """
    names = run.arms
    layers = depth_order(list({layer for name in names for layer in run.layers(name)}))
    if not layers:
        raise style.NothingToDrawError("metrics.jsonl holds no per-layer values")
    tall = len(names) > _MOST_COLUMNS
    height, width = (1.4 + 1.3 * len(names), 0.0) if tall else (5.2, 2.6 * len(names))
    fig = style.new_figure(height, width=max(style.WIDTH, width))
    style.set_title(fig, f"{style.run_title(run)}: sign flips and silent weights, layer by layer")
    shape = (len(names), len(_METRICS)) if tall else (len(_METRICS), len(names))
    grid = fig.subplots(*shape, sharex=True, sharey="col" if tall else "row", squeeze=False)
    panels = grid.T if tall else grid  # by metric and optimizer
    colors = style.ordered_colors(len(layers))
    last = max(run.last_epoch(name) for name in names)
    for of_metric, (metric, _) in zip(panels, _METRICS, strict=True):
        for axes, name in zip(of_metric, names, strict=True):
            _draw_panel(axes, run, name, metric, layers, colors)
            style.epoch_axis(axes, 1, last)
    for axes in grid[:-1].ravel():
        axes.set_xlabel("")
    _name_panels(run, panels, tall)
    silences = [found for arm in run.arms if (found := silence.of_arm(run, arm))]
    fig.supxlabel(textwrap.fill(silence.sentences(silences), 110), fontsize=8)
    _set_limits(panels)
    if len(layers) <= _MOST_NAMED:
        style.legend_below(fig, grid[0, 0], None)
    else:
        _add_colorbar(fig, grid, layers, colors)
    return fig


def _name_panels(run: Run, panels: npt.NDArray[np.object_], tall: bool) -> None:
    for of_metric, (_, label) in zip(panels, _METRICS, strict=True):
        if tall:
            of_metric[0].set_title(label)
        else:
            of_metric[0].set_ylabel(label)
    for axes, arm in zip(panels[0], run.arms, strict=True):
        if tall:
            axes.set_ylabel(style.arm_label(run, arm), fontweight="bold")
        else:
            axes.set_title(style.arm_label(run, arm, ", "), fontweight="bold")


def _draw_panel(
    axes: Axes,
    run: Run,
    optimizer: str,
    metric: str,
    layers: Sequence[str],
    colors: npt.NDArray[np.float64],
) -> None:
    named = len(layers) <= _MOST_NAMED
    labels = style.short_names(layers, 28)
    for depth, layer in enumerate(layers):
        epochs, values = run.series(optimizer, metric, layer)
        axes.plot(
            epochs,
            100 * np.mean(values, axis=0),
            color=colors[depth],
            linestyle=_LINESTYLES[depth] if named else "-",
            marker=_MARKERS[depth] if named else "o",
            markersize=4 if named else 2.5,
            markevery=style.marker_every(len(epochs)),
            linewidth=1.5 if named else 1.1,
            label=labels[layer],
        )


def _set_limits(grid: npt.NDArray[np.object_]) -> None:
    flips, silent = grid[0, 0], grid[1, 0]
    drawn = np.concatenate([line.get_ydata() for axes in grid[0] for line in axes.lines])
    highest = float(np.max(drawn, where=np.isfinite(drawn), initial=0.01))
    flips.set_ylim(0, 1.06 * highest)  # from 0, and never an empty range
    silent.set_ylim(0, 104)  # a line at 100 % is not cut in half


def _add_colorbar(
    fig: Figure,
    grid: npt.NDArray[np.object_],
    layers: Sequence[str],
    colors: npt.NDArray[np.float64],
) -> None:
    count = len(layers)
    norm = BoundaryNorm(np.arange(count + 1) + 0.5, count)
    named = range(1, count + 1, math.ceil(count / _MOST_TICKS))
    bar = fig.colorbar(
        ScalarMappable(norm, ListedColormap(colors)),
        ax=grid.ravel().tolist(),
        ticks=list(named),
        pad=0.02,
        aspect=max(20, 8 * len(grid)),  # no wider beside many rows
    )
    short = list(style.short_names(layers, 20).values())
    bar.ax.set_yticklabels([f"{depth}  {short[depth - 1]}" for depth in named])
    bar.ax.minorticks_off()
    bar.ax.invert_yaxis()  # the input at the top, as one reads a network
    bar.set_label("Layer, from input to output")
