"""Figures: what they plot is what the run measured, on any run, with every label readable."""

import doctest
import itertools
import json
import statistics
import subprocess
import sys
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import matplotlib
import numpy as np
import pytest
import synthetic_run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import FillBetweenPolyCollection, PathCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle, StepPatch
from matplotlib.text import Text
from PIL import Image

from experiments import figures
from experiments.figures import __main__ as command_line
from experiments.figures import convergence, flips, headline, never_flipped, style
from experiments.records import depth_order, read_run

REPOSITORY = Path(__file__).parents[1]
MAIN_FIGURES = ["headline", "convergence", "flips", "never_flipped"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return synthetic_run.write_run(tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture(scope="module")
def resnet20(tmp_path_factory):
    return synthetic_run.write_run(
        tmp_path_factory.mktemp("runs") / "resnet20",
        layers=synthetic_run.RESNET20_LAYERS,
        seeds=(46,),
        epochs=10,
        data="cifar10",
        network="resnet20",
    )


def measured(folder, optimizer, key, layer=None):
    """(seeds, epochs) of metrics.jsonl, read without the code under test."""
    rows = [row for row in synthetic_run.read_rows(folder) if row["optimizer"] == optimizer]
    series = {}
    for row in rows:
        values = row if layer is None else row["layers"][layer]
        series.setdefault(row["seed"], []).append(values[key])
    return np.array(list(series.values()))


# --- files


def test_draw_writes_each_figure_of_a_small_network(digits):
    said = []
    paths = figures.draw(digits, said.append)
    assert paths == [digits / "figures" / f"{name}.png" for name in MAIN_FIGURES]
    assert said == []
    for path in paths:
        with Image.open(path) as image:
            assert image.width == style.DPI * style.WIDTH
            assert 300 < image.height < 1000
            assert len(image.convert("RGB").getcolors(1_000_000)) > 50


def test_a_deep_network_gets_all_its_layers_on_pages_of_their_own(resnet20):
    names = [path.stem for path in figures.draw(resnet20)]
    assert names == [*MAIN_FIGURES, "never_flipped_sgd", "never_flipped_ovsw"]


def test_drawing_leaves_the_callers_matplotlib_settings_alone(digits):
    with matplotlib.rc_context({"font.size": 31.0}):
        before = dict(matplotlib.rcParams)
        fig = figures.build(read_run(digits))["headline"]
        assert dict(matplotlib.rcParams) == before
    assert fig.axes[0].title.get_fontsize() == 9


# --- headline


def test_headline_shows_each_seed_the_means_and_their_numbers(digits):
    fig = headline.figure(read_run(digits))
    left, right = fig.axes
    assert fig.get_suptitle() == "digits, small network, 3 seeds, 30 epochs"
    assert left.get_xlim() == (0, 100)
    assert "%" in left.get_xlabel()
    assert "%" in right.get_xlabel()
    assert "does not start at 0" in right.get_xlabel()
    assert [label.get_text() for label in left.get_yticklabels()] == ["SGD", "OvSW"]
    bars = [patch for patch in left.patches if isinstance(patch, Rectangle)]
    for axes, key in ((left, "never_flipped_ratio"), (right, "test_top1")):
        dots = [c for c in axes.collections if isinstance(c, PathCollection)]
        for row, optimizer in enumerate(("sgd", "ovsw")):
            values = 100 * measured(digits, optimizer, key)[:, -1]
            mean, std = statistics.mean(values), statistics.stdev(values)
            np.testing.assert_allclose(dots[row].get_offsets()[:, 0], values)
            assert axes.texts[row].get_text() == f"{mean:.1f} ± {std:.1f} %"
            if axes is left:
                assert bars[row].get_width() == pytest.approx(mean)
            low, high = axes.get_xlim()
            assert low < mean - std
            assert mean + std < high


def test_a_single_seed_has_no_spread(resnet20):
    fig = headline.figure(read_run(resnet20))
    value = 100 * measured(resnet20, "sgd", "test_top1")[0, -1]
    assert fig.axes[1].texts[0].get_text() == f"{value:.1f} %"
    assert not any("±" in text.get_text() for text in fig.findobj(Text))
    assert fig.axes[0].containers[0].errorbar is None
    assert "1 seed" in fig.get_suptitle()


def test_headline_ticks_stay_where_an_accuracy_can_be(tmp_path):
    folder = synthetic_run.write_run(tmp_path, epochs=1)
    rows = [row | {"test_top1": 1.0} for row in synthetic_run.read_rows(folder)]
    synthetic_run.write_rows(folder, rows)
    axes = headline.figure(read_run(folder)).axes[1]
    assert max(axes.get_xticks()) == pytest.approx(100)
    assert axes.get_xlim()[1] > 100


# --- convergence


@pytest.mark.parametrize(("panel", "key", "factor"), [(0, "loss", 1), (1, "test_top1", 100)])
def test_convergence_plots_mean_and_std_over_seeds(digits, panel, key, factor):
    fig = convergence.figure(read_run(digits))
    axes = fig.axes[panel]
    bands = [c for c in axes.collections if isinstance(c, FillBetweenPolyCollection)]
    for line, band, optimizer in zip(axes.lines, bands, ("sgd", "ovsw"), strict=True):
        values = factor * measured(digits, optimizer, key)
        mean, std = values.mean(axis=0), values.std(axis=0, ddof=1)
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 31))
        np.testing.assert_allclose(line.get_ydata(), mean)
        edges = band.get_paths()[0].vertices
        for epoch in (1, 15, 30):
            at_epoch = edges[edges[:, 0] == epoch, 1]
            assert at_epoch.min() == pytest.approx(mean[epoch - 1] - std[epoch - 1])
            assert at_epoch.max() == pytest.approx(mean[epoch - 1] + std[epoch - 1])
    labels = [text.get_text() for text in fig.legends[0].get_texts()]
    assert labels == ["SGD (n = 3)", "OvSW (n = 3)"]


