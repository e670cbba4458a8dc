"""Figures of runs that were cut short or measured something odd: they show what is known."""

import itertools

import numpy as np
import pytest
import synthetic_run

from experiments import figures
from experiments.figures import convergence, flips
from experiments.run.reader import read_run


def run_of(folder, change, **options):
    """Writes a run whose rows `change` changes in place, or replaces by those that it returns."""
    synthetic_run.write_run(folder, **options)
    rows = synthetic_run.read_rows(folder)
    synthetic_run.write_rows(folder, change(rows) or rows)
    return folder


@pytest.mark.parametrize(
    ("size", "reason"),
    [(0, "the run has no latent.npz"), (1000, "latent.npz cannot be read")],
)
def test_without_latents_the_histograms_are_left_out_and_said_so(size, reason, tmp_path):
    said = []
    folder = synthetic_run.write_run(tmp_path, latents=size > 0, epochs=2)
    if size:
        latent = folder / "latent.npz"
        latent.write_bytes(latent.read_bytes()[:size])
    names = [path.stem for path in figures.draw(folder, said.append)]
    assert names == ["headline", "convergence", "flips"]
    assert len(said) == 1
    assert said[0].startswith(f"never_flipped.png left out: {reason}")


def test_an_optimizer_that_was_not_reached_is_left_out_and_said_so(tmp_path):
    said = []
    folder = run_of(tmp_path, lambda rows: [r for r in rows if r["optimizer"] == "sgd"], epochs=3)
    built = figures.build(read_run(folder), said.append)
    assert said == ["ovsw is in no figure: it has not finished an epoch"]
    assert len(built["headline"].axes[0].patches) == 1
    assert len(built["never_flipped"].axes) == 4


def test_an_optimizer_that_was_stopped_says_how_far_it_came(tmp_path):
    def stopped(rows):
        return [row for row in rows if row["optimizer"] == "sgd" or row["epoch"] <= 2]

    said = []
    folder = run_of(tmp_path, stopped, epochs=6)
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
    def without_layers(rows):
        for row in rows:
            del row["layers"]

    said = []
    folder = run_of(tmp_path, without_layers, epochs=2)
    assert "flips" not in figures.build(read_run(folder), said.append)
    assert said == ["flips.png left out: metrics.jsonl holds no per-layer values"]


def test_a_diverged_loss_leaves_a_gap_and_no_warning(tmp_path):
    def diverge(rows):
        rows[4]["loss"], rows[6]["loss"] = float("nan"), float("inf")  # epochs 3 and 4 of SGD

    folder = run_of(tmp_path, diverge, seeds=(0, 1), epochs=4)
    sgd = convergence.figure(read_run(folder)).axes[0].lines[0]
    assert list(np.isnan(sgd.get_ydata())) == [False, False, True, True]
    figures.draw(folder)


def test_a_run_without_flips_still_has_an_axis(tmp_path):
    def without_flips(rows):
        for row, layer in itertools.product(rows, synthetic_run.DIGITS_LAYERS):
            row["layers"][layer]["epoch_flip_ratio"] = 0.0

    folder = run_of(tmp_path, without_flips, epochs=2)
    low, high = flips.figure(read_run(folder)).axes[0].get_ylim()
    assert low == 0
    assert high > 0
