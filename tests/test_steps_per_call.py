"""Several steps in one compiled call train as they do one by one."""

import os
import signal

import numpy as np
import pytest
from run_folders import rows

from experiments import train
from experiments.config import Config
from experiments.training.step import Steps

SHORT = ["--optimizers", "sgd", "--epochs", "2", "--seeds", "3", "--batch-size", "32"]
SHORT += ["--train-images", "160", "--network", "tiny_networks:Tiny"]


def trained(folder, steps):
    assert train.main([*SHORT, "--steps-per-call", str(steps), "--out", str(folder)]) == 0
    return rows(folder)


@pytest.mark.long
def test_rows_are_those_of_single_steps(tmp_path):
    """Five steps an epoch, in calls of three and two."""
    single, several = trained(tmp_path / "1", 1), trained(tmp_path / "3", 3)
    assert [r["step"] for r in several] == [r["step"] for r in single]
    # Another program rounds otherwise, and a binary network makes much of that.
    np.testing.assert_allclose(several[0]["loss"], single[0]["loss"], rtol=0.1)
    assert abs(several[0]["flip_ratio"] - single[0]["flip_ratio"]) < 0.02


def taken(folder, monkeypatch, stop_before=None):
    """First number and count of the batches that each call of a training takes."""
    calls = []

    def train_step(self, state, sums, batch, values, *, count):
        if stop_before == len(calls):
            os.kill(os.getpid(), signal.SIGTERM)
        calls.append((int(batch[1]), count))
        return whole(self, state, sums, batch, values, count=count)

    whole = Steps.train_step
    with monkeypatch.context() as patch:
        patch.setattr(Steps, "train_step", train_step)
        status = train.main([*SHORT, "--steps-per-call", "2", "--out", str(folder)])
    assert status == (0 if stop_before is None else 143)
    return calls


EPOCH = [(0, 2), (2, 2), (4, 1)]


@pytest.mark.long
def test_every_batch_is_taken_once(tmp_path, monkeypatch):
    assert taken(tmp_path, monkeypatch) == 2 * EPOCH


@pytest.mark.long
def test_a_stopped_training_takes_the_rest(tmp_path, monkeypatch):
    before = taken(tmp_path, monkeypatch, stop_before=1)
    assert [*before, *taken(tmp_path, monkeypatch)] == 2 * EPOCH


def test_streamed_images_come_a_batch_a_call():
    with pytest.raises(ValueError, match=r"steps_per_call=2 .* image_size=32"):
        Config(steps_per_call=2, image_size=32)