def test_a_diverged_loss_leaves_a_gap_and_no_warning(tmp_path):
    folder = synthetic_run.write_run(tmp_path, seeds=(0, 1), epochs=4)
    rows = synthetic_run.read_rows(folder)
    rows[4]["loss"], rows[6]["loss"] = float("nan"), float("inf")  # epochs 3 and 4 of SGD
    synthetic_run.write_rows(folder, rows)
    sgd = convergence.figure(read_run(folder)).axes[0].lines[0]
    assert list(np.isnan(sgd.get_ydata())) == [False, False, True, True]
    figures.draw(folder)


# --- flips


@pytest.mark.parametrize("kind", ["digits", "resnet20"])
def test_flips_plot_every_layer_of_every_optimizer(kind, request):
    folder = request.getfixturevalue(kind)
    run = read_run(folder)
    layers = run.layers("sgd")
    fig = flips.figure(run)
    panels = fig.axes[:4]
    keys = ("epoch_flip_ratio", "silent_ratio")
    for axes, (key, optimizer) in zip(
        panels, itertools.product(keys, ("sgd", "ovsw")), strict=True
    ):
        assert [line.get_label() for line in axes.lines] == layers
        for line, layer in zip(axes.lines, layers, strict=True):
            values = measured(folder, optimizer, key, layer)
            np.testing.assert_allclose(line.get_ydata(), 100 * values.mean(axis=0))
            assert line.get_ydata().max() < axes.get_ylim()[1]
        assert axes.get_ylim()[0] == 0
    assert [axes.get_title() for axes in panels[:2]] == ["SGD", "OvSW"]
    assert panels[0].get_ylim() == panels[1].get_ylim()
    assert all("%" in axes.get_ylabel() for axes in (panels[0], panels[2]))


def test_few_layers_are_named_in_a_legend_and_differ_without_colour(digits):
    fig = flips.figure(read_run(digits))
    assert len(fig.axes) == 4
    names = [text.get_text() for text in fig.legends[0].get_texts()]
    assert names == list(synthetic_run.DIGITS_LAYERS)
    lines = fig.axes[0].lines
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == len(lines)


def test_many_layers_are_named_beside_a_colour_bar(resnet20):
    fig = flips.figure(read_run(resnet20))
    assert not fig.legends
    names = [label.get_text() for label in fig.axes[-1].get_yticklabels()]
    assert names == [f"{i}  {name}" for i, name in enumerate(synthetic_run.RESNET20_LAYERS, 1)]


@pytest.mark.parametrize("count", [2, 18, 40])
def test_layer_colours_grow_lighter_with_depth_and_stay_visible(count):
    luminance = flips.layer_colors(count)[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(luminance) > 0)
    assert luminance[-1] < 0.8


def test_a_run_without_flips_still_has_an_axis(tmp_path):
    folder = synthetic_run.write_run(tmp_path, epochs=2)
    rows = synthetic_run.read_rows(folder)
    for row, layer in itertools.product(rows, synthetic_run.DIGITS_LAYERS):
        row["layers"][layer]["epoch_flip_ratio"] = 0.0
    synthetic_run.write_rows(folder, rows)
    low, high = flips.figure(read_run(folder)).axes[0].get_ylim()
    assert low == 0
    assert high > 0


# --- never flipped


