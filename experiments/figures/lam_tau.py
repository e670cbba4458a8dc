"""Heatmaps of top-1 and the never-flipped share over lam and tau."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments.figures import curves, style
from experiments.figures.points import Point, column, select
from experiments.optimizers import display_name
from experiments.run.reader import Run
from experiments.sweep.arms import value_text

OPTIMIZER = "ovsw"
COLUMNS, ROWS = "lam", "tau"
_LEAST_SPAN = 2.0  # percentage points: do not colour noise like a difference
_METRICS = (curves.TOP1_METRIC, curves.NEVER_FLIPPED)


def applies(run: Run) -> bool:
    """Whether the run sweeps both coefficients of OvSW, and nothing else."""
    varying = [name for name in run.optimizers if run.varied(name)]
    return varying == [OPTIMIZER] and set(run.varied(OPTIMIZER)) == {COLUMNS, ROWS}


def points(run: Run) -> list[Point]:
    """A point per cell and metric."""
    return curves.points(run, run.arms_of(OPTIMIZER), _METRICS)


def figure(run: Run) -> Figure:
    """Two maps, a cell per pair of coefficients; the best cell of each is framed."""
    found = points(run)
    known = [run.known_arms[arm].point for arm in run.known_arms]
    lams = sorted({float(p[COLUMNS]) for p in known if COLUMNS in p})
    taus = sorted({float(p[ROWS]) for p in known if ROWS in p})
    width = max(style.WIDTH, 2.0 + 2 * 0.68 * len(lams))
    fig = style.new_figure(1.6 + 0.48 * len(taus), width=width)
    n = curves.counts(found)
    several = any(point["n"] > 1 for point in found)
    what = f"mean ± sample std over seeds, {n}" if several else n
    style.set_title(
        fig,
        f"{display_name(OPTIMIZER)}, {style.run_title(run, seeds=False)} "
        f"({what}; framed: the best; ours)",
    )
    panels = fig.subplots(1, 2, sharey=True)
    titles = (style.top1_label(run), "Never flipped (% of binary weights)")
    for axes, metric, title in zip(panels, _METRICS, titles, strict=True):
        mine = select(found, metric=metric.name)
        _draw_map(axes, mine, lams, taus, highest=metric is curves.TOP1_METRIC)
        axes.set_title(title, fontweight="bold")
        axes.set_xlabel("lam: floor of ‖gradient‖ / ‖weights‖ (AGS)")
    panels[0].set_ylabel("tau: decay of silent\nweights (SAD)")
    return fig


def _draw_map(
    axes: Axes,
    found: Sequence[Point],
    lams: Sequence[float],
    taus: Sequence[float],
    *,
    highest: bool,
) -> None:
    means = np.full((len(taus), len(lams)), np.nan)
    for point in found:
        means[taus.index(point[ROWS]), lams.index(point[COLUMNS])] = point["mean"]
    axes.set_facecolor("#eeeeee")  # what is not measured yet
    if found:
        low, high = float(np.nanmin(means)), float(np.nanmax(means))
        image = axes.imshow(
            np.ma.masked_invalid(means),
            cmap="cividis",
            origin="lower",
            aspect="auto",
            vmin=min(low, (low + high - _LEAST_SPAN) / 2),
            vmax=max(high, (low + high + _LEAST_SPAN) / 2),
        )
        for point in found:
            _label_cell(axes, point, lams, taus, point["mean"] > sum(image.get_clim()) / 2)
        best = (max if highest else min)(column(found, "mean"))
        for point in found:
            if point["mean"] == best:
                _frame(axes, lams.index(point[COLUMNS]), taus.index(point[ROWS]))
    axes.set_xlim(-0.5, len(lams) - 0.5)
    axes.set_ylim(-0.5, len(taus) - 0.5)
    axes.set_xticks(range(len(lams)), [value_text(lam) for lam in lams])
    axes.set_yticks(range(len(taus)), [value_text(tau) for tau in taus])
    axes.tick_params(length=0)


def _label_cell(
    axes: Axes, point: Point, lams: Sequence[float], taus: Sequence[float], light: bool
) -> None:
    text = f"{point['mean']:.1f}"
    if not np.isnan(point["std"]):
        text += f"\n± {point['std']:.1f}"
    axes.text(
        lams.index(point[COLUMNS]),
        taus.index(point[ROWS]),
        text,
        ha="center",
        va="center",
        fontsize=8,
        color="black" if light else "white",
    )


def _frame(axes: Axes, x: int, y: int) -> None:
    """Two rims, so that one shows on any colour."""
    for color, width in (("black", 4.0), ("white", 1.6)):
        axes.add_patch(
            Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, ec=color, lw=width, zorder=4)
        )
