"""examples/scale.py on eight devices: what it divides, and that a stop changes no bit."""

import runpy
import sys
from pathlib import Path

import chex
import jax
import pytest

SCALE = Path(__file__).parents[1] / "examples" / "scale.py"
STEPS = 60


@pytest.fixture(scope="module")
def scale():
    return runpy.run_path(str(SCALE))


@pytest.mark.long
def test_a_stopped_training_ends_with_the_same_bits(scale, tmp_path, monkeypatch):
    assert len(jax.devices()) == 8
    monkeypatch.setitem(scale["train"].__globals__, "SAVE_EVERY", 20)
    whole = scale["train"](tmp_path / "whole", STEPS)
    stopped = scale["train"](tmp_path / "stopped", STEPS, stop_after=31)
    assert stopped["accuracy"] != whole["accuracy"]
    resumed = scale["train"](tmp_path / "stopped", STEPS)
    chex.assert_trees_all_equal(resumed, whole)
    assert whole["accuracy"] > 0.8

    flips = whole["state"]
    kernel = whole["params"]["layer1"][0]["conv1"]["latent_kernel"]
    state = [x for x in jax.tree.leaves(flips) if x.shape == kernel.shape]
    assert len(state) >= 2  # momentum and flip history
    for array in (kernel, *state):
        assert array.sharding.shard_shape(array.shape)[-1] == kernel.shape[-1] // 2


@pytest.mark.long
def test_the_command_resumes(scale, tmp_path, monkeypatch, capsys):
    for words in (["--stop-after", "50"], []):
        monkeypatch.setattr(
            sys, "argv", ["scale.py", "--folder", str(tmp_path), "--steps", "51", *words]
        )
        scale["main"]()
    said = capsys.readouterr().out
    assert said.count("step 50: loss") == 1
    assert said.count("of the test images") == 2
