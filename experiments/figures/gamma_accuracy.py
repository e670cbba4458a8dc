"""Top-1 against gamma, the scale of the initial latent weights (as Fig. 9 of the paper)."""

from matplotlib.figure import Figure

from experiments.figures import curves, scales, style
from experiments.figures.points import Point, column
from experiments.run.reader import Run

FIELD = "init_scale"
X_LABEL = "gamma: factor of the initial latent weights (log scale)"


def points(run: Run) -> list[Point]:
    """A point per optimizer, distribution and gamma."""
    arms = curves.arms_on(curves.curves(run, FIELD))
    return curves.points(run, arms, [curves.TOP1_METRIC])


def figure(run: Run) -> Figure:
    """A line for each optimizer and distribution: mean over seeds, bars of one sample std."""
    of, found = curves.curves(run, FIELD), points(run)
    if not found:
        raise style.NothingToDrawError("top-1 was not evaluated at any gamma yet")
    fig = style.new_figure(4.4)
    style.set_title(fig, f"{style.run_title(run)}: top-1 by scale of the initial weights (ours)")
    axes = fig.subplots()
    scales.swept_values(axes, list(column(found, FIELD)), 6.8)
    curves.draw(axes, found, FIELD, of, curves.TOP1_METRIC)
    style.at_least(axes)
    axes.set_xlabel(X_LABEL)
    axes.set_ylabel(style.top1_label(run))
    axes.grid(True)
    style.legend_below(fig, axes, style.spread_title(run))
    return fig
