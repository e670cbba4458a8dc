"""How every figure looks: sizes, titles, legends, percent axes.

The looks of the optimizers are in `experiments.optimizers`.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import PurePath

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from experiments.optimizers import OPTIMIZERS, Look
from experiments.run.reader import FloatArray, Run

DPI = 150
WIDTH = 8.0  # inches: a README shows 1200 pixels at about 0.7 of their size

# The two colours of Figs. 5/6.
ALL_WEIGHTS = "#0072B2"
NEVER_FLIPPED = "#E69F00"

_RC = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "figure.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.8,
    "text.parse_math": False,  # a "$" in the name of a folder is a "$"
}


class NothingToDrawError(Exception):
    """A figure whose data the run does not hold; the message says which data."""


_OTHER_LOOKS = (
    Look("#000000", (0, (1, 2)), "*", "||"),
    Look("#F0E442", (0, (10, 4)), "<", "oo"),
    Look("#7F3C8D", (0, (5, 1, 1, 1)), ">", "OO"),
)


def looks(optimizers: Sequence[str]) -> dict[str, Look]:
    """A look for each optimizer; unknown optimizers take turns with the looks that are left."""
    unknown = [name for name in optimizers if name not in OPTIMIZERS]
    others = {name: _OTHER_LOOKS[i % len(_OTHER_LOOKS)] for i, name in enumerate(unknown)}
    return {
        name: OPTIMIZERS[name].look if name in OPTIMIZERS else others[name] for name in optimizers
    }


def applied() -> AbstractContextManager[None]:
    """Context in which figures are made and saved; the caller's own rcParams stay as they are."""
    return matplotlib.style.context(["default", _RC])


def new_figure(height: float, *, width: float = WIDTH, gap: float = 0.02) -> Figure:
    """A figure of the given size in inches that belongs to no window and no global state.

    `gap` is the room between columns of panels, as a fraction of a panel's width.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.06, wspace=gap)  # pads in inches
    return Figure(figsize=(width, height), dpi=DPI, layout=layout)


def set_title(fig: Figure, title: str) -> None:
    """The title over all panels; a long one gets a second line."""
    width = int(11.5 * fig.get_figwidth())
    lines = math.ceil(len(title) / width)
    even = width if lines == 1 else math.ceil(len(title) / lines) + 8  # no word alone on a line
    fig.suptitle(textwrap.fill(title, min(width, even)))


_KINDS = {"activations": " with real weights", "none": " with real weights and activations"}


def run_title(run: Run, *, seeds: bool = True) -> str:
    """Data set, network, number of seeds and epochs, as far as they are known."""
    parts = []
    if "data" in run.config:
        data = _elided(PurePath(str(run.config["data"])).name, 32)  # may be a folder
        images = run.config.get("train_images")
        parts.append(f"{data} ({images:,} training images)" if isinstance(images, int) else data)
    if "network" in run.config:
        kind = _KINDS.get(str(run.config.get("binary")), "")
        parts.append(f"{run.config['network']} network{kind}")
    counts = sorted({len(run.seeds(arm)) for arm in run.arms})
    if seeds and len(counts) == 1:
        parts.append("1 seed" if counts[0] == 1 else f"{counts[0]} seeds")
    epochs = run.planned_epochs or max(run.last_epoch(arm) for arm in run.arms)
    parts.append(f"{epochs} epoch" + ("s" if epochs != 1 else ""))
    done = sum(run.finished(arm) for arm in run.planned_arms)
    if run.is_sweep and done < len(run.planned_arms):
        parts.append(f"UNFINISHED: {done} of {len(run.planned_arms)} settings done")
    return ", ".join(parts)


def top1_label(run: Run) -> str:
    """Label of a top-1 axis: on the test split, or on training images that were held out."""
    return "Held-out top-1 (%)" if run.config.get("held_out") else "Test top-1 (%)"


def arm_label(run: Run, arm: str, separator: str = "\n") -> str:
    """Display name, with how far an unfinished arm came."""
    return separator.join([run.name(arm), *run.progress(arm)])


def short_names(layers: Sequence[str], length: int) -> dict[str, str]:
    """Names for narrow panels: drops what all layers share, then the middle of long names.

    >>> short_names(["net/0/conv_in", "net/1/conv_in"], 10)
    {'net/0/conv_in': '…/0/…', 'net/1/conv_in': '…/1/…'}
    """
    if all(len(layer) <= length for layer in layers):
        return {layer: layer for layer in layers}
    parts = [layer.split("/") for layer in layers]
    head, tail = (_shared(p) for p in (parts, [part[::-1] for part in parts]))
    short = {}
    for layer, part in zip(layers, parts, strict=True):
        kept = ["…"] * (head > 0) + part[head : len(part) - tail] + ["…"] * (tail > 0)
        name = "/".join(kept) if head + tail < len(part) else layer
        short[layer] = _elided(name, length)
    return short


def _elided(name: str, length: int) -> str:
    half = (length - 1) // 2
    return name if len(name) <= length else f"{name[:half]}…{name[-half:]}"


def _shared(paths: Sequence[Sequence[str]]) -> int:
    """Number of leading parts that all of several paths have in common."""
    columns = zip(*paths, strict=False)
    return next((i for i, column in enumerate(columns) if len(set(column)) > 1), 0)


def percent_spread(point: Mapping[str, float]) -> str:
    """Mean of a point and, if it has several seeds, sample std; both are in percent."""
    std = "" if math.isnan(point["std"]) else f" ± {point['std']:.1f}"
    return f"{point['mean']:.1f}{std} %"


def at_least(axes: Axes, span: float = 2.0) -> None:
    """Widens a y axis of percentages to at least `span` points, so that noise looks small."""
    low, high = axes.get_ylim()
    if high - low < span:
        middle = (low + high) / 2
        axes.set_ylim(middle - span / 2, middle + span / 2)


def ordered_colors(count: int) -> FloatArray:
    """(count, 4) colours from dark to light, in grey as well, all visible on white."""
    return np.asarray(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.87, count)))


def legend_below(fig: Figure, axes: Axes | Sequence[Axes], title: str | None) -> None:
    """A legend of the axes' lines under all panels, where it covers no data; a label once."""
    panels = [axes] if isinstance(axes, Axes) else axes
    found = {}
    for panel in panels:
        handles, names = panel.get_legend_handles_labels()
        found.update(dict(zip(names, handles, strict=True)))
    labels = list(found)
    fig.legend(
        list(found.values()),
        labels,
        loc="outside lower center",
        ncols=legend_columns(labels),
        handlelength=3.5,
        title=title,
    )


