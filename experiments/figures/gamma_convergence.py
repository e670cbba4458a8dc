"""Top-1 over the epochs for every gamma (as Fig. 8 of the paper)."""

from matplotlib.figure import Figure

from experiments.figures import curves, style
from experiments.figures.gamma_accuracy import FIELD
from experiments.figures.points import Point, column, over_epochs, select
from experiments.run.reader import TOP1, Run
from experiments.sweep.arms import value_text

_COLUMNS = 2
_MARKERS = ("o", "s", "^", "v", "D", "P", "X", "*", "<", ">")


def points(run: Run) -> list[Point]:
    """A point per arm and evaluated epoch."""
    arms = curves.arms_on(curves.curves(run, FIELD))
    return [point for arm in arms for point in over_epochs(run, arm, TOP1, 100.0)]


def figure(run: Run) -> Figure:
    """A panel for each optimizer and distribution, a line per gamma (mean over seeds)."""
    of, found = curves.curves(run, FIELD), points(run)
    if not found:
        raise style.NothingToDrawError("top-1 was not evaluated at any gamma yet")
    rows = -(-len(of) // _COLUMNS)
    fig = style.new_figure(1.5 + 2.4 * rows)
    style.set_title(fig, f"{style.run_title(run)}: convergence for each gamma (ours)")
    grid = fig.subplots(
        rows, min(len(of), _COLUMNS), sharex=True, sharey=True, squeeze=False
    ).ravel()
    gammas = sorted({gamma for curve in of for gamma in curve.arms})
    colors = style.ordered_colors(len(gammas))
    lines = {}
    for axes, curve in zip(grid, of, strict=False):
        axes.set_title(curve.label, fontweight="bold")
        for gamma in curve.arms:
            mine = select(curves.on_curve(found, curve, curves.TOP1_METRIC), **{FIELD: gamma})
            number = gammas.index(gamma)
            lines[gamma] = axes.plot(
                column(mine, "epoch"),
                column(mine, "mean"),
                color=colors[number],
                marker=_MARKERS[number % len(_MARKERS)],
                markersize=4.5,
                markevery=style.marker_every(len(mine)),
                linewidth=1.4,
                label=value_text(gamma),
            )[0]
        style.epoch_axis(axes, 1, max(run.last_epoch(arm) for arm in run.arms))
    style.hide_rest(list(grid), len(of), min(len(of), _COLUMNS))
    fig.supylabel(style.top1_label(run), fontsize=9)
    fig.legend(
        handles=[lines[gamma] for gamma in gammas],
        loc="outside lower center",
        ncols=min(len(gammas), 8),
        handlelength=2.2,
        columnspacing=1.2,
        title="gamma: factor of the initial latent weights; "
        f"mean over seeds ({curves.counts(found)})",
    )
    return fig
