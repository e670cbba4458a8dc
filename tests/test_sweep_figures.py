"""Figures of sweeps: chosen by what varies, right numbers, odd runs."""

import itertools
import math
import statistics

import numpy as np
import pytest
import synthetic_run
import synthetic_sweep
from figure_readings import bars, read_csv, values_of
from synthetic_sweep import HORIZON, LAM_TAU, LARS_AGS, TUNING

import ovsw_jax
from experiments import figures
from experiments.figures import convergence, flips, headline, horizon, lam_tau, lars_ags, sweep
from experiments.run.reader import read_run

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
        levels = (y for y in (line.get_ydata() for line in axes.lines) if len(set(y)) == 1 < len(y))
        assert next(levels)[0] == pytest.approx(sgd)
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
    adam = [r for r in points if r["optimizer"] == "adam"]
    adam = [(100 * r["test_top1"], r["point"]["adam_learning_rate"]) for r in adam]
    adam.sort(reverse=True)
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


@pytest.mark.long
@pytest.mark.parametrize("grids", [[synthetic_sweep.GAMMA_GRID], LARS_AGS, [LAM_TAU], HORIZON])
def test_no_figure_of_a_sweep_needs_top1(grids, tmp_path):
    folder = synthetic_sweep.write_sweep(tmp_path, grids, epochs=4, evaluate_every=4, seeds=(0,))
    rows = [row for row in synthetic_run.read_rows(folder) if row["epoch"] < 3]
    synthetic_run.write_rows(folder, rows)
    said = []
    drawn = figures.draw(folder, said.append)
    assert drawn or any("left out: top-1 was not evaluated" in sentence for sentence in said)
    assert all(path.stat().st_size > 5_000 for path in drawn)


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
    axes = convergence.figure(read_run(folder)).axes[1]

    def mean(name, epoch):
        return statistics.mean(values_of(folder, name, None, "test_top1", epoch))

    level = mean("sgd", 12)
    marks = [line.get_data() for line in axes.lines if line.get_markersize() == 8]
    for (x, y), name in zip(marks, ("sgd", "ovsw"), strict=True):
        assert y[0] == pytest.approx(level)
        assert x[0] == next(e for e in range(1, 13) if mean(name, e) >= level - 1e-9)


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
    lines = [line for axes in flips.figure(run).axes[:4] for line in axes.lines]
    drawn = [y for line in lines for y in line.get_ydata()]
    assert [float(row["mean"]) for row in rows] == pytest.approx(drawn, rel=1e-5)
    rows = read_csv(folder / "figures" / "never_flipped.csv")
    with np.load(folder / "latent.npz") as latent:
        total = sum(latent[key].size for key in latent if key.endswith("initial"))
    assert sum(int(row["weights"]) for row in rows) == total
