"""The figure of `benchmarks.growth`: how optimizers grow, on logarithmic axes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from experiments.figures import style

# The looks that the optimizers have in every figure.
_LOOKS = {"SGD": "sgd", "Adam": "adam", "OvSW, packed": "ovsw", "OvSW, EMA": "sad"}
_MEGA = 1e-6

Series = Mapping[str, Sequence[Mapping[str, Any]]]
Quantity = Callable[[Mapping[str, Any]], Sequence[float]]


def save(series: Series, file: Path) -> None:
    """Draws the figure into a PNG file."""
    with style.applied():
        figure(series).savefig(file)


def figure(series: Series) -> Figure:
    """Time of a step, state, and time of the first step, over weights and over kernels.

    Args:
      series: "weights" and "kernels", the points of each, as `benchmarks.growth` writes them.

    Returns:
      Medians, with bars from quartile to quartile.
    """
    fig = style.new_figure(6.2)
    panels = fig.subplots(2, 2)
    over_weights, over_kernels = series["weights"], series["kernels"]
    weights = f"Latent weights, in {over_weights[0]['kernels']} kernels"
    total = sum(point["weights"] for point in over_kernels) / len(over_kernels)
    kernels = f"Kernels, with about {_rounded(float(f'{total:.1g}'))} latent weights in all"
    _draw(panels[0, 0], over_weights, "weights", lambda of: _milliseconds(of["seconds"]))
    _label(panels[0, 0], "Time of a step", weights, "Time (ms)")
    _draw(panels[0, 1], over_weights, "weights", lambda of: [_MEGA * of["state_bytes"]])
    _label(panels[0, 1], "Optimizer state", weights, "State (MB)")
    _draw(panels[1, 0], over_kernels, "kernels", lambda of: _milliseconds(of["seconds"]))
    _label(panels[1, 0], "Time of a step", kernels, "Time (ms)")
    _draw(panels[1, 1], over_kernels, "kernels", lambda of: [of["compile_seconds"]])
    _label(panels[1, 1], "First step, with compiling", kernels, "Time (s)")
    for axes in panels[1]:
        axes.set_xticks([point["kernels"] for point in over_kernels])
    style.legend_below(fig, panels[0, 0], "Median of repeats, bars from quartile to quartile")
    return fig


def _draw(axes: Axes, points: Sequence[Mapping[str, Any]], varied: str, quantity: Quantity) -> None:
    looks = style.looks(list(_LOOKS.values()))
    x = [point[varied] for point in points]
    for name, key in _LOOKS.items():
        measured = np.array([quantity(point["optimizers"][name]) for point in points])
        low, median, high = np.quantile(measured, [0.25, 0.5, 0.75], axis=1)
        axes.errorbar(
            x,
            median,
            yerr=[median - low, high - median],
            color=looks[key].color,
            linestyle=looks[key].linestyle,
            marker=looks[key].marker,
            markersize=4,
            capsize=2,
            label=name,
        )


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: _rounded(value))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.grid(True)


def _rounded(count: float) -> str:
    """A count in thousands or millions.

    >>> _rounded(1000.0), _rounded(2_900_000), _rounded(30)
    ('1 k', '2.9 M', '30')
    """
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if count >= 0.9995 * size:
            return f"{count / size:.2g}{unit}" if count < 10 * size else f"{count / size:.0f}{unit}"
    return f"{count:g}"


def _milliseconds(seconds: Sequence[float]) -> list[float]:
    return [1e3 * value for value in seconds]
