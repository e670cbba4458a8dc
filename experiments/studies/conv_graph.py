"""python -m experiments.studies.conv_graph [--out FOLDER]: a binarised convolution (as Fig. 7).

Writes conv_graph.png: what a `BinaryConv` computes forward and backward, drawn from the formulas of
its docstring, with the shapes of a layer of ResNet18.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch
from matplotlib.path import Path as MplPath

from experiments.figures import style

Place = tuple[float, float]

_WIDTH, _HEIGHT = 1.94, 0.72  # of a box
_COLUMN, _ROW = 2.4, 1.15  # from one centre to the next
_EXIT, _TURN = 0.45, 0.22  # where a kept value leaves a box, and how far off it turns
_FILL = {"array": "white", "forward": "#dcebf7", "frozen": "white", "backward": "#f2b877"}
_KEPT = "#6e6e6e"


class Node(NamedTuple):
    """One box.

    Attributes:
      kind: an array that goes in or comes out; a step forward, with a gradient or "frozen" without
        one; or a step backward.
      title: what it does, in a word or two.
      detail: its formula; for arrays, shape and dtype.
      column: from left to right.
      row: from top to bottom.
    """

    kind: Literal["array", "forward", "frozen", "backward"]
    title: str
    detail: str
    column: float
    row: float


_X, _W, _Y = ("256×32×32×64\nfloat32", "3×3×64×128\nfloat32", "256×16×16×128\nfloat32")
NODES = {
    "x": Node("array", "x", _X, 0, 0),
    "W": Node("array", "W", _W, 0, 2),
    "deviation": Node("frozen", "deviation", "σ, of each sample", 1, 1),
    "normalise": Node("forward", "normalise", "x̂ = x / σ", 2, 0),
    "input sign": Node("forward", "sign", "a = sign x̂", 3, 0),
    "kernel sign": Node("forward", "sign", "w = sign W", 3, 2),
    "convolve": Node("forward", "convolve", "z = a ∗ w", 4, 0),
    "factor": Node("frozen", "factor", "α, of each filter", 4, 3),
    "scale": Node("forward", "scale", "y = z α", 5, 0),
    "y": Node("array", "y", _Y, 6, 0),
    "dy": Node("array", "dy", _Y, 6, 4.25),
    "scale back": Node("backward", "scale", "dz = dy α", 5, 4.25),
    "input gradient": Node("backward", "input gradient", "da = dz ∗ flipped w", 4, 4.25),
    "window": Node("backward", "window", "da max(2 - 2|x̂|, 0)", 3, 4.25),
    "normalise back": Node("backward", "normalise", "dx = dx̂ / σ", 2, 4.25),
    "weight gradient": Node("backward", "weight gradient", "dw = a ∗ dz", 4, 5.4),
    "straight-through": Node("backward", "straight-through", "dW = dw", 3, 5.4),
    "dx": Node("array", "dx", _X, 0, 4.25),
    "dW": Node("array", "dW", _W, 0, 5.4),
}
# Chains of boxes, each with an arrow to the next.
_FLOWS = (
    ("x", "normalise", "input sign", "convolve", "scale", "y"),
    ("x", "deviation", "normalise"),
    ("W", "kernel sign", "convolve"),
    ("W", "factor", "scale"),
    ("dy", "scale back", "input gradient", "window", "normalise back", "dx"),
    ("scale back", "weight gradient", "straight-through", "dW"),
)
_KEPT_FOR_BACKWARD = (
    ("deviation", "normalise back"),
    ("normalise", "window"),
    ("kernel sign", "input gradient"),
    ("factor", "scale back"),
    ("input sign", "weight gradient"),
)


def main(out: Path = Path("runs") / "conv_graph") -> None:
    """Writes the drawing.

    Args:
      out: folder for conv_graph.png, over an older one.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "conv_graph.png"
    with style.applied():
        figure().savefig(path, dpi=style.DPI)
    print(path)


