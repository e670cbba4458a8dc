"""A sweep keeps the weights of each optimizer's best point, and they are used like any run's."""

import numpy as np
import pytest
import synthetic_sweep
from run_folders import rows

from experiments import train
from experiments.data import load
from experiments.report.best import keep_best_weights
from experiments.report.table import summarise
from experiments.run import weights
from experiments.run.reader import read_run
from experiments.sweep.members import Member
from experiments.trained import load_trained

OWN = ["tiny_networks:Tiny", "tiny_networks:OneStage"]
DATA = weights.Data(("a", "b"), (4, 4, 1), np.zeros(1, np.float32), np.ones(1, np.float32))


@pytest.fixture
def planned(tmp_path):
    """A sweep that came to its end, whose points have weights that tell them apart."""
    folder = synthetic_sweep.write_sweep(
        tmp_path / "run", (synthetic_sweep.LAM_TAU, "optimizer=sgd"), epochs=2
    )
    for number, (optimizer, point) in enumerate(points_of(folder)):
        state = {"stem": {"kernel": np.full((2, 2), number, np.float32)}}, {}
        member = Member(optimizer, point, 0)
        weights.save(weights.file_of_point(folder, member), state, DATA, point)
    return folder


def points_of(folder):
    first = {(r["optimizer"], *r["point"].items()): r for r in rows(folder)}
    return [(r["optimizer"], r["point"]) for r in first.values()]


def kept(folder):
    return sorted(p.relative_to(folder / "weights").as_posix() for p in folder.glob("weights/**/*"))


def test_the_best_point_by_mean_top1_is_kept(planned):
    """Counted here from the rows of the last epoch."""
    means = {}
    for number, (optimizer, point) in enumerate(points_of(planned)):
        last = [r for r in rows(planned) if r["point"] == point and r["epoch"] == 2]
        same = [r["test_top1"] for r in last if r["optimizer"] == optimizer]
        means.setdefault(optimizer, []).append((np.mean(same), number))
    keep_best_weights(planned)
    assert kept(planned) == ["ovsw-seed0.npz", "sgd-seed0.npz"]
    for optimizer, found in means.items():
        with np.load(weights.file_of(planned, optimizer, 0)) as arrays:
            assert arrays["params/stem/kernel"][0, 0] == max(found)[1]
    before = kept(planned)
    keep_best_weights(planned)  # of a run that was killed in between
    assert kept(planned) == before


def test_other_seeds_start_from_the_one_that_a_sweep_keeps(planned):
    keep_best_weights(planned)
    assert weights.find(planned, "ovsw", 2).name == "ovsw-seed0.npz"
    assert weights.find(planned, "lars", 1).name == "ovsw-seed0.npz"  # the first that it plans
    point = weights.point_of(weights.find(planned, "ovsw", 0))
    best = next(r for r in summarise(read_run(planned)).values() if r["optimizer"] == "ovsw")
    assert point.keys() == best["point"].keys() == {"lam", "tau"}


def test_before_its_end_a_sweep_says_what_it_will_keep(planned):
    with pytest.raises(ValueError, match=r"A sweep of several settings keeps .* own end"):
        weights.find(planned, "ovsw", 0)


def test_a_sweep_of_networks_is_loaded_with_the_best_one(tmp_path):
    """Trained: the predictions give the accuracy that the best point had with the first seed."""
    out = tmp_path / "run"
    command = ["digits", "--train-images", "64", "--batch-size", "32", "--epochs", "1"]
    command += ["--seeds", "3", "--members-at-once", "1", "--out", str(out)]
    grid = "optimizer=ovsw network=tiny_networks:Tiny,tiny_networks:OneStage"
    assert train.main([*command, "--grids", grid]) == 0
    assert kept(out) == ["ovsw-seed3.npz"]
    trained, digits = load_trained(out, own=OWN), load("digits")
    best = max(rows(out), key=lambda row: row["test_top1"])
    assert trained.network.name == best["point"]["network"]
    right = (trained.predict(digits.test_images) == digits.test_labels).sum()
    assert right == round(best["test_top1"] * len(digits.test_labels))
    named = best["point"]["network"]
    with pytest.raises(ValueError, match="which is not imported because a folder says"):
        load_trained(out, own=[name for name in OWN if name != named])
