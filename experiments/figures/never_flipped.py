"""Histograms of the initial latent weights, the never-flipped ones on top (Figs. 5/6)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, MaxNLocator

from experiments.figures import style
from experiments.figures.points import Point
from experiments.optimizers import display_name
from experiments.run.reader import FloatArray, Run, depth_order

MOST_COLUMNS = 4
_TITLE_LENGTH = 24  # characters above a panel


@dataclass(frozen=True)
class LayerHistogram:
    """Counts of a layer's weights by initial value.

    Attributes:
      edges: bin edges (bins + 1,), symmetric about 0, which is an edge: a bin has one sign.
      initial: number of weights in each bin (bins,).
      never_flipped: how many of them never changed sign (bins,).
    """

    edges: FloatArray
    initial: npt.NDArray[np.int64]
    never_flipped: npt.NDArray[np.int64]

    @property
    def size(self) -> int:
        return int(self.initial.sum())

    @property
    def share(self) -> float:
        """Never-flipped weights as a fraction of all: orange area over blue area."""
        return float(self.never_flipped.sum() / self.initial.sum())


Histograms = Mapping[str, Mapping[str, LayerHistogram]]


def layer_histogram(
    initial: npt.NDArray[np.floating], never_flipped: npt.NDArray[np.bool_]
) -> LayerHistogram:
    """Bins a layer; small layers get fewer bins, so that the counts stay readable."""
    weights = np.asarray(initial, np.float64).ravel()
    reach = float(np.abs(weights).max()) or 1.0
    bins = 2 * int(np.clip(math.sqrt(weights.size) / 2, 6, 30))
    edges = np.linspace(-reach, reach, bins + 1)
    edges[bins // 2] = 0.0
    return LayerHistogram(
        edges,
        np.histogram(weights, edges)[0],
        np.histogram(weights[np.asarray(never_flipped, bool).ravel()], edges)[0],
    )


def read_histograms(folder: Path) -> dict[str, dict[str, LayerHistogram]]:
    """Optimizer -> layer (from input to output) -> histogram, from RUN/latent.npz.

    Raises:
      NothingToDrawError: no such file, a broken one, or one without finished optimizers.
    """
    path = folder / "latent.npz"
    if not path.is_file():
        raise style.NothingToDrawError("the run has no latent.npz")
    found: dict[str, dict[str, LayerHistogram]] = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for key in arrays.files:
                optimizer, layer, what = key.split("|")
                mask = f"{optimizer}|{layer}|never_flipped"
                if what == "initial" and mask in arrays.files:
                    histogram = layer_histogram(arrays[key], arrays[mask])
                    found.setdefault(optimizer, {})[layer] = histogram
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds
        raise style.NothingToDrawError(f"latent.npz cannot be read ({error})") from error
    if not found:
        raise style.NothingToDrawError("latent.npz holds no never-flipped masks")
    return {name: {k: found[name][k] for k in depth_order(list(found[name]))} for name in found}


def points(run: Run, histograms: Histograms) -> list[Point]:
    """A point per bin of every layer."""
    return [
        {
            "optimizer": name,
            "layer": layer,
            "from": float(h.edges[i]),
            "to": float(h.edges[i + 1]),
            "weights": int(h.initial[i]),
            "never_flipped": int(h.never_flipped[i]),
        }
        for name in run.arms
        for layer, h in histograms.get(name, {}).items()
        for i in range(len(h.initial))
    ]


def spread_layers(layers: Sequence[str], count: int = MOST_COLUMNS) -> list[str]:
    """At most `count` layers, evenly spread over the depth, first and last among them."""
    if len(layers) <= count:
        return list(layers)
    return [layers[int(i)] for i in np.linspace(0, len(layers) - 1, count).round()]


def figure(run: Run, histograms: Histograms) -> Figure:
    """A row per optimizer, a column for each of up to four layers."""
    names = [name for name in run.arms if name in histograms]
    if not names:
        raise style.NothingToDrawError("latent.npz holds none of the run's optimizers")
    layers = depth_order(list({layer for name in names for layer in histograms[name]}))
    shown = spread_layers(layers)
    fig = style.new_figure(1.5 + 1.75 * len(names))
    some = "" if len(shown) == len(layers) else f" ({len(shown)} of {len(layers)} layers)"
    style.set_title(fig, _title(run) + some)
    grid = fig.subplots(len(names), len(shown), squeeze=False)
    short = style.short_names(layers, _TITLE_LENGTH)
    for column, layer in enumerate(shown):
        found = [histograms[name].get(layer) for name in names]
        _draw_column(list(zip(grid[:, column], found, strict=True)))
        grid[0, column].set_title(_layer_title(short[layer], found), fontsize=8)
        grid[-1, column].set_xlabel("Initial latent weight")
    for axes, name in zip(grid[:, 0], names, strict=True):
        axes.set_ylabel(style.arm_label(run, name), fontweight="bold")
    fig.supylabel("Weights per bin", fontsize=9)
    _add_legend(fig)
    return fig


def figure_all_layers(run: Run, histograms: Histograms) -> Figure:
    """Every layer of the only optimizer as small multiples, from input to output."""
    ((optimizer, layers),) = histograms.items()
    rows = math.ceil(len(layers) / MOST_COLUMNS)
    fig = style.new_figure(1.2 + 1.45 * rows)
    style.set_title(fig, f"{display_name(optimizer)}: {_title(run)}")
    panels = fig.subplots(rows, MOST_COLUMNS, squeeze=False).ravel()
    short = style.short_names(list(layers), _TITLE_LENGTH)
    for axes, (layer, histogram) in zip(panels, layers.items(), strict=False):
        _draw_column([(axes, histogram)])
        axes.set_title(_layer_title(short[layer], [histogram]), fontsize=8)
    for axes in panels[len(layers) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(layers) - MOST_COLUMNS) : len(layers)]:
        axes.set_xlabel("Initial latent weight", fontsize=8)
    fig.supylabel("Weights per bin", fontsize=9)
    _add_legend(fig)
    return fig


def _title(run: Run) -> str:
    seed = [*run.planned_seeds, *run.seeds(run.arms[0])][0]  # the one in latent.npz
    return f"{style.run_title(run, seeds=False)}, seed {seed}: weights that never flipped"


def _layer_title(name: str, histograms: Iterable[LayerHistogram | None]) -> str:
    size = next(histogram.size for histogram in histograms if histogram is not None)
    return f"{name}\n{size:,} weights"


def _draw_column(panels: Sequence[tuple[Axes, LayerHistogram | None]]) -> None:
    """Draws one layer for several optimizers, on one scale so that areas can be compared."""
    present = [histogram for _, histogram in panels if histogram is not None]
    reach = max(float(histogram.edges[-1]) for histogram in present)
    tallest = max(int(histogram.initial.max()) for histogram in present)
    for axes, histogram in panels:
        axes.set_xlim(-1.05 * reach, 1.05 * reach)
        axes.set_ylim(0, 1.42 * tallest)  # the room above is for the share
        axes.xaxis.set_major_locator(MaxNLocator(nbins=3, symmetric=True))
        # Not the default "1e-5" at the end of the axis, where the label is.
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:.3g}".replace("-", "−"))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        text = "not measured"
        if histogram is not None:
            text = f"{100 * histogram.share:.1f} %"
            axes.stairs(histogram.initial, histogram.edges, fill=True, color=style.ALL_WEIGHTS)
            axes.stairs(
                histogram.never_flipped,
                histogram.edges,
                fill=True,
                facecolor=style.NEVER_FLIPPED,
                edgecolor="black",
                hatch="////",
                linewidth=0,
            )
        axes.text(
            0.5, 0.97, text, transform=axes.transAxes, ha="center", va="top", fontweight="bold"
        )


def _add_legend(fig: Figure) -> None:
    fig.legend(
        handles=[
            Patch(color=style.ALL_WEIGHTS, label="all weights"),
            Patch(
                facecolor=style.NEVER_FLIPPED,
                edgecolor="black",
                hatch="////",
                linewidth=0,
                label="never flipped in training (share printed)",
            ),
        ],
        loc="outside lower center",
        ncols=2,
    )
