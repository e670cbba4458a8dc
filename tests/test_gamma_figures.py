"""Figures of sweeps over gamma: right numbers, the same in the CSV."""

import itertools
import statistics

import numpy as np
import pytest
import synthetic_run
import synthetic_sweep
from figure_readings import bars, read_csv, values_of
from matplotlib.colors import to_rgb

from experiments import figures
from experiments.figures import gamma_accuracy, gamma_convergence, gamma_flip_rate, gamma_flips
from experiments.run.reader import read_run


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


def test_a_sweep_of_gamma_gets_figures_for_each_claim(gamma):
    assert [path.stem for path in figures.draw(gamma)] == [
        "gamma_accuracy",
        "gamma_convergence",
        "gamma_flip_rate",
        "gamma_flips_sgd",
        "gamma_flips_ovsw",
    ]


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


@pytest.mark.long
def test_gamma_flips_show_every_layer_from_dark_to_light_and_the_total_in_black(gamma):
    run = read_run(gamma)
    fig = gamma_flips.figure(run, "ovsw")
    assert len(fig.axes) == 16
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


@pytest.mark.long
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
