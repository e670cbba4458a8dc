"""python -m experiments.figures.conv_graph [--out FOLDER]: a binarised convolution (as Fig. 7).

Writes conv_graph.json and conv_graph.png. The graph is that of the code: `conv_graph.py` beside
this file reads it from the jaxpr of a `BinaryConv` of ResNet18, and says how.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch
from matplotlib.path import Path as MplPath

from experiments.figures import style

if TYPE_CHECKING:  # a figure is drawn without jax
    from experiments.studies.conv_graph import Graph, Node

NAME = "conv_graph"
Place = tuple[float, float]

_WIDTH, _HEIGHT = 1.94, 0.72  # of a box
_COLUMN, _ROW = 2.4, 1.15  # from one centre to the next
_BACKWARD_ROW, _WEIGHT_ROW = 4.25, 5.4
_EXIT, _TURN = 0.45, 0.22  # where a saved value leaves a box, and how far off it turns
_FILL = {"forward": "#dcebf7", "backward": "#f2b877"}
_SAVED = "#6e6e6e"


def main(out: Path = Path("runs") / NAME) -> None:
    """Traces the layer, and writes the graph and its drawing.

    Args:
      out: folder for conv_graph.json and conv_graph.png, over older ones.
    """
    from flax import nnx

    import ovsw_jax as ovsw
    from experiments.studies.conv_graph import trace

    conv = ovsw.nn.BinaryConv(64, 128, (3, 3), strides=2, padding=1, rngs=nnx.Rngs(0))
    graph = trace(conv, (256, 32, 32, 64))
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(graph.as_dict(), indent=2, ensure_ascii=False)
    (out / f"{NAME}.json").write_text(text + "\n", encoding="utf-8")
    with style.applied():
        figure(graph).savefig(out / f"{NAME}.png", dpi=style.DPI)
    for suffix in ("json", "png"):
        print(out / f"{NAME}.{suffix}")


def figure(graph: "Graph") -> Figure:
    """Forward from left to right in the upper half, backward from right to left in the lower."""
    places = layout(graph)
    nodes = {n.key: n for n in graph.nodes}
    with style.applied():
        fig = style.new_figure(6.2, width=12.0)
        style.set_title(
            fig,
            f"A binarised convolution and its gradients: the {graph.equations} equations of its "
            "jaxpr",
        )
        axes = fig.subplots()
        for source, target in graph.edges:
            saved = _is_saved(nodes[source], nodes[target])
            _draw_edge(axes, route(source, target, places, saved), saved)
        for node in graph.nodes:
            _draw_node(axes, node, places[node.key])
        fig.legend(handles=_legend(), loc="outside lower center", ncols=4, handlelength=2.6)
        axes.set_aspect("equal")
        axes.axis("off")
        axes.autoscale_view()
    return fig


def layout(graph: "Graph") -> dict[str, Place]:
    """Centres of all boxes, by rule.

    The column is how late the node can come: forward the distance to the output, backward the
    distance from its gradient. The row is by what a node depends on (forward) or leads to
    (backward).
    """
    nodes = {n.key: n for n in graph.nodes}
    forward = {k for k, n in nodes.items() if n.phase == "forward"}
    backward = {k for k, n in nodes.items() if n.phase == "backward"}
    depth = _longest(graph, forward | {"y", "x", "W"}, reverse=True)
    last = max(depth.values())
    column = {k: float(last - d) for k, d in depth.items()}
    # A gradient stands below what it is the gradient of.
    distance = _longest(graph, backward | {"dy", "dx", "dW"}, reverse=False)
    column |= {k: float(last - d) for k, d in distance.items()}
    column |= dict.fromkeys(("x", "W", "dx", "dW"), 0.0)
    from_x, to_x = _reached(graph, "x", forward=True), _reached(graph, "dx", forward=False)
    row = {}
    for key, node in nodes.items():
        if node.phase == "forward" or key in ("x", "W", "y"):
            row[key] = (0.0 if key in from_x else 2.0) + (1.0 if node.frozen else 0.0)
        else:
            row[key] = _BACKWARD_ROW if key in to_x else _WEIGHT_ROW
    return {k: (_COLUMN * column[k], -_ROW * row[k]) for k in nodes}


def _longest(graph: "Graph", keys: set[str], *, reverse: bool) -> dict[str, int]:
    """Edges on the longest path within `keys` that leads to each, or that goes on from it."""
    edges = [(a, b) for a, b in graph.edges if a in keys and b in keys]
    if reverse:
        edges = [(b, a) for a, b in edges]
    depth = dict.fromkeys(keys, 0)
    for _ in keys:  # relaxed as often as a path can be long
        for a, b in edges:
            depth[b] = max(depth[b], depth[a] + 1)
    return depth


def _reached(graph: "Graph", start: str, *, forward: bool) -> set[str]:
    """Every node after `start`, or before it."""
    edges = [(a, b) if forward else (b, a) for a, b in graph.edges]
    found = {start}
    for _ in graph.nodes:
        found |= {b for a, b in edges if a in found}
    return found


def _draw_node(axes: Axes, node: "Node", place: Place) -> None:
    x, y = place
    array = node.phase in ("input", "output")
    axes.add_patch(_box(place, node))
    up, down = (0.28, -0.1) if array else (0.15, -0.16)
    axes.text(x, y + up, node.title, ha="center", va="center", fontweight="bold")
    axes.text(x, y + down, node.detail, ha="center", va="center", fontsize=8)


def _box(place: Place, node: "Node") -> FancyBboxPatch:
    array, rounded = node.phase in ("input", "output"), node.phase == "forward"
    return FancyBboxPatch(
        (place[0] - _WIDTH / 2, place[1] - _HEIGHT / 2),
        _WIDTH,
        _HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.16" if rounded else "square,pad=0",
        facecolor="white" if node.frozen or array else _FILL[node.phase],
        edgecolor="none" if array else "black",
        linestyle=(0, (3, 2)) if node.frozen else "-",
    )


def _draw_edge(axes: Axes, path: Sequence[Place], saved: bool) -> None:
    codes = [MplPath.MOVETO] + [MplPath.LINETO] * (len(path) - 1)
    axes.add_patch(
        FancyArrowPatch(
            path=MplPath(path, codes),
            arrowstyle="-|>",
            mutation_scale=10,
            color=_SAVED if saved else "black",
            linestyle=(0, (1, 1.2)) if saved else "-",
            linewidth=1.4,
            zorder=0.5,
            fill=False,
        )
    )


def _is_saved(source: "Node", target: "Node") -> bool:
    """Whether a forward value is kept for the backward pass."""
    return target.phase == "backward" and source.phase == "forward"


def route(source: str, target: str, places: Mapping[str, Place], saved: bool) -> list[Place]:
    """Corners of the line from one box to another, along rows and columns."""
    (x0, y0), (x1, y1) = places[source], places[target]
    side, height = _WIDTH / 2 * (1 if x1 > x0 else -1), _HEIGHT / 2
    if saved:
        start, turn = x0 + _EXIT, y1 + height + _TURN
        points = [(start, y0 - height)]
        if any(abs(x - x0) < _WIDTH / 2 and y1 < y < y0 for x, y in places.values()):
            lane = x0 + _COLUMN / 2  # something is in the way: down between two columns
            points += [(start, y0 - height - _TURN), (lane, y0 - height - _TURN)]
            start = lane
        return [*points, (start, turn), (x1 - _EXIT / 2, turn), (x1 - _EXIT / 2, y1 + height)]
    if y0 == y1:
        return [(x0 + side, y0), (x1 - side, y1)]
    if y1 > y0:
        return [(x0 + side, y0), (x1, y0), (x1, y1 - height)]
    return [(x0, y0 - height), (x0, y1), (x1 - side, y1)]


def _legend() -> list[Patch | Line2D]:
    return [
        Patch(facecolor=_FILL["forward"], edgecolor="black", label="forward"),
        Patch(facecolor="white", edgecolor="black", linestyle="--", label="without a gradient"),
        Patch(facecolor=_FILL["backward"], edgecolor="black", label="backward"),
        Line2D([], [], color=_SAVED, linestyle=(0, (1, 1.2)), label="kept for the backward pass"),
    ]


if __name__ == "__main__":
    tyro.cli(main)
