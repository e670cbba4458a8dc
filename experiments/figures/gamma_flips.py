"""Epoch-wise flip rate of every layer for every gamma (as Figs. 10-25 of the paper)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.figures import curves, scales, style
from experiments.figures.gamma_accuracy import FIELD
from experiments.figures.points import Point, column, over_epochs, select
from experiments.optimizers import display_name
from experiments.run.reader import Run, depth_order
from experiments.sweep.arms import value_text

METRIC = "epoch_flip_ratio"
TOTAL = "total"  # in the column of the layers: all binary weights together

_MOST_NAMED = 6  # layers in the legend


def points(run: Run, optimizer: str) -> list[Point]:
    """A point per distribution, gamma, layer and epoch; the layer `total` is the whole network."""
    found = []
    for curve in curves.curves(run, FIELD, optimizer):
        for arm in curve.arms.values():
            for layer in run.layers(arm):
                found += over_epochs(run, arm, METRIC, 100.0, layer)
            for point in over_epochs(run, arm, METRIC, 100.0):
                found.append({**point, "layer": TOTAL})
    return found


def figure(run: Run, optimizer: str) -> Figure:
    """A column per gamma, a row per distribution, a line per layer; one scale for all panels."""
    of, found = curves.curves(run, FIELD, optimizer), points(run, optimizer)
    gammas = sorted({gamma for curve in of for gamma in curve.arms})
    layers = depth_order(list({p["layer"] for p in found} - {TOTAL}))
    fig = style.new_figure(1.5 + 1.75 * len(of), width=max(style.WIDTH, 0.9 + 1.3 * len(gammas)))
    style.set_title(
        fig,
        f"{display_name(optimizer)}, {style.run_title(run)}: signs changed from epoch to epoch "
        "(ours)",
    )
    grid = fig.subplots(len(of), len(gammas), sharex=True, sharey=True, squeeze=False)
    scale = scales.rates(grid[0, 0], column(found, "mean"))
    for number, (row, curve) in enumerate(zip(grid, of, strict=True), start=1):
        for axes, gamma in zip(row, gammas, strict=True):
            mine = select(found, **{FIELD: gamma}, **curve.rest)
            _draw_panel(axes, mine, layers)
            style.epoch_axis(axes, 1, max(run.last_epoch(arm) for arm in run.arms), ticks=3)
            axes.set_xlabel("Epoch" if number == len(of) else "")
        row[0].set_ylabel(", ".join(curve.rest_labels), fontweight="bold")
    for axes, gamma in zip(grid[0], gammas, strict=True):
        axes.set_title(f"gamma {value_text(gamma)}")
    fig.supylabel(f"Flipped within the epoch (% of weights, {scale})", fontsize=9)
    _add_legend(fig, layers, curves.counts(found))
    return fig


def _draw_panel(axes: Axes, mine: Sequence[Point], layers: Sequence[str]) -> None:
    colors = style.ordered_colors(len(layers))
    for layer in [*layers, TOTAL]:
        line = select(mine, layer=layer)
        total = layer == TOTAL
        axes.plot(
            column(line, "epoch"),
            column(line, "mean"),
            color="black" if total else colors[layers.index(layer)],
            linewidth=1.8 if total else 0.9,
            linestyle="--" if total else "-",
            marker="o" if len(line) == 1 else "",
            markersize=3,
            label=layer,
        )


def _add_legend(fig: Figure, layers: Sequence[str], counts: str) -> None:
    """Input, output and a few layers between them, by colour, and the total."""
    colors = style.ordered_colors(len(layers))
    short = style.short_names(layers, 24)
    shown = sorted(
        {int(i) for i in np.linspace(0, len(layers) - 1, _MOST_NAMED).round()} if layers else ()
    )
    handles = [Line2D([], [], color=colors[i], label=f"{i + 1}  {short[layers[i]]}") for i in shown]
    total = Line2D([], [], color="black", linestyle="--", linewidth=1.8, label="all binary weights")
    fig.legend(
        handles=[*handles, total],
        loc="outside lower center",
        ncols=4 if fig.get_figwidth() > 10 else 3,
        title=(f"Layers from input (1, dark) to output ({len(layers)}, light); " if layers else "")
        + f"mean over seeds ({counts})",
    )
