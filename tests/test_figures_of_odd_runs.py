"""Figures of runs that were cut short or measured something odd: they show what is known."""

import itertools

import numpy as np
import synthetic_run

from experiments import figures
from experiments.figures import convergence, flips
from experiments.run.reader import read_run

WITHOUT_HISTOGRAMS = ["headline", "convergence", "flips"]


def test_without_latents_the_histograms_are_left_out_and_said_so(tmp_path):
    said = []
    folder = synthetic_run.write_run(tmp_path, latents=False, epochs=2)
    names = [path.stem for path in figures.draw(folder, said.append)]
    assert names == WITHOUT_HISTOGRAMS
    assert said == ["never_flipped.png left out: the run has no latent.npz"]


def test_broken_latents_are_left_out_and_said_so(tmp_path):
    said = []
    folder = synthetic_run.write_run(tmp_path, epochs=2)
    latent = folder / "latent.npz"
    latent.write_bytes(latent.read_bytes()[:1000])
    names = [path.stem for path in figures.draw(folder, said.append)]
    assert names == WITHOUT_HISTOGRAMS
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


def test_a_diverged_loss_leaves_a_gap_and_no_warning(tmp_path):
    folder = synthetic_run.write_run(tmp_path, seeds=(0, 1), epochs=4)
    rows = synthetic_run.read_rows(folder)
    rows[4]["loss"], rows[6]["loss"] = float("nan"), float("inf")  # epochs 3 and 4 of SGD
    synthetic_run.write_rows(folder, rows)
    sgd = convergence.figure(read_run(folder)).axes[0].lines[0]
    assert list(np.isnan(sgd.get_ydata())) == [False, False, True, True]
    figures.draw(folder)


def test_a_run_without_flips_still_has_an_axis(tmp_path):
    folder = synthetic_run.write_run(tmp_path, epochs=2)
    rows = synthetic_run.read_rows(folder)
    for row, layer in itertools.product(rows, synthetic_run.DIGITS_LAYERS):
        row["layers"][layer]["epoch_flip_ratio"] = 0.0
    synthetic_run.write_rows(folder, rows)
    low, high = flips.figure(read_run(folder)).axes[0].get_ylim()
    assert low == 0
    assert high > 0
