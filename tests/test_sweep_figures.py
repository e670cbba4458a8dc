"""Figures of sweeps: chosen by what varies, right numbers, the same in the CSV, all readable."""

import csv
import itertools
import math
import statistics

import numpy as np
import pytest
import synthetic_run
import synthetic_sweep
from matplotlib.colors import to_rgb
from matplotlib.container import ErrorbarContainer
from test_figure_layout import assert_readable

import ovsw_jax
from experiments import figures
from experiments.figures import (
    convergence,
    flips,
    gamma_accuracy,
    gamma_convergence,
    gamma_flip_rate,
    gamma_flips,
    headline,
    horizon,
    lam_tau,
    lars_ags,
    scales,
    style,
    sweep,
)
from experiments.records import read_run

LARS_AGS = (
    "optimizer=lars eta=0.001,0.003,0.01,0.02,0.05,0.1",
    "optimizer=ags lam=0.005,0.01,0.02,0.04,0.08,0.16",
    "optimizer=sgd",
)
LAM_TAU = "optimizer=ovsw lam=0.01,0.02,0.04,0.08 tau=0.0001,0.0003,0.0009"
HORIZON = ("optimizer=ovsw threshold=1e-5,3e-5,1e-4,3e-4,9e-4", "optimizer=sgd")
TUNING = (
    "optimizer=sgd learning_rate=0.01,0.03,0.1 weight_decay=0.0005,0.00005",
    "optimizer=adam adam_learning_rate=0.0001,0.0003,0.001,0.003,0.01,0.03",
    "optimizer=lars eta=0.001,0.003,0.01,0.02,0.05,0.1",
    "optimizer=bop bop_threshold=1e-8,1e-7,1e-6 bop_adaptivity=0.0001,0.001",
    "optimizer=ags lam=0.005,0.01,0.02,0.04,0.08,0.16",
    "optimizer=sad tau=0.0001,0.0003,0.0009,0.0027,0.008,0.01",
    "optimizer=ovsw lam=0.01,0.04,0.16 tau=0.0003,0.0009",
)


@pytest.fixture(scope="module")
def gamma(tmp_path_factory):
    """8 gammas x 2 distributions x 2 optimizers x 3 seeds; SGD diverges at the largest gamma."""
    return synthetic_sweep.write_sweep(
        tmp_path_factory.mktemp("runs") / "gamma",
        [synthetic_sweep.GAMMA_GRID],
        epochs=7,
        evaluate_every=3,
        layers=("stem", *synthetic_run.DIGITS_LAYERS, "out/conv", "out/dense"),
        data="cifar100",
        network="resnet18",
        diverging=lambda name, point: name == "sgd" and point["init_scale"] > 500,
    )


def values_of(folder, optimizer, point, key, epoch):
    """Percentages of all seeds, read without the code under test."""
    return [
        100 * row[key]
        for row in synthetic_run.read_rows(folder)
        if (row["optimizer"], row["point"], row["epoch"]) == (optimizer, point, epoch)
    ]


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def bars(axes):
    """(x, mean, std) of every curve with error bars, as drawn."""
    found = []
    for container in axes.containers:
        assert isinstance(container, ErrorbarContainer)
        line, _, segments = container
        x, y = line.get_data()
        half = [(s[1, 1] - s[0, 1]) / 2 for s in segments[0].get_segments()]
        found.append((np.asarray(x, float), np.asarray(y, float), np.array(half)))
    return found


# --- which figures


@pytest.mark.parametrize(
    ("grids", "names"),
    [
        (LARS_AGS, ["lars_ags"]),
        ([LAM_TAU], ["lam_tau"]),
        (HORIZON, ["horizon"]),
        (TUNING, ["sweep"]),
        (["optimizer=sgd,ovsw learning_rate=0.03,0.1"], ["sweep"]),
        (["optimizer=sgd,ovsw"], ["headline", "convergence", "flips"]),
        (["optimizer=sgd learning_rate=0.3"], ["headline", "convergence", "flips"]),
    ],
)
def test_what_a_run_varies_chooses_its_figures(grids, names, tmp_path):
    folder = synthetic_sweep.write_sweep(tmp_path, grids, epochs=1, layers=("a",), seeds=(0,))
    drawn = figures.draw(folder, lambda _: None)
    assert [path.stem for path in drawn] == names
    assert all(path.with_suffix(".csv").is_file() for path in drawn)


