"""The silence horizon beside the steps that were run: in tables, figures and TensorBoard."""

import jax.numpy as jnp
import numpy as np
import pytest
import synthetic_run
import synthetic_sweep
from hypothesis import given
from hypothesis import strategies as st
from tensorboardX.proto.event_pb2 import Event

import ovsw_jax as ovsw
from experiments.config import Config
from experiments.figures import flips
from experiments.report import summary
from experiments.run.folder import RunFolder
from experiments.run.reader import read_run
from experiments.run.silence import Silence, horizon, of_arm, sentences

FLIP_STATE = {"flip_momentum": 0.999, "threshold": 1e-4}  # a horizon of 2,302 steps
STEPS = 22  # of an epoch of the made-up run


@given(
    signs=st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=9),
    longer=st.integers(0, 3),
)
def test_up_to_the_horizon_silent_is_never_flipped(signs, longer):
    """Whatever flips: that is what the sentence claims."""
    steps = len(signs)
    threshold = ovsw.threshold_for_horizon(0.9, steps + longer)
    tx = ovsw.track_flip_state(momentum=0.9, threshold=threshold, state="ema")
    weights = [{"latent_kernel": jnp.where(jnp.array(row), 1.0, -1.0)} for row in signs]
    state = tx.init(weights[0])
    for params in weights:
        _, state = tx.update(params, state, params)
    assert Silence(horizon(0.9, threshold), steps).is_trivial
    silent, never = (f(state)["latent_kernel"] for f in (ovsw.silent_mask, ovsw.never_flipped_mask))
    np.testing.assert_array_equal(silent, never)


@given(momentum=st.floats(0.99, 0.9995), steps=st.integers(1, 9000))
def test_the_horizon_is_that_of_the_library(momentum, steps):
    threshold = ovsw.threshold_for_horizon(momentum, steps)
    assert horizon(momentum, threshold) == ovsw.silence_horizon(momentum, threshold) == steps


@pytest.mark.parametrize(("epochs", "trivial"), [(104, True), (105, False)])
def test_table_page_and_json_show_both(tmp_path, epochs, trivial):
    folder = synthetic_run.write_run(
        tmp_path / "run", epochs=epochs, seeds=(0,), latents=False, **FLIP_STATE
    )
    written = summary.write_summary(folder)
    steps = STEPS * epochs
    assert (written["sgd"]["silence_horizon"], written["sgd"]["steps"]) == (2302, steps)
    page = (folder / "summary.md").read_text()
    assert f"Silence horizon: 2,302 steps; steps run: {steps:,}." in page
    assert ("silent equals never flipped by construction" in page) is trivial


def test_the_figure_of_flips_shows_both(tmp_path):
    folder = synthetic_run.write_run(tmp_path / "run", epochs=3, **FLIP_STATE)
    shown = flips.figure(read_run(folder)).get_supxlabel()
    assert shown.startswith("Silence horizon: 2,302 steps; steps run: 66.")


def test_settings_of_a_sweep_have_horizons_of_their_own(tmp_path):
    grids = ("optimizer=ovsw threshold=0.0009905,0.0001",)
    folder = synthetic_sweep.write_sweep(tmp_path / "run", grids, epochs=5, **FLIP_STATE)
    run = read_run(folder)
    found = [of_arm(run, arm) for arm in run.arms]
    assert [silence.horizon for silence in found] == [10, 2302]
    assert sentences(found).startswith("Silence horizon: 10 to 2,302 steps; steps run: ")
    assert sentences(found).endswith("by construction in 1 of 2 settings.")


@pytest.mark.parametrize(
    "config", [{}, {"flip_momentum": "x", "threshold": 1}, {"flip_momentum": 1, "threshold": 1e-4}]
)
def test_a_run_that_does_not_say_its_horizon(tmp_path, config):
    folder = synthetic_run.write_run(tmp_path / "run", epochs=2, seeds=(0,), **config)
    written = summary.write_summary(folder)
    assert "silence_horizon" not in written["sgd"]
    assert "Silence horizon" not in (folder / "summary.md").read_text()


def test_tensorboard_has_the_horizon_and_describes_the_silent_share(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(
        "experiments.run.events.EventFile._write", lambda self, event: events.append(event)
    )
    layer = {"silent_ratio": 0.5, "flip_ratio": 0.1}
    row = {"optimizer": "ovsw", "seed": 0, "epoch": 1, "step": 7, "loss": 1.0, **layer}
    rows = [row | {"point": {"threshold": t}, "layers": {"conv": layer}} for t in (1e-4, 9.905e-4)]
    with RunFolder(Config(out=tmp_path / "run")) as run:
        for _ in range(2):
            run.write_metrics(rows)
    values = [v for event in events if isinstance(event, Event) for v in event.summary.value]
    horizons = [v.simple_value for v in values if v.tag == "silence_horizon"]
    assert horizons == [2302, 10, 2302, 10]
    described = {v.tag for v in values if "2,302 steps" in v.metadata.summary_description}
    assert described == {"silent_ratio", "silent_ratio/conv"}
    assert all("silence_horizon" not in row for row in synthetic_run.read_rows(tmp_path / "run"))