def test_histograms_hold_the_weights_and_print_the_share(digits):
    fig = never_flipped.figure(read_run(digits), never_flipped.read_histograms(digits))
    assert len(fig.axes) == 8
    assert "seed 0" in fig.get_suptitle()
    with np.load(digits / "latent.npz") as latent:
        panels = itertools.product(("sgd", "ovsw"), synthetic_run.DIGITS_LAYERS)
        for axes, (optimizer, layer) in zip(fig.axes, panels, strict=True):
            initial = latent[f"{optimizer}|{layer}|initial"].astype(np.float64)
            mask = latent[f"{optimizer}|{layer}|never_flipped"]
            blue, orange = (p for p in axes.patches if isinstance(p, StepPatch))
            counts, edges, _ = blue.get_data()
            np.testing.assert_array_equal(counts, np.histogram(initial, edges)[0])
            np.testing.assert_array_equal(
                orange.get_data().values, np.histogram(initial[mask], edges)[0]
            )
            assert counts.sum() == initial.size
            assert axes.texts[0].get_text() == f"{100 * mask.mean():.1f} %"
            assert to_rgb(blue.get_facecolor()) == pytest.approx(to_rgb(style.ALL_WEIGHTS))
            assert to_rgb(orange.get_facecolor()) == pytest.approx(to_rgb(style.NEVER_FLIPPED))
            assert orange.get_hatch()  # told apart without colour as well


def test_one_layer_has_one_scale_for_all_optimizers(digits):
    fig = never_flipped.figure(read_run(digits), never_flipped.read_histograms(digits))
    grid = np.array(fig.axes).reshape(2, 4)
    for sgd, ovsw in grid.T:
        assert sgd.get_ylim() == ovsw.get_ylim()
        assert sgd.get_xlim() == ovsw.get_xlim()
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["SGD", "OvSW"]


def test_the_overview_of_a_deep_network_spans_its_depth(resnet20):
    built = figures.build(read_run(resnet20))
    overview = built["never_flipped"]
    titles = [axes.get_title().split("\n")[0] for axes in overview.axes[:4]]
    assert titles == ["layer1/0/conv1", "layer2/0/conv1", "layer2/2/conv2", "layer3/2/conv2"]
    assert "4 of 18 layers" in overview.get_suptitle()
    everything = built["never_flipped_ovsw"]
    shown = [axes for axes in everything.axes if axes.get_visible()]
    titles = [axes.get_title().split("\n")[0] for axes in shown]
    assert titles == list(synthetic_run.RESNET20_LAYERS)
    with np.load(resnet20 / "latent.npz") as latent:
        share = latent["ovsw|layer3/2/conv2|never_flipped"].mean()
    assert shown[-1].texts[0].get_text() == f"{100 * share:.1f} %"


@hypothesis.given(st.integers(1, 400), st.integers(0, 2**31), st.sampled_from([0.0, 1e-6, 1.0]))
def test_histograms_lose_no_weight_and_split_at_zero(size, seed, scale):
    rng = np.random.default_rng(seed)
    initial = (scale * rng.normal(size=size)).astype(np.float32)
    mask = rng.random(size) < 0.5
    found = never_flipped.layer_histogram(initial, mask)
    assert found.size == size
    assert found.never_flipped.sum() == mask.sum()
    assert np.all(found.never_flipped <= found.initial)
    assert found.share == pytest.approx(mask.mean())
    negative = found.initial[found.edges[1:] <= 0].sum()
    assert negative == (initial < 0).sum()


@hypothesis.given(st.integers(1, 60), st.integers(2, 6))
def test_spread_layers_hold_both_ends_in_order(depth, count):
    layers = [str(i) for i in range(depth)]
    chosen = [int(name) for name in never_flipped.spread_layers(layers, count)]
    assert len(chosen) == min(depth, count)
    assert chosen == sorted(set(chosen))
    assert {chosen[0], chosen[-1]} == {0, depth - 1}


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


def test_the_examples_in_the_docs_hold():
    assert doctest.testmod(style) == (0, 1)


def test_every_optimizer_looks_different_with_and_without_colour():
    names = ["sgd", "ovsw", "ags", "sad", "bop", "lars", "adam"]
    found = style.looks(names)
    for trait in ("color", "linestyle", "marker", "hatch"):
        assert len({getattr(look, trait) for look in found.values()}) == len(names)


# --- unfinished and odd runs


def test_without_latents_the_histograms_are_left_out_and_said_so(tmp_path):
    said = []
    folder = synthetic_run.write_run(tmp_path, latents=False, epochs=2)
    names = [path.stem for path in figures.draw(folder, said.append)]
    assert names == MAIN_FIGURES[:3]
    assert said == ["never_flipped.png left out: the run has no latent.npz"]