def test_a_sweep_of_gamma_gets_figures_for_each_claim(gamma):
    assert [path.stem for path in figures.draw(gamma)] == [
        "gamma_accuracy",
        "gamma_convergence",
        "gamma_flip_rate",
        "gamma_flips_sgd",
        "gamma_flips_ovsw",
    ]


# --- gamma


def test_gamma_accuracy_has_a_line_for_each_optimizer_and_distribution(gamma):
    axes = gamma_accuracy.figure(read_run(gamma)).axes[0]
    lines = itertools.product(("sgd", "ovsw"), ("normal", "uniform"))
    for (x, mean, std), (optimizer, init) in zip(bars(axes), lines, strict=True):
        np.testing.assert_allclose(x, synthetic_sweep.GAMMAS)
        for i, scale in enumerate(synthetic_sweep.GAMMAS):
            point = {"init": init, "init_scale": scale}
            values = values_of(gamma, optimizer, point, "test_top1", 7)
            assert mean[i] == pytest.approx(statistics.mean(values))
            assert std[i] == pytest.approx(statistics.stdev(values), abs=1e-9)
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.figure.legends[0].get_texts()] == [
        "SGD, Kaiming normal (n = 3)",
        "SGD, Kaiming uniform (n = 3)",
        "OvSW, Kaiming normal (n = 3)",
        "OvSW, Kaiming uniform (n = 3)",
    ]


def test_flip_rate_is_the_mean_over_all_epochs_and_zero_is_on_the_axis(gamma):
    axes = gamma_flip_rate.figure(read_run(gamma)).axes[0]
    x, mean, std = bars(axes)[2]
    for i, scale in enumerate(synthetic_sweep.GAMMAS):
        point = {"init": "normal", "init_scale": scale}
        by_epoch = [
            values_of(gamma, "ovsw", point, "epoch_flip_ratio", epoch) for epoch in range(1, 8)
        ]
        seeds = [statistics.mean(values) for values in zip(*by_epoch, strict=True)]
        assert mean[i] == pytest.approx(statistics.mean(seeds))
        assert std[i] == pytest.approx(statistics.stdev(seeds), abs=1e-9)
    assert mean[-1] == 0
    assert axes.get_yscale() == "symlog"
    assert axes.get_ylim()[0] < 0
    assert 0 in axes.get_yticks()
    assert "linear below" in axes.get_ylabel()
    assert len(x) == 8


