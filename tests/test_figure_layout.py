"""Figures of runs of any shape: every label whole, apart from the others and off the data."""

import itertools

import hypothesis
import hypothesis.strategies as st
import pytest
import synthetic_run
from longer import long_but
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from experiments import figures
from experiments.figures import never_flipped, style
from experiments.run.reader import depth_order, read_run


def texts_with_boxes(fig):
    """Every text that is drawn, with its box in pixels."""
    FigureCanvasAgg(fig).draw()
    off_view = set()
    for axes in fig.axes:
        for axis in (axes.xaxis, axes.yaxis):
            place = axis.get_transform().transform  # of a logarithmic axis, say
            low, high = sorted(place(axis.get_view_interval()))
            slack = 1e-6 * (high - low)
            for tick in [*axis.majorTicks, *axis.minorTicks]:
                if not low - slack <= place(tick.get_loc()) <= high + slack:
                    off_view |= {tick.label1, tick.label2}
    hidden = {t for axes in fig.axes if not axes.get_visible() for t in axes.findobj(Text)}
    return [
        (text, text.get_window_extent())
        for text in fig.findobj(Text)
        if text.get_visible() and text.get_text() and text not in off_view | hidden
    ]


def assert_readable(fig):
    found = texts_with_boxes(fig)
    width, height = fig.canvas.get_width_height()
    for text, box in found:
        inside = min(box.x0, box.y0, width - box.x1, height - box.y1) >= -0.5
        assert inside, f"{text.get_text()!r} is cut off"
        assert text.get_fontsize() >= 8
    for (first, a), (second, b) in itertools.combinations(found, 2):
        apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0
        assert apart, f"{first.get_text()!r} lies on {second.get_text()!r}"
    for legend, axes in itertools.product(fig.legends, fig.axes):
        assert not legend.get_window_extent().overlaps(axes.get_window_extent())


SHAPES = {
    "digits": {},
    "resnet20": {"layers": synthetic_run.RESNET20_LAYERS, "seeds": (46,), "epochs": 10},
    "one layer, seed and epoch": {"layers": ("dense",), "seeds": (0,), "epochs": 1},
    "seven optimizers": {
        "optimizers": ("sgd", "ovsw", "ags", "sad", "bop", "lars", "adam"),
        "epochs": 600,
        "seeds": (0, 1),
    },
    "forty layers with long names": {
        "layers": [f"encoder/blocks/{i}/attention/query_projection" for i in range(40)],
        "epochs": 3,
        "seeds": (0, 1),
    },
    "tiny weights, odd names": {
        "weight_scale": 1e-5,
        "layers": [f"stage_{i}/$conv$_with_a_long_unshared_name_{i}" for i in range(6)],
        "data": "/somewhere/far/away/" + "my_$images$_" * 10,
        "epochs": 5,
        "weights": 40,
    },
    "large layers": {"weights": 400_000, "layers": ("a", "b"), "epochs": 5},
}


@pytest.mark.parametrize("shape", long_but(SHAPES, "digits", "one layer, seed and epoch"))
def test_labels_are_whole_apart_and_off_the_data(shape, tmp_path):
    folder = synthetic_run.write_run(tmp_path, **SHAPES[shape])
    with style.applied():
        for fig in figures.build(read_run(folder)).values():
            assert_readable(fig)


def test_the_layout_check_sees_texts_that_collide_or_are_cut_off():
    fig = style.new_figure(2)
    fig.text(0.5, 0.5, "one")
    fig.text(0.5, 0.5, "two")
    with pytest.raises(AssertionError, match="'one' lies on 'two'"):
        assert_readable(fig)
    fig = style.new_figure(2)
    fig.text(0.99, 0.5, "outside")
    with pytest.raises(AssertionError, match="'outside' is cut off"):
        assert_readable(fig)


def test_the_share_stands_above_the_bars(tmp_path):
    folder = synthetic_run.write_run(tmp_path, epochs=1)
    fig = never_flipped.figure(read_run(folder), never_flipped.read_histograms(folder))
    FigureCanvasAgg(fig).draw()
    for axes in fig.axes:
        tallest = axes.patches[0].get_data().values.max()
        assert axes.texts[0].get_window_extent().y0 > axes.transData.transform((0, tallest))[1]


# --- names


def test_numbers_in_layer_names_count_as_numbers():
    names = ["block10/conv", "block2/conv", "block2/b", "1/x", "a"]
    assert depth_order(names) == ["1/x", "a", "block2/b", "block2/conv", "block10/conv"]


@hypothesis.given(
    st.lists(st.text("abc/", min_size=1, max_size=40), min_size=1, max_size=5, unique=True),
    st.integers(8, 30),
)
def test_short_names_fit_and_short_ones_stay(layers, length):
    short = style.short_names(layers, length)
    assert list(short) == layers
    assert all(len(name) <= length for name in short.values())
    if all(len(layer) <= length for layer in layers):
        assert list(short.values()) == layers


def test_long_names_keep_what_tells_them_apart():
    layers = [f"encoder/blocks/{i}/attention/query_projection" for i in (0, 1, 10)]
    assert list(style.short_names(layers, 24).values()) == ["…/0/…", "…/1/…", "…/10/…"]
