"""Training loss and test top-1 against the epoch (Fig. 8 of the paper)."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from experiments.figures import style
from experiments.records import Run, display_name, sample_std

_PANELS = (
    ("loss", 1.0, "Training loss (nats)", "Training loss"),
    ("test_top1", 100.0, "Test top-1 (%)", "Test accuracy"),
)

_WIDE = 30.0  # largest over smallest loss


def figure(run: Run) -> Figure:
    """One line an optimizer: mean over seeds, with a band of one sample std on either side."""
    fig = style.new_figure(3.7)
    several = any(len(run.seeds(name)) > 1 for name in run.optimizers)
    style.set_title(fig, style.run_title(run, seeds=several))
    panels = fig.subplots(1, len(_PANELS))
    for axes, (metric, factor, label, title) in zip(panels, _PANELS, strict=True):
        _draw_panel(axes, run, metric, factor)
        axes.set_ylabel(label)
        axes.set_title(title)
    _log_if_wide(panels[0])
    handles, _ = panels[0].get_legend_handles_labels()
    labels = [f"{display_name(name)} (n = {len(run.seeds(name))})" for name in run.optimizers]
    fig.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=style.legend_columns(labels),
        handlelength=3.5,
        title="Mean over seeds, band: ± sample standard deviation" if several else None,
    )
    return fig


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


def _draw_panel(axes: Axes, run: Run, metric: str, factor: float) -> None:
    looks = style.looks(run.optimizers)
    for name in run.optimizers:
        epochs, values = run.series(name, metric)
        values = factor * values
        look, mean, std = looks[name], np.mean(values, axis=0), sample_std(values)
        if std is not None:
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
            label=name,
        )
    style.epoch_axis(axes, 1, max(run.last_epoch(name) for name in run.optimizers))
