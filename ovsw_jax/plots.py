"""Plots of a training loop of your own: latent weights by size, and flips over the steps.

Needs Matplotlib, `pip install 'ovsw-jax[plots]'`. Each function returns a figure that belongs to no
window: a notebook shows it, and `figure.savefig("flips.png")` writes it.

>>> import ovsw_jax.plots
>>> history = [{"conv": {"flip_ratio": 0.1}}, {"conv": {"flip_ratio": 0.05}}]
>>> figure = ovsw_jax.plots.flip_curves(history, metrics=["flip_ratio"])
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ovsw_jax.latent import named_leaves
from ovsw_jax.masks import never_flipped_mask, silent_mask
from ovsw_jax.reading import no_flip_state

try:
    from matplotlib import colormaps
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise ImportError(
        "ovsw_jax.plots draws with Matplotlib, which is not installed: "
        "pip install 'ovsw-jax[plots]'."
    ) from error

__all__ = ["flip_curves", "latent_histogram"]

_FLIPPING, _SILENT, _NEVER = "#0072B2", "#56B4E9", "#E69F00"  # told apart by all eyes
_COLUMNS = 4  # panels side by side
_PANEL = (2.4, 1.9)  # inches
_LABELS = {
    "flip_ratio": "Flipped in a step (%)",
    "silent_ratio": "Silent (%)",
    "never_flipped_ratio": "Never flipped (%)",
    "rescaled_filter_ratio": "Rescaled filters (%)",
}
SHOWN = 0.99  # of the weights of a layer have bars of their own
_NAMED = 8  # layers with a colour of their own in a legend


def latent_histogram(
    params: Any, opt_state: Any, *, layers: Sequence[str] | None = None, bins: int = 40
) -> Figure:
    """Draws how large the latent weights of each layer are, and which of them sleep.

    A bar counts weights of one sign, stacked: those that flip, those that flipped and fell silent,
    and those that never flipped. Its panel says the shares of the last two. The outermost bars also
    count the 1 % of weights that are larger.

    Args:
      params: parameters, as the optimizer has them.
      opt_state: state of an optimizer with `ovsw.sad` or `ovsw.track_flip_state` in it.
      layers: names of layers to draw, as of `ovsw.flip_metrics`; None: all.
      bins: bars per panel, an even number.

    Returns:
      A `matplotlib.figure.Figure` with a panel per layer.

    Raises:
      ValueError: if a layer is unknown or has no finite weight, `bins` is no positive even integer,
        or there is no flip state.
      TypeError: if the arrays are traced.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw, ovsw_jax.plots
      >>> params = {"conv": {"latent_kernel": jnp.linspace(-1, 1, 72).reshape(3, 3, 2, 4)}}
      >>> figure = ovsw_jax.plots.latent_histogram(params, ovsw.track_flip_state().init(params))
      >>> [axes.get_title() for axes in figure.axes]
      ['conv']

    Source: Figs. 5 and 6 of OvSW (Xiang et al., ECCV 2024).
    """
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 2 or bins % 2:
        raise ValueError(f"bins={bins!r} must be a positive even integer, so that 0 is a border.")
    _check_known(params, "latent_histogram")
    silent, never = (dict(named_leaves(m(opt_state))) for m in (silent_mask, never_flipped_mask))
    # A layer has other params, of other shapes.
    weights = {
        name: np.asarray(x, np.float32)
        for name, x in named_leaves(params)
        if name in silent and np.shape(x) == np.shape(silent[name])
    }
    if not weights:
        raise ValueError(no_flip_state(opt_state))
    names = _chosen(layers, list(weights))
    if empty := [name for name in names if not np.isfinite(weights[name]).any()]:
        raise ValueError(
            f"no latent weight of {', '.join(empty)} is finite: there is nothing to draw. Look for "
            "the step at which the loss became NaN."
        )
    figure, panels = _panels(len(names))
    for axes, name in zip(panels, names, strict=True):
        _draw_layer(axes, name, weights[name], silent[name], never[name], bins)
    for axes in panels[::_COLUMNS]:
        axes.set_ylabel("Weights", fontsize=9)
    for axes in panels[-_COLUMNS:]:
        axes.set_xlabel("Latent weight", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def flip_curves(
    history: Sequence[Mapping[str, Mapping[str, Any]]],
    *,
    steps: Sequence[float] | None = None,
    metrics: Sequence[str] = ("flip_ratio", "silent_ratio"),
) -> Figure:
    """Draws metrics of each layer over a training.

    Args:
      history: what `ovsw.flip_metrics` returned, one after the other.
      steps: at which step each of them was taken; None: 1, 2, and so on.
      metrics: names of what to draw, a panel each; ratios in percent.

    Returns:
      A `matplotlib.figure.Figure` with a line per layer and a thick one for the total.

    Raises:
      ValueError: if there is nothing to draw, `steps` has another length than `history`, or a
        metric is in no entry of it.
      TypeError: if `history` is no list of metrics by layer, or the numbers are traced.

    Example:
      >>> import ovsw_jax.plots
      >>> history = [{"total": {"flip_ratio": 0.2, "silent_ratio": 0.9}}]
      >>> figure = ovsw_jax.plots.flip_curves(history, steps=[100])
      >>> [axes.get_ylabel() for axes in figure.axes]
      ['Flipped in a step (%)', 'Silent (%)']

    Source: Figs. 10 to 25 of OvSW (Xiang et al., ECCV 2024).
    """
    if isinstance(history, Mapping) or not isinstance(history, Iterable):
        raise TypeError(f"history={history!r} must be a list of what ovsw.flip_metrics returned.")
    history = list(history)
    if any(not _by_layer(entry) for entry in history):
        raise TypeError(
            "history must hold what ovsw.flip_metrics returned: from the name of each layer, and "
            "'total', to numbers by their names."
        )
    x = list(range(1, len(history) + 1)) if steps is None else list(steps)
    if not history or len(x) != len(history):
        raise ValueError(
            f"history has {len(history)} entries and steps has {len(x)}: give at least one entry, "
            "what ovsw.flip_metrics returned, and a step for each."
        )
    _check_known(history, "flip_curves")
    layers = list(dict.fromkeys(name for entry in history for name in entry))
    known = {m for entry in history for of_layer in entry.values() for m in of_layer}
    if not metrics or not set(metrics) <= known:
        raise ValueError(
            f"metrics={list(metrics)!r} must be some of what history holds: "
            f"{', '.join(sorted(known))}."
        )
    figure = Figure(figsize=(7, 0.9 + 2.1 * len(metrics)), layout="constrained", dpi=120)
    column = figure.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0]
    for axes, metric in zip(column, metrics, strict=True):
        _draw_metric(axes, x, history, metric, layers)
    column[-1].set_xlabel("Step" if steps is not None else "Measurement", fontsize=9)
    _add_layers(figure, column[0])
    return figure


def _by_layer(entry: Any) -> bool:
    """Whether it is metrics by name, by layer, and not empty."""
    return isinstance(entry, Mapping) and any(
        isinstance(of_layer, Mapping) and of_layer for of_layer in entry.values()
    )


def _check_known(tree: Any, function: str) -> None:
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(tree)):
        raise TypeError(
            f"{function} draws numbers, and these are traced: call it outside of the compiled "
            "function, on what that returns."
        )


def _chosen(layers: Sequence[str] | None, known: list[str]) -> list[str]:
    if layers is None:
        return known
    unknown = [name for name in layers if name not in known]
    if unknown or not layers:
        raise ValueError(f"layers={list(layers)!r} must be some of {', '.join(known)}.")
    return list(layers)


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(count, _COLUMNS)
    rows = math.ceil(count / columns)
    size = (max(4.8, columns * _PANEL[0]), 0.8 + rows * _PANEL[1])
    figure = Figure(figsize=size, layout="constrained", dpi=120)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.remove()
    return figure, list(grid[:count])


def _draw_layer(axes: Axes, name: str, weights: Any, silent: Any, never: Any, bins: int) -> None:
    silent, never = np.asarray(silent, bool), np.asarray(never, bool)
    finite = np.isfinite(weights)
    sizes = np.abs(weights[finite])
    # A few large weights would leave all others in the two bars at 0.
    reach = float(np.quantile(sizes, SHOWN)) if sizes.size else 0.0
    reach = reach or float(sizes.max(initial=0)) or 1.0
    inside = np.clip(weights, -reach, reach)
    edges = np.linspace(-reach, reach, bins + 1)
    edges[bins // 2] = 0.0
    parts = [(never, _NEVER, "never flipped"), (silent & ~never, _SILENT, "silent since a flip")]
    parts.append((~silent & ~never, _FLIPPING, "flipping"))
    below = np.zeros(bins)
    for chosen, color, label in parts:
        counts = np.histogram(inside[chosen & finite], edges)[0]
        axes.stairs(below + counts, edges, baseline=below, fill=True, color=color, label=label)
        below = below + counts
    axes.set_xlim(-1.02 * reach, 1.02 * reach)
    axes.set_ylim(0, 1.3 * max(1, below.max()))  # the room above is for the shares
    axes.xaxis.set_major_locator(MaxNLocator(nbins=3, symmetric=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    axes.tick_params(labelsize=8)
    axes.set_title(_short(name), fontsize=9)
    text = f"silent {silent.mean():.1%}\nnever flipped {never.mean():.1%}"
    axes.text(0.03, 0.98, text, transform=axes.transAxes, va="top", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_metric(
    axes: Axes, x: Sequence[float], history: Sequence[Any], metric: str, layers: Sequence[str]
) -> None:
    is_share = metric.endswith("_ratio") and metric != "grad_weight_ratio"
    inner = [name for name in layers if name != "total"]
    for name in layers:
        values = [float(entry.get(name, {}).get(metric, math.nan)) for entry in history]
        y = np.asarray(values) * (100 if is_share else 1)
        depth = inner.index(name) / max(1, len(inner) - 1) if name in inner else 0
        look: dict[str, Any] = {"color": "black", "linewidth": 2.2, "zorder": 3}
        if name in inner:
            look = {"color": _by_depth(depth), "linewidth": 1.2}
        axes.plot(x, y, label=_short(name), marker="o", markersize=2.5, **look)
    axes.set_ylabel(_LABELS.get(metric, metric), fontsize=9)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if all(float(step).is_integer() for step in x):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _by_depth(depth: float) -> Any:
    """From blue at the input to yellow at the output."""
    return colormaps["viridis"](0.05 + 0.85 * depth)


def _add_layers(figure: Figure, axes: Axes) -> None:
    """A legend below; of many layers the first, the last and some between them."""
    handles, labels = axes.get_legend_handles_labels()
    shown = list(range(len(labels)))
    if len(labels) > _NAMED:
        places = np.linspace(0, len(labels) - 1, _NAMED).round().astype(int)
        total = [i for i, label in enumerate(labels) if label == "total"]
        shown = sorted({*places.tolist(), *total})
    some = f"{len(shown)} of {len(labels)}, from input (dark) to output (light)"
    figure.legend(
        [handles[i] for i in shown],
        [labels[i] for i in shown],
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=8,
        title=some if len(shown) < len(labels) else None,
        title_fontsize=8,
    )


def _short(name: str, length: int = 26) -> str:
    return name if len(name) <= length else f"…{name[1 - length :]}"
