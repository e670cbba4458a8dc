"""Several steps in one compiled call train as they do one by one."""

import json

import numpy as np
import pytest

from experiments import train
from experiments.configs import Config

pytestmark = pytest.mark.usefixtures("compile_quickly")

SHORT = ["--optimizers", "sgd", "--epochs", "2", "--seeds", "3", "--batch-size", "32"]
SHORT += ["--train-images", "160", "--network", "tiny_networks:Tiny"]


def rows(folder, steps):
    assert train.main([*SHORT, "--steps-per-call", str(steps), "--out", str(folder)]) == 0
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_rows_are_those_of_single_steps(tmp_path):
    """Five steps an epoch, in calls of three and two."""
    single, several = rows(tmp_path / "1", 1), rows(tmp_path / "3", 3)
    assert [r["step"] for r in several] == [r["step"] for r in single]
    # Another program rounds otherwise, and a binary network makes much of that.
    np.testing.assert_allclose(several[0]["loss"], single[0]["loss"], rtol=0.1)
    assert abs(several[0]["flip_ratio"] - single[0]["flip_ratio"]) < 0.02


def test_streamed_images_come_a_batch_a_call():
    with pytest.raises(ValueError, match=r"steps_per_call=2 .* image_size=32"):
        Config(steps_per_call=2, image_size=32)