def test_gamma_convergence_skips_epochs_that_were_not_evaluated(gamma):
    fig = gamma_convergence.figure(read_run(gamma))
    panels = [axes for axes in fig.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == [
        "SGD, Kaiming normal",
        "SGD, Kaiming uniform",
        "OvSW, Kaiming normal",
        "OvSW, Kaiming uniform",
    ]
    for line, scale in zip(panels[3].lines, synthetic_sweep.GAMMAS, strict=True):
        assert list(line.get_xdata()) == [3, 6, 7]
        point = {"init": "uniform", "init_scale": scale}
        expected = [
            statistics.mean(values_of(gamma, "ovsw", point, "test_top1", epoch))
            for epoch in (3, 6, 7)
        ]
        np.testing.assert_allclose(line.get_ydata(), expected)
    looks = {(to_rgb(line.get_color()), line.get_marker()) for line in panels[3].lines}
    assert len(looks) == 8
    luminance = [to_rgb(line.get_color()) @ np.array([0.2, 0.7, 0.1]) for line in panels[0].lines]
    assert np.all(np.diff(luminance) > 0)  # in order on a grey page


def test_gamma_flips_show_every_layer_from_dark_to_light_and_the_total_in_black(gamma):
    run = read_run(gamma)
    fig = gamma_flips.figure(run, "ovsw")
    assert len(fig.axes) == 16
    layers = ["stem", *synthetic_run.DIGITS_LAYERS, "out/conv", "out/dense"]
    layers = run.layers(run.arms[0])
    for axes, (init, scale) in zip(
        fig.axes, itertools.product(("normal", "uniform"), synthetic_sweep.GAMMAS), strict=True
    ):
        assert [line.get_label() for line in axes.lines] == [*layers, "total"]
        total = axes.lines[-1]
        assert to_rgb(total.get_color()) == (0, 0, 0)
        point = {"init": init, "init_scale": scale}
        expected = [
            statistics.mean(values_of(gamma, "ovsw", point, "epoch_flip_ratio", epoch))
            for epoch in range(1, 8)
        ]
        np.testing.assert_allclose(total.get_ydata(), expected)
        assert axes.get_ylim() == fig.axes[0].get_ylim()
    rows = [r for r in synthetic_run.read_rows(gamma) if r["optimizer"] == "ovsw"]
    last = [
        100 * row["layers"][layers[2]]["epoch_flip_ratio"]
        for row in rows
        if row["point"] == {"init": "normal", "init_scale": 1.0} and row["epoch"] == 7
    ]
    assert fig.axes[4].lines[2].get_ydata()[-1] == pytest.approx(statistics.mean(last))


def test_the_csv_of_gamma_holds_what_is_drawn(gamma):
    figures.draw(gamma)
    rows = read_csv(gamma / "figures" / "gamma_accuracy.csv")
    assert list(rows[0]) == ["optimizer", "init", "init_scale", "metric", "n", "mean", "std"]
    axes = gamma_accuracy.figure(read_run(gamma)).axes[0]
    drawn = [(x, mean, std) for curve in bars(axes) for x, mean, std in zip(*curve, strict=True)]
    assert len(rows) == len(drawn) == 32
    for row, expected in zip(rows, drawn, strict=True):
        found = [float(row[key]) for key in ("init_scale", "mean", "std")]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)
        assert row["n"] == "3"
    rows = read_csv(gamma / "figures" / "gamma_flips_ovsw.csv")
    fig = gamma_flips.figure(read_run(gamma), "ovsw")
    drawn = [y for axes in fig.axes for line in axes.lines for y in line.get_ydata()]
    np.testing.assert_allclose([float(row["mean"]) for row in rows], drawn, rtol=1e-5)


# --- LARS and AGS


def test_lars_ags_names_the_best_of_both_and_shows_sgd(tmp_path):
    folder = synthetic_sweep.write_sweep(tmp_path, LARS_AGS, epochs=4)
    fig = lars_ags.figure(read_run(folder))
    left, right = fig.axes
    assert left.get_ylim() == right.get_ylim()
    for axes, name, field in ((left, "lars", "eta"), (right, "ags", "lam")):
        ((x, mean, std),) = bars(axes)
        for i, value in enumerate(x):
            values = values_of(folder, name, {field: value}, "test_top1", 4)
            assert mean[i] == pytest.approx(statistics.mean(values))
            assert std[i] == pytest.approx(statistics.stdev(values))
        best = int(np.argmax(mean))
        assert axes.texts[0].get_text() == f"best: {mean[best]:.1f} ± {std[best]:.1f} %"
        assert axes.texts[0].xy[0] == x[best]
        sgd = statistics.mean(values_of(folder, "sgd", {}, "test_top1", 4))
        level = [
            line for line in axes.lines if len(set(line.get_ydata())) == 1 < len(line.get_xdata())
        ]
        assert level[0].get_ydata()[0] == pytest.approx(sgd)
    rows = read_csv(figures.draw(folder)[0].with_suffix(".csv"))
    assert len(rows) == 13
    assert float(rows[-1]["mean"]) == pytest.approx(sgd, rel=1e-5)


# --- lam and tau