def figure() -> Figure:
    """Forward from left to right in the upper half, backward from right to left in the lower."""
    with style.applied():
        fig = style.new_figure(6.2, width=12.0)
        style.set_title(fig, "A binarised convolution and its gradients, in training")
        axes = fig.subplots()
        for source, target in _KEPT_FOR_BACKWARD:
            _draw_arrow(axes, _route_of_kept(source, target), kept=True)
        for flow in _FLOWS:
            for source, target in itertools.pairwise(flow):
                _draw_arrow(axes, _route(source, target), kept=False)
        for name, node in NODES.items():
            _draw_node(axes, node, _place(name))
        fig.legend(handles=_legend(), loc="outside lower center", ncols=4, handlelength=2.6)
        axes.set_aspect("equal")
        axes.axis("off")
        axes.autoscale_view()
    return fig


def _place(name: str) -> Place:
    return _COLUMN * NODES[name].column, -_ROW * NODES[name].row


def _draw_node(axes: Axes, node: Node, place: Place) -> None:
    x, y = place
    array = node.kind == "array"
    backward = node.kind == "backward"
    axes.add_patch(
        FancyBboxPatch(
            (x - _WIDTH / 2, y - _HEIGHT / 2),
            _WIDTH,
            _HEIGHT,
            boxstyle="square,pad=0" if array or backward else "round,pad=0,rounding_size=0.16",
            facecolor=_FILL[node.kind],
            edgecolor="none" if array else "black",
            linestyle=(0, (3, 2)) if node.kind == "frozen" else "-",
        )
    )
    up, down = (0.28, -0.1) if array else (0.15, -0.16)
    axes.text(x, y + up, node.title, ha="center", va="center", fontweight="bold")
    axes.text(x, y + down, node.detail, ha="center", va="center", fontsize=8)


def _route(source: str, target: str) -> list[Place]:
    """Corners of the line from one box to another, along rows and columns."""
    (x0, y0), (x1, y1) = _place(source), _place(target)
    side, height = _WIDTH / 2 * (1 if x1 > x0 else -1), _HEIGHT / 2
    if y0 == y1:
        return [(x0 + side, y0), (x1 - side, y1)]
    if y1 > y0:
        return [(x0 + side, y0), (x1, y0), (x1, y1 - height)]
    return [(x0, y0 - height), (x0, y1), (x1 - side, y1)]


def _route_of_kept(source: str, target: str) -> list[Place]:
    """From below one box to above another; between two columns where a box is in the way."""
    (x0, y0), (x1, y1) = _place(source), _place(target)
    height, start = _HEIGHT / 2, x0 + _EXIT
    points = [(start, y0 - height)]
    if any(abs(x - x0) < _WIDTH / 2 and y1 < y < y0 for x, y in map(_place, NODES)):
        points += [(start, y0 - height - _TURN), (x0 + _COLUMN / 2, y0 - height - _TURN)]
        start = x0 + _COLUMN / 2
    turn, end = y1 + height + _TURN, x1 - _EXIT / 2
    return [*points, (start, turn), (end, turn), (end, y1 + height)]


def _draw_arrow(axes: Axes, corners: Sequence[Place], *, kept: bool) -> None:
    codes = [MplPath.MOVETO] + [MplPath.LINETO] * (len(corners) - 1)
    axes.add_patch(
        FancyArrowPatch(
            path=MplPath(corners, codes),
            arrowstyle="-|>",
            mutation_scale=10,
            color=_KEPT if kept else "black",
            linestyle=(0, (1, 1.2)) if kept else "-",
            linewidth=1.4,
            zorder=0.5,
            fill=False,
        )
    )


def _legend() -> list[Patch | Line2D]:
    return [
        Patch(facecolor=_FILL["forward"], edgecolor="black", label="forward"),
        Patch(facecolor="white", edgecolor="black", linestyle="--", label="without a gradient"),
        Patch(facecolor=_FILL["backward"], edgecolor="black", label="backward"),
        Line2D([], [], color=_KEPT, linestyle=(0, (1, 1.2)), label="kept for the backward pass"),
    ]


if __name__ == "__main__":
    tyro.cli(main)
