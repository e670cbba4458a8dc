"""The drawn graph of a binarised convolution holds the code's equations, each in one node."""

import itertools
import json
from collections import Counter
from graphlib import TopologicalSorter

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox
from test_figure_layout import assert_readable, texts_with_boxes

import ovsw_jax as ovsw
from experiments.conv_graph import Graph, trace
from experiments.figures import conv_graph

X_SHAPE = (4, 6, 6, 3)
LAYERS = {
    "default": {},
    "bfloat16": {"dtype": jnp.bfloat16},
    "bias, learned factor": {"use_bias": True, "scale": "learned"},
    "no factor": {"scale": None},
    "circular, strides": {"padding": "CIRCULAR", "strides": 2},
    "groups, dilation": {"feature_group_count": 3, "kernel_dilation": 2},
    "other signs": {
        "input_sign": ovsw.nn.clipped_ste_sign,
        "kernel_sign": ovsw.nn.clipped_ste_sign,
    },
    "signs without a gradient": {"kernel_sign": ovsw.nn.sign},
}


def make(name):
    return ovsw.nn.BinaryConv(3, 6, (3, 3), **LAYERS[name], rngs=nnx.Rngs(0))


def primitives(jaxpr):
    """Counts equations, those of nested calls instead of the calls."""
    found = Counter()
    for equation in jaxpr.eqns:
        inner = [p.jaxpr for p in equation.params.values() if hasattr(p, "jaxpr")]
        if inner:
            found += sum(map(primitives, inner), Counter())
        else:
            found[equation.primitive.name] += 1
    return found


@pytest.mark.parametrize("name", LAYERS)
def test_every_equation_is_in_one_node(name):
    conv = make(name)
    latent = conv.latent_kernel[...]

    def both(latent, x, dy):
        def forward(latent, x):
            graph, _, rest = nnx.split(conv, nnx.PathContains("latent_kernel"), ...)
            return nnx.merge(graph, {"latent_kernel": latent}, rest)(x)

        y, transpose = jax.vjp(forward, latent, x)
        return y, transpose(dy)

    x = jnp.ones(X_SHAPE)
    expected = primitives(jax.make_jaxpr(both)(latent, x, conv(x)).jaxpr)
    graph = trace(conv, X_SHAPE)
    assert Counter(p for n in graph.nodes for p in n.primitives) == expected
    assert graph.equations == expected.total()
    assert len({n.key for n in graph.nodes}) == len(graph.nodes) <= 21


@pytest.mark.parametrize("name", LAYERS)
def test_edges_join_the_nodes_and_run_one_way(name):
    graph = trace(make(name), X_SHAPE)
    keys = {n.key for n in graph.nodes}
    assert keys >= {end for edge in graph.edges for end in edge}
    order = TopologicalSorter({k: {a for a, b in graph.edges if b == k} for k in keys})
    tuple(order.static_order())  # raises if there is a cycle
    for node in graph.nodes:
        if node.phase == "forward":
            assert before(graph, node.key) & {"x", "W", "dy"} <= {"x", "W"}
    needed = {"y": {"x", "W"}, "dx": {"x", "W", "dy"}, "dW": {"x", "dy"}}
    if name == "signs without a gradient":
        del needed["dW"]  # a constant 0
    for output, inputs in needed.items():
        assert before(graph, output) >= inputs


def before(graph: Graph, key):
    """All nodes on the way to `key`."""
    direct = {a for a, b in graph.edges if b == key}
    return direct.union(*(before(graph, a) for a in direct))


def test_the_graph_of_the_default_layer():
    """What the layer computes, as one writes it down by hand."""
    graph = trace(make("default"), X_SHAPE)
    title = {n.key: f"{n.phase} {n.title}" if n.primitives else n.title for n in graph.nodes}
    a, w = "forward/sign/x", "forward/sign/W"
    title |= {a: "a", w: "w"}
    assert {(title[s], title[t]) for s, t in graph.edges} == {
        ("x", "forward deviation"),
        ("x", "forward normalise"),
        ("forward deviation", "forward normalise"),
        ("forward normalise", "a"),
        ("W", "w"),
        ("W", "forward factor"),
        ("a", "forward convolve"),
        ("w", "forward convolve"),
        ("forward convolve", "forward scale"),
        ("forward factor", "forward scale"),
        ("forward deviation", "forward scale"),  # where it tells of a NaN
        ("forward scale", "y"),
        ("dy", "backward scale"),
        ("forward factor", "backward scale"),
        ("forward deviation", "backward scale"),
        ("backward scale", "backward input gradient"),
        ("w", "backward input gradient"),
        ("backward input gradient", "backward window"),
        ("forward normalise", "backward window"),
        ("backward window", "backward normalise"),
        ("forward deviation", "backward normalise"),
        ("backward normalise", "dx"),
        ("backward scale", "backward weight gradient"),
        ("a", "backward weight gradient"),
        ("backward weight gradient", "straight-through"),
        ("straight-through", "dW"),
    }
    assert {n.title for n in graph.nodes if n.frozen} == {"deviation", "factor"}
    details = {n.key: n.detail for n in graph.nodes}
    assert details["x"] == details["dx"] == "4×6×6×3\nfloat32"
    assert details["W"] == details["dW"] == "3×3×3×6\nfloat32"


def test_a_gradient_that_computes_is_no_identity():
    nodes = {n.key: n for n in trace(make("other signs"), X_SHAPE).nodes}
    assert nodes["backward/sign/W"].title == "window"
    assert nodes["backward/sign/W"].primitives


def test_drawing():
    graph = trace(make("default"), X_SHAPE)
    fig = conv_graph.figure(graph)
    assert_readable(fig)
    places = conv_graph.layout(graph)
    assert len(set(places.values())) == len(graph.nodes)
    (axes,) = fig.axes
    FigureCanvasAgg(fig).draw()
    phase = {n.key: n.phase for n in graph.nodes}
    texts = [box for text, box in texts_with_boxes(fig) if text.axes is axes]
    assert len(texts) == 2 * len(graph.nodes)
    for source, target in graph.edges:
        saved = phase[source] == "forward" and phase[target] == "backward"
        corners = axes.transData.transform(conv_graph.route(source, target, places, saved))
        for start, end in itertools.pairwise(corners):
            line = Bbox([start, end])
            assert not any(touch(line, box) for box in texts), (source, target)


def touch(line: Bbox, box: Bbox):
    """Both are upright; a line has no width, so `Bbox.overlaps` won't do."""
    return line.xmin < box.x1 and line.xmax > box.x0 and line.ymin < box.y1 and line.ymax > box.y0


def test_command(tmp_path, capsys):
    conv_graph.main(tmp_path / "new")
    written = json.loads((tmp_path / "new" / "conv_graph.json").read_text(encoding="utf-8"))
    assert sum(len(n["primitives"]) for n in written["nodes"]) == written["equations"]
    assert (tmp_path / "new" / "conv_graph.png").stat().st_size > 10_000
    assert len(capsys.readouterr().out.splitlines()) == 2
