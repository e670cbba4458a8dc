"""Flip rate against gamma in one panel: the larger the weights, the fewer flips (App. C)."""

from matplotlib.figure import Figure

from experiments.figures import curves, scales, style
from experiments.figures.gamma_accuracy import FIELD, X_LABEL
from experiments.figures.points import Point, column
from experiments.run.reader import Run


def points(run: Run) -> list[Point]:
    """A point per optimizer, distribution and gamma: epoch-wise flip rate, mean over the epochs."""
    arms = curves.arms_on(curves.curves(run, FIELD))
    return curves.points(run, arms, [curves.FLIP_RATE])


def figure(run: Run) -> Figure:
    """A line for each optimizer and distribution, both axes logarithmic, zero shown."""
    of, found = curves.curves(run, FIELD), points(run)
    if not found:
        raise style.NothingToDrawError("metrics.jsonl holds no epoch_flip_ratio")
    fig = style.new_figure(4.4)
    style.set_title(
        fig, f"{style.run_title(run)}: flip rate by scale of the initial weights (ours)"
    )
    axes = fig.subplots()
    scales.swept_values(axes, list(column(found, FIELD)), 6.8)
    scale = scales.rates(axes, column(found, "mean"))
    curves.draw(axes, found, FIELD, of, curves.FLIP_RATE)
    axes.set_xlabel(X_LABEL)
    axes.set_ylabel(f"Signs changed from epoch to epoch\n(% of binary weights,\n{scale})")
    axes.grid(True)
    style.legend_below(
        fig,
        axes,
        f"Mean over the epochs. {style.spread_title(run)}",
    )
    return fig
