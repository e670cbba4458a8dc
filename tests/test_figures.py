"""Figures: what they plot is what the run measured, on any run, with every label readable."""

import itertools
import statistics

import hypothesis
import hypothesis.strategies as st
import matplotlib
import numpy as np
import pytest
import synthetic_run
from matplotlib.collections import FillBetweenPolyCollection, PathCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle, StepPatch
from matplotlib.text import Text
from PIL import Image
from test_figures_of_odd_runs import run_of

from experiments import figures
from experiments.figures import __main__ as command_line
from experiments.figures import convergence, flips, headline, never_flipped, style
from experiments.run.reader import read_run

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


@pytest.mark.long
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
    folder = run_of(tmp_path, lambda rows: [r | {"test_top1": 1.0} for r in rows], epochs=1)
    axes = headline.figure(read_run(folder)).axes[1]
    assert max(axes.get_xticks()) == pytest.approx(100)
    assert axes.get_xlim()[1] > 100


def test_a_top1_axis_that_reaches_zero_starts_there_and_does_not_deny_it(tmp_path):
    folder = run_of(tmp_path, lambda rows: rows[0].update(test_top1=0.02), epochs=1)
    axes = headline.figure(read_run(folder)).axes[1]
    assert axes.get_xlim()[0] == 0
    assert axes.get_xlabel() == "Test top-1 (%)"


# --- convergence


@pytest.mark.parametrize(("panel", "key", "factor"), [(0, "loss", 1), (1, "test_top1", 100)])
def test_convergence_plots_mean_and_std_over_seeds(digits, panel, key, factor):
    fig = convergence.figure(read_run(digits))
    axes = fig.axes[panel]
    bands = [c for c in axes.collections if isinstance(c, FillBetweenPolyCollection)]
    for line, band, optimizer in zip(axes.lines[:2], bands, ("sgd", "ovsw"), strict=True):
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


@pytest.mark.parametrize(("last_loss", "scale"), [(0.1, "linear"), (0.005, "log")])
def test_a_loss_that_falls_far_gets_a_log_axis_that_says_so(tmp_path, last_loss, scale):
    losses = {1: 2.0, 2: 0.3, 3: last_loss}

    def change(rows):
        return [row | {"loss": losses[row["epoch"]]} for row in rows]

    folder = run_of(tmp_path, change, seeds=(0,), epochs=3)
    axes = convergence.figure(read_run(folder)).axes[0]
    assert axes.get_yscale() == scale
    assert ("log scale" in axes.get_ylabel()) == (scale == "log")
    low, high = axes.get_ylim()
    assert low < last_loss < 2.0 < high


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
    luminance = style.ordered_colors(count)[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(luminance) > 0)
    assert luminance[-1] < 0.8


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


# --- command line


@pytest.mark.long
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
