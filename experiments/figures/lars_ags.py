"""LARS over its coefficient beside AGS over its floor (as Fig. 26 of the paper, with App. D)."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import curves, scales, style
from experiments.figures.points import Point, column, select
from experiments.run.reader import Run

# Optimizer, field, x label.
_PANELS = (
    ("lars", "eta", "eta: LARS coefficient (log scale)"),
    ("ags", "lam", "lam: floor of ‖gradient‖ / ‖weights‖ of AGS (log scale)"),
)


def applies(run: Run) -> bool:
    """Whether the run sweeps both, and no other optimizer."""
    varying = {name for name in run.optimizers if run.varied(name)}
    return varying == {optimizer for optimizer, _, _ in _PANELS} and all(
        curves.curves(run, field, optimizer) for optimizer, field, _ in _PANELS
    )


def points(run: Run) -> list[Point]:
    """A point per value of either coefficient, and SGD without rules if it is in the run."""
    found = []
    for optimizer, field, _ in _PANELS:
        arms = curves.arms_on(curves.curves(run, field, optimizer))
        found += curves.points(run, arms, [curves.TOP1_METRIC])
    return found + curves.level(run, "sgd", curves.TOP1_METRIC)


def figure(run: Run) -> Figure:
    """Two panels with one y axis; the best of each is named, SGD is a band."""
    found = points(run)
    if not found:
        raise style.NothingToDrawError("top-1 was not evaluated at any setting yet")
    fig = style.new_figure(4.3)
    style.set_title(fig, f"{style.run_title(run)}: LARS and AGS (ours)")
    panels = fig.subplots(1, 2, sharey=True)
    for axes, (optimizer, field, label) in zip(panels, _PANELS, strict=True):
        of = curves.curves(run, field, optimizer)
        mine = select(found, optimizer=optimizer)
        if mine:
            scales.swept_values(axes, list(column(mine, field)), 3.2)
            curves.draw(axes, mine, field, of, curves.TOP1_METRIC)
            _name_best(axes, mine, field)
        for point in select(found, optimizer="sgd"):
            curves.draw_level(axes, point)
        axes.set_title(of[0].label.split(",")[0], fontweight="bold")
        axes.set_xlabel(label)
        axes.grid(True)
    style.at_least(panels[0])
    panels[0].set_ylabel(style.top1_label(run))
    style.legend_below(fig, panels, style.spread_title(run, "bars and band"))
    return fig


def _name_best(axes: Axes, found: list[Point], field: str) -> None:
    """Rings the highest mean and prints it above its bar."""
    best = max(found, key=lambda point: point["mean"])
    top = best["mean"] + np.nan_to_num(best["std"])
    axes.plot(best[field], best["mean"], "o", ms=13, mfc="none", mec="black", zorder=5)
    axes.annotate(
        f"best: {style.percent_spread(best)}",
        (best[field], top),
        xytext=(0, 9),
        textcoords="offset points",
        ha="center",
        fontweight="bold",
    )
    low, high = axes.get_ylim()
    axes.set_ylim(low, max(high, top + 0.12 * (high - low)))