def test_lam_tau_prints_every_cell_and_frames_the_best(tmp_path):
    folder = synthetic_sweep.write_sweep(tmp_path, [LAM_TAU, "optimizer=sgd"], epochs=2)
    fig = lam_tau.figure(read_run(folder))
    lams, taus = (0.01, 0.02, 0.04, 0.08), (0.0001, 0.0003, 0.0009)
    for axes, key in zip(fig.axes, ("test_top1", "never_flipped_ratio"), strict=True):
        image = axes.images[0].get_array()
        shown = {text.get_position(): text.get_text() for text in axes.texts}
        means = {}
        for (j, lam), (i, tau) in itertools.product(enumerate(lams), enumerate(taus)):
            values = values_of(folder, "ovsw", {"lam": lam, "tau": tau}, key, 2)
            means[j, i] = statistics.mean(values)
            assert image[i, j] == pytest.approx(means[j, i])
            assert shown[j, i] == f"{means[j, i]:.1f}\n± {statistics.stdev(values):.1f}"
        best = (max if key == "test_top1" else min)(means, key=means.__getitem__)
        frame = axes.patches[0]
        center = frame.get_x() + frame.get_width() / 2, frame.get_y() + frame.get_height() / 2
        assert center == pytest.approx(best)
        assert axes.images[0].norm.vmax - axes.images[0].norm.vmin >= 2
    assert [t.get_text() for t in fig.axes[0].get_xticklabels()] == ["0.01", "0.02", "0.04", "0.08"]


def test_cells_that_were_not_measured_stay_empty(tmp_path):
    folder = synthetic_sweep.write_sweep(tmp_path, [LAM_TAU], epochs=2)
    rows = [r for r in synthetic_run.read_rows(folder) if r["point"]["lam"] < 0.05]
    synthetic_run.write_rows(folder, rows)
    said = []
    fig = figures.build(read_run(folder), said.append)["lam_tau"]
    assert said == ["3 of 12 settings are in no figure: they have not finished an epoch"]
    assert len(fig.axes[0].texts) == 9
    assert len(fig.axes[0].get_xticks()) == 4
    assert "UNFINISHED: 9 of 12 settings done" in fig.get_suptitle().replace("\n", " ")


# --- horizon


@pytest.mark.parametrize("threshold", [1e-5, 3e-5, 1e-4, 9e-4, 1e-3])
def test_the_horizon_is_the_library_s(threshold):
    assert horizon.horizon(0.999, threshold) == ovsw_jax.silence_horizon(0.999, threshold)


def test_horizon_has_top1_and_shares_against_steps(tmp_path):
    folder = synthetic_sweep.write_sweep(tmp_path, HORIZON, epochs=2)
    panels = horizon.figure(read_run(folder)).axes
    thresholds = [9e-4, 3e-4, 1e-4, 3e-5, 1e-5]
    keys = ("test_top1", "never_flipped_ratio", "silent_ratio")
    for axes, key in zip(panels, keys, strict=True):
        x, mean, _ = bars(axes)[0]
        order = np.argsort(x)
        steps = [math.floor(math.log(sigma / 0.001) / math.log(0.999)) + 1 for sigma in thresholds]
        np.testing.assert_allclose(x[order], steps)
        expected = [
            statistics.mean(values_of(folder, "ovsw", {"threshold": sigma}, key, 2))
            for sigma in thresholds
        ]
        np.testing.assert_allclose(mean[order], expected)
    labels = [text.get_text() for text in panels[0].figure.legends[0].get_texts()]
    assert "end of training: 44 steps" in labels


# --- any other sweep


def test_one_number_that_varies_gives_lines(tmp_path):
    grids = ["optimizer=sgd,ovsw learning_rate=0.01,0.03,0.1,0.3", "optimizer=bop"]
    folder = synthetic_sweep.write_sweep(tmp_path, grids, epochs=2)
    left, right = sweep.figure(read_run(folder)).axes
    for axes, key in ((left, "test_top1"), (right, "never_flipped_ratio")):
        for (x, mean, _), name in zip(bars(axes), ("sgd", "ovsw"), strict=True):
            expected = [
                statistics.mean(values_of(folder, name, {"learning_rate": lr}, key, 2)) for lr in x
            ]
            np.testing.assert_allclose(mean, expected)
    assert left.get_xlabel() == "lr (log scale)"


