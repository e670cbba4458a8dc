"""The drawn graph of a binarised convolution says what the layer computes, and can be read."""

import itertools
import runpy
import sys

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox
from test_figure_layout import assert_readable, texts_with_boxes

from experiments.studies import conv_graph
from experiments.studies.conv_graph import NODES


def test_arrows_lead_from_the_inputs_to_the_outputs():
    arrows = {pair for flow in conv_graph._FLOWS for pair in itertools.pairwise(flow)}
    arrows |= set(conv_graph._KEPT_FOR_BACKWARD)
    assert {end for pair in arrows for end in pair} == set(NODES)

    def before(name):
        direct = {a for a, b in arrows if b == name}
        return direct.union(*map(before, direct))

    assert before("y") & {"x", "W", "dy"} == {"x", "W"}
    assert before("dx") >= {"x", "W", "dy"}
    assert before("dW") >= {"x", "dy"}  # its straight-through sign does not look at W


def test_no_arrow_runs_through_a_text():
    fig = conv_graph.figure()
    assert_readable(fig)
    assert len(set(map(conv_graph._place, NODES))) == len(NODES)
    (axes,) = fig.axes
    FigureCanvasAgg(fig).draw()
    texts = [box for text, box in texts_with_boxes(fig) if text.axes is axes]
    assert len(texts) == 2 * len(NODES)
    routes = [conv_graph._route_of_kept(*pair) for pair in conv_graph._KEPT_FOR_BACKWARD]
    for flow in conv_graph._FLOWS:
        routes += [conv_graph._route(*pair) for pair in itertools.pairwise(flow)]
    for route in routes:
        for start, end in itertools.pairwise(axes.transData.transform(route)):
            assert not any(touch(Bbox([start, end]), box) for box in texts)


def touch(line: Bbox, box: Bbox):
    """Both are upright; a line has no width, so `Bbox.overlaps` won't do."""
    return line.xmin < box.x1 and line.xmax > box.x0 and line.ymin < box.y1 and line.ymax > box.y0


@pytest.mark.parametrize("module", ["studies", "figures"])
def test_command(module, tmp_path, monkeypatch, capsys):
    out = tmp_path / "new"
    monkeypatch.setattr(sys, "argv", ["conv_graph", "--out", str(out)])
    for name in ("studies", "figures"):  # else runpy warns
        monkeypatch.delitem(sys.modules, f"experiments.{name}.conv_graph", raising=False)
    runpy.run_module(f"experiments.{module}.conv_graph", run_name="__main__")
    assert (out / "conv_graph.png").stat().st_size > 10_000
    assert capsys.readouterr().out.split() == [str(out / "conv_graph.png")]