def test_broken_latents_are_left_out_and_said_so(tmp_path):
    said = []
    folder = synthetic_run.write_run(tmp_path, epochs=2)
    latent = folder / "latent.npz"
    latent.write_bytes(latent.read_bytes()[:1000])
    names = [path.stem for path in figures.draw(folder, said.append)]
    assert names == MAIN_FIGURES[:3]
    assert len(said) == 1
    assert said[0].startswith("never_flipped.png left out: latent.npz cannot be read")


def test_an_optimizer_that_was_not_reached_is_left_out_and_said_so(tmp_path):
    said = []
    folder = synthetic_run.write_run(tmp_path, epochs=3)
    rows = synthetic_run.read_rows(folder)
    synthetic_run.write_rows(folder, [row for row in rows if row["optimizer"] == "sgd"])
    built = figures.build(read_run(folder), said.append)
    assert said == ["ovsw is in no figure: it has not finished an epoch"]
    assert len(built["headline"].axes[0].patches) == 1
    assert len(built["never_flipped"].axes) == 4


def test_an_optimizer_that_was_stopped_says_how_far_it_came(tmp_path):
    said = []
    folder = synthetic_run.write_run(tmp_path, epochs=6)
    rows = synthetic_run.read_rows(folder)
    kept = [row for row in rows if row["optimizer"] == "sgd" or row["epoch"] <= 2]
    synthetic_run.write_rows(folder, kept)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"optimizer": "ovsw", "seed": 0, "ep')
    built = figures.build(read_run(folder), said.append)
    assert said == []
    labels = [label.get_text() for label in built["headline"].axes[0].get_yticklabels()]
    assert labels == ["SGD", "OvSW\nepoch 2 of 6"]
    assert built["flips"].axes[1].get_title() == "OvSW, epoch 2 of 6"
    figures.draw(folder, said.append)
    assert said == ["line 25 of metrics.jsonl is cut off (a killed run): dropped"]


def test_rows_without_layers_leave_out_the_flips(tmp_path):
    said = []
    folder = synthetic_run.write_run(tmp_path, epochs=2)
    rows = synthetic_run.read_rows(folder)
    for row in rows:
        del row["layers"]
    synthetic_run.write_rows(folder, rows)
    assert "flips" not in figures.build(read_run(folder), said.append)
    assert said == ["flips.png left out: metrics.jsonl holds no per-layer values"]


# --- layout


def texts_with_boxes(fig):
    """Every text that is drawn, with its box in pixels."""
    FigureCanvasAgg(fig).draw()
    off_view = set()
    for axes in fig.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            slack = 1e-6 * (high - low)
            for tick in [*axis.majorTicks, *axis.minorTicks]:
                if not low - slack <= tick.get_loc() <= high + slack:
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


@pytest.mark.parametrize("shape", SHAPES)
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


def test_the_share_stands_above_the_bars(digits):
    fig = never_flipped.figure(read_run(digits), never_flipped.read_histograms(digits))
    FigureCanvasAgg(fig).draw()
    for axes in fig.axes:
        tallest = axes.patches[0].get_data().values.max()
        assert axes.texts[0].get_window_extent().y0 > axes.transData.transform((0, tallest))[1]


# --- command line


def test_the_command_draws_several_runs_and_names_the_files(digits, tmp_path, capsys):
    deeper = synthetic_run.write_run(tmp_path, layers=tuple("abcde"), epochs=1, seeds=(0,))
    command_line.main((digits, deeper))
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        *(str(digits / "figures" / f"{name}.png") for name in MAIN_FIGURES),
        *(str(deeper / "figures" / f"{name}.png") for name in MAIN_FIGURES),
        str(deeper / "figures" / "never_flipped_sgd.png"),
        str(deeper / "figures" / "never_flipped_ovsw.png"),
    ]


def test_the_command_says_what_is_no_run_folder(tmp_path):
    with pytest.raises(SystemExit) as stop:
        command_line.main((tmp_path / "nothing",))
    assert "config.json does not exist" in str(stop.value)
    assert "not a run folder" in str(stop.value)
    with pytest.raises(SystemExit, match="at least one run folder"):
        command_line.main(())


def loaded_with(modules):
    """Whether a fresh interpreter has jax in it after importing the modules."""
    code = f"import {modules}, sys, json; print(json.dumps('jax' in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_figures_and_summary_import_no_jax():
    modules = ", ".join(f"experiments.figures.{name}" for name in ("__main__", "flips", "headline"))
    assert not loaded_with(f"experiments.figures, {modules}, experiments.summary")


def test_the_import_check_sees_jax():
    assert loaded_with("experiments.figures, jax")