def spread_title(run: Run, drawn: str = "bars") -> str:
    """Title of a legend: what the lines and the spread around them are."""
    if all(len(run.seeds(arm)) == 1 for arm in run.arms):
        return "One seed, so no spread is known"
    return f"Mean over seeds, {drawn}: ± sample standard deviation"


def hide_rest(panels: Sequence[Axes], used: int, columns: int) -> None:
    """Hides unused panels; the panels above them show the x axis."""
    for number, axes in enumerate(panels):
        axes.set_visible(number < used)
        lowest = number + columns >= used
        axes.tick_params(axis="x", labelbottom=lowest)
        if not lowest:
            axes.set_xlabel("")


def epoch_axis(axes: Axes, first: int, last: int, ticks: int = 6) -> None:
    """Whole epochs only, with room for the markers; a single epoch is in the middle."""
    margin = max(0.5, 0.02 * (last - first))
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=ticks, integer=True, min_n_ticks=1))
    axes.set_xlabel("Epoch")
    axes.grid(True)


def legend_columns(labels: Sequence[str]) -> int:
    """At most four columns, fewer for long labels, as even as they can be."""
    most = min(4, max(1, 100 // (max(map(len, labels)) + 10)))  # a figure is 100 letters wide
    return math.ceil(len(labels) / math.ceil(len(labels) / most))


def marker_every(epochs: int) -> int:
    """Marker spacing that leaves about ten markers on a line."""
    return max(1, math.ceil(epochs / 10))


def side_by_side(count: int, left: float, right: float) -> FloatArray:
    """Even offsets that keep equal dots apart; a single dot is in the middle."""
    return np.array([(left + right) / 2]) if count == 1 else np.linspace(left, right, count)