def test_several_fields_give_rows_from_best_to_worst(tmp_path):
    folder = synthetic_sweep.write_sweep(tmp_path, TUNING, epochs=2, seeds=(0,), held_out=100)
    fig = sweep.figure(read_run(folder))
    panels = [axes for axes in fig.axes if axes.get_visible()]
    titles = [axes.get_title(loc="left") for axes in panels]
    assert titles == ["SGD", "Adam", "LARS", "Bop", "SGD + AGS", "SGD + SAD", "OvSW"]
    assert len({axes.get_xlim() for axes in panels}) == 1
    points = [r for r in synthetic_run.read_rows(folder) if r["epoch"] == 2]
    adam = sorted(
        (
            (100 * r["test_top1"], r["point"]["adam_learning_rate"])
            for r in points
            if r["optimizer"] == "adam"
        ),
        reverse=True,
    )
    labels = [label.get_text() for label in panels[1].get_yticklabels()]
    assert labels == [f"lr {lr:g}" for _, lr in adam]
    assert [text.get_text() for text in panels[1].texts] == [f"{top1:.1f} %" for top1, _ in adam]
    assert panels[1].texts[0].get_fontweight() == "bold"
    assert panels[1].texts[1].get_fontweight() == "normal"
    assert "Held-out" in fig.get_supxlabel()


def test_a_sweep_without_top1_yet_says_so(tmp_path):
    folder = synthetic_sweep.write_sweep(tmp_path, TUNING, epochs=4, evaluate_every=4)
    rows = [row for row in synthetic_run.read_rows(folder) if row["epoch"] < 4]
    synthetic_run.write_rows(folder, rows)
    said = []
    assert figures.build(read_run(folder), said.append) == {}
    assert said == ["sweep.png left out: top-1 was not evaluated at any setting yet"]


@pytest.mark.parametrize("grids", [[synthetic_sweep.GAMMA_GRID], LARS_AGS, [LAM_TAU], HORIZON])
def test_no_figure_of_a_sweep_needs_top1(grids, tmp_path):
    folder = synthetic_sweep.write_sweep(tmp_path, grids, epochs=4, evaluate_every=4, seeds=(0,))
    rows = [row for row in synthetic_run.read_rows(folder) if row["epoch"] < 3]
    synthetic_run.write_rows(folder, rows)
    figures.draw(folder, lambda _: None)


def test_a_comparison_without_top1_yet(tmp_path):
    folder = synthetic_run.write_run(tmp_path, epochs=3, latents=False)
    rows = synthetic_run.read_rows(folder)
    for row in rows:
        del row["test_top1"]
    synthetic_run.write_rows(folder, rows)
    fig = figures.build(read_run(folder), lambda _: None)["headline"]
    assert [text.get_text() for text in fig.axes[1].texts] == ["not yet", "not yet"]


def test_lines_of_a_comparison_skip_epochs_without_top1(tmp_path):
    folder = synthetic_sweep.write_sweep(
        tmp_path, ["optimizer=sgd,ovsw"], epochs=5, evaluate_every=2
    )
    loss, top1 = convergence.figure(read_run(folder)).axes
    assert list(loss.lines[0].get_xdata()) == [1, 2, 3, 4, 5]
    assert list(top1.lines[0].get_xdata()) == [2, 4, 5]


def test_the_large_marks_are_where_a_mean_first_is_where_sgd_ends(tmp_path):
    folder = synthetic_run.write_run(tmp_path, epochs=12, latents=False)
    rows = synthetic_run.read_rows(folder)
    axes = convergence.figure(read_run(folder)).axes[1]
    level = statistics.mean(
        100 * r["test_top1"] for r in rows if (r["optimizer"], r["epoch"]) == ("sgd", 12)
    )
    marks = [line.get_data() for line in axes.lines if line.get_markersize() == 8]
    for (x, y), name in zip(marks, ("sgd", "ovsw"), strict=True):
        assert y[0] == pytest.approx(level)
        means = [statistics.mean(values_of_plain(rows, name, epoch)) for epoch in range(1, 13)]
        assert x[0] == next(e for e, mean in enumerate(means, 1) if mean >= level - 1e-9)


def values_of_plain(rows, optimizer, epoch):
    return [
        100 * r["test_top1"] for r in rows if (r["optimizer"], r["epoch"]) == (optimizer, epoch)
    ]


# --- CSV of a comparison


def test_the_csv_of_a_comparison_holds_what_is_drawn(tmp_path):
    folder = synthetic_run.write_run(tmp_path, epochs=3)
    figures.draw(folder)
    run = read_run(folder)
    rows = read_csv(folder / "figures" / "headline.csv")
    left = headline.figure(run).axes[0]
    assert [float(row["mean"]) for row in rows[:2]] == pytest.approx(
        [patch.get_width() for patch in left.patches], rel=1e-5
    )
    assert len(rows[0]["seed_values"].split()) == 3
    rows = read_csv(folder / "figures" / "flips.csv")
    drawn = [
        y for axes in flips.figure(run).axes[:4] for line in axes.lines for y in line.get_ydata()
    ]
    assert [float(row["mean"]) for row in rows] == pytest.approx(drawn, rel=1e-5)
    rows = read_csv(folder / "figures" / "never_flipped.csv")
    with np.load(folder / "latent.npz") as latent:
        total = sum(latent[key].size for key in latent if key.endswith("initial"))
    assert sum(int(row["weights"]) for row in rows) == total


# --- scales


def test_a_swept_zero_has_a_place_left_of_the_smallest_value():
    with style.applied():
        axes = style.new_figure(3).subplots()
        scales.swept_values(axes, [0.0, 0.01, 0.1], 6)
        ticks = axes.transData.transform([(x, 0) for x in axes.get_xticks()])[:, 0]
    assert list(axes.get_xticks()) == [0, 0.01, 0.1]
    assert np.all(np.diff(ticks) > 20)


@pytest.mark.parametrize("values", [[0.5], [0.0], [0.1, 0.2], list(np.geomspace(1e-4, 1, 60))])
def test_ticks_of_swept_values_do_not_collide(values):
    with style.applied():
        fig = style.new_figure(3, width=4)
        scales.swept_values(fig.subplots(), values, 3)
        assert_readable(fig)


def test_rates_that_are_all_zero_have_an_axis_too():
    with style.applied():
        axes = style.new_figure(3).subplots()
        assert scales.rates(axes, np.zeros(3)) == "all zero"
        low, high = axes.get_ylim()
    assert low < 0 < high


# --- layout

SHAPES = {
    "gamma": ([synthetic_sweep.GAMMA_GRID], {"layers": synthetic_run.RESNET20_LAYERS}),
    "gamma of one optimizer": (
        ["optimizer=ovsw init_scale=0.1,1"],
        {"seeds": (0,), "layers": [f"encoder/blocks/{i}/attention/query" for i in range(30)]},
    ),
    "gamma beside another sweep": (
        ["optimizer=sgd init_scale=0.1,1,10", "optimizer=adam adam_learning_rate=0.001,0.01"],
        {},
    ),
    "LARS and AGS": (LARS_AGS, {}),
    "LARS and AGS, one seed": (LARS_AGS[:2], {"seeds": (0,), "train_images": 20_000}),
    "lam and tau": ([LAM_TAU], {}),
    "many lam and tau": (
        [
            "optimizer=ovsw lam=0.001,0.002,0.005,0.01,0.02,0.04,0.08,0.16,0.32 "
            "tau=0.00001,0.00002,0.0001,0.0003,0.0009,0.0027,0.0081"
        ],
        {"seeds": (0,)},
    ),
    "horizon": (HORIZON, {}),
    "tuning": (TUNING, {"seeds": (0,), "held_out": 5000, "data": "/far/" + "images_" * 9}),
    "lines": (["optimizer=sgd,ovsw,adam,bop learning_rate=0.01,0.03,0.1,0.3,1"], {}),
    "words": (["optimizer=sgd,ovsw flip_state=packed,ema"], {}),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stopped", [False, True])
def test_labels_are_whole_apart_and_off_the_data(shape, stopped, tmp_path):
    grids, settings = SHAPES[shape]
    folder = synthetic_sweep.write_sweep(tmp_path, grids, epochs=3, **settings)
    if stopped:
        rows = synthetic_run.read_rows(folder)
        synthetic_run.write_rows(folder, rows[: 2 * len(rows) // 3 + 1])
    with style.applied():
        built = figures.build(read_run(folder), lambda _: None)
        assert built
        for fig in built.values():
            assert_readable(fig)
