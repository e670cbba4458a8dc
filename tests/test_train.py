"""Training runs from the command line to the run folder, on real digits."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_folders import rows
from tiny_data import dataset

from experiments import train
from experiments.config import Config
from experiments.data import load
from experiments.data.augment import PADDING, crop_and_flip, standardise
from experiments.data.batches import feed_of
from experiments.recipes import ABOUT
from experiments.report.html.document import unpacked
from experiments.training.networks import Network
from experiments.training.sharding import MembersApart
from experiments.training.step import Steps, latent_weights, never_flipped

ROOT = Path(__file__).parents[1]
SHORT = ["--epochs", "2", "--seeds", "3", "5", "--batch-size", "64", "--train-images", "320"]


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """A short run of the default job."""
    folder = tmp_path_factory.mktemp("runs") / "digits [/bold]"  # no markup
    assert train.main([*SHORT, "--out", str(folder)]) == 0
    return folder


def test_run_folder_holds_everything(digits_run):
    written = "config.json versions.json metrics.jsonl latent.npz summary.json summary.md"
    written += " network.json report.html"
    folders = {"tensorboard", "figures", "predictions", "histograms", "examples"}
    assert {p.name for p in digits_run.iterdir()} >= {*written.split(), *folders}
    assert unpacked((digits_run / "report.html").read_text())["missing"] == []
    config = json.loads((digits_run / "config.json").read_text())
    assert (config["seeds"], config["epochs"], config["data"]) == ([3, 5], 2, "digits")
    versions = json.loads((digits_run / "versions.json").read_text())
    assert versions["jax"] == jax.__version__
    assert versions["command"].startswith("python -m experiments.train --epochs 2")
    assert list((digits_run / "tensorboard" / "ovsw-seed5").glob("events*"))
    pictures = {p.stem for p in (digits_run / "figures").glob("*.png")}
    assert pictures >= {"headline", "convergence", "flips", "never_flipped"}
    assert "](figures/headline.png)" in (digits_run / "summary.md").read_text()


def test_metrics_have_a_row_for_every_epoch_and_seed(digits_run):
    written = rows(digits_run)
    keys = [(r["optimizer"], r["seed"], r["epoch"], r["step"]) for r in written]
    assert sorted(keys) == sorted(
        (o, s, e, 5 * e) for o in ("sgd", "ovsw") for s in (3, 5) for e in (1, 2)
    )
    for row in written:
        assert 0 <= row["test_top1"] <= 1
        assert 0 < row["never_flipped_ratio"] <= row["silent_ratio"] <= 1
        assert ("rescaled_filter_ratio" in row) == (row["optimizer"] == "ovsw")
        assert len(row["layers"]) == 4
    by_seed = {r["seed"]: r["loss"] for r in written if r["optimizer"] == "sgd"}
    assert by_seed[3] != by_seed[5]


@pytest.mark.long
def test_an_epoch_of_a_single_step_has_a_speed(tmp_path):
    command = ["--epochs", "1", "--seeds", "0", "--optimizers", "sgd", "--train-images", "64"]
    command += ["--network", "tiny_networks:Tiny"]
    assert train.main([*command, "--batch-size", "64", "--out", str(tmp_path / "run")]) == 0
    (row,) = rows(tmp_path / "run")
    assert row["images_per_second"] == pytest.approx(64 / row["seconds"])


def test_masks_in_the_folder_agree_with_the_metrics(digits_run):
    latent = np.load(digits_run / "latent.npz")
    last = [r for r in rows(digits_run) if r["epoch"] == 2 and r["seed"] == 3]
    for row in last:
        for layer, metrics in row["layers"].items():
            mask = latent[f"{row['optimizer']}|{layer}|never_flipped"]
            assert mask.mean() == pytest.approx(metrics["never_flipped_ratio"], abs=1e-6)
    layer = "layer1/0/conv1"  # both optimizers start from the same weights
    assert np.array_equal(latent[f"sgd|{layer}|initial"], latent[f"ovsw|{layer}|initial"])


def tiny_network():
    return Network("tiny_networks:OneStage", 3, (8, 8, 1))


def steps_of(optimizer="ovsw", devices=1, **fields):
    config = Config(batch_size=16, **fields)
    feed = feed_of(dataset(48), config)
    layout = MembersApart(jax.devices()[:devices])
    return Steps(tiny_network(), optimizer, config, feed, layout=layout)


def epoch_of(steps, state, epoch=1):
    """The state that has drawn an order, and a list of the epoch's batches."""
    state, batches = steps.batches(state, [0], epoch)
    return state, list(batches)


@pytest.fixture(scope="module")
def tiny_steps():
    return steps_of()


def test_every_epoch_uses_every_image_once(tiny_steps):
    state, first = epoch_of(tiny_steps, tiny_steps.init([0, 1]))
    _, second = epoch_of(tiny_steps, state)
    assert [step for _, step in first] == [0, 1, 2]
    first, second = first[0][0], second[0][0]
    assert first.shape == (2, 3, 16)
    for order in (first, second):
        for member in (0, 1):
            assert sorted(order[member].ravel().tolist()) == list(range(48))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first[0], first[1])


@pytest.mark.long
def test_seeds_together_are_those_alone(tiny_steps):
    """Of the first step, whose rounding the network has not yet blown up."""
    both, alone = tiny_steps.init([7, 9]), tiny_steps.init([9])
    last = jax.tree.map(lambda x: x[1:], both)
    jax.tree.map(np.testing.assert_array_equal, last._replace(key=()), alone._replace(key=()))
    losses = []
    for state in (both, alone):
        state, batches = epoch_of(tiny_steps, state)
        losses.append(tiny_steps.train_step(state, None, batches[0])[1].loss[-1])
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.05)


def test_evaluation_counts_the_last_partial_batch(tiny_steps, monkeypatch):
    """The share of right answers over all 21 images, whatever the size of a batch."""
    state = tiny_steps.init([0])
    whole = tiny_steps.evaluate(state).metrics["test_top1"]
    monkeypatch.setattr("experiments.data.batches.EVALUATION_BATCH", 8)
    parts = steps_of().evaluate(state).metrics["test_top1"]
    assert whole[0] == parts[0]
    assert whole[0] * 21 == pytest.approx(round(whole[0] * 21))


def test_layers_are_named_as_the_library_names_them(tiny_steps):
    state = tiny_steps.init([0])
    names = set(latent_weights(state.params))
    assert names == set(never_flipped(state.opt_state))
    state, batches = epoch_of(tiny_steps, state)
    state, metrics = tiny_steps.train_step(state, None, batches[0])
    assert names == set(metrics.layers) - {"total"} == set(tiny_steps.standing(state)) - {"total"}


def test_metrics_of_steps_add_up(tiny_steps):
    state, batches = epoch_of(tiny_steps, tiny_steps.init([0]))
    apart = []
    for batch in batches[:2]:
        state, metrics = tiny_steps.train_step(state, None, batch)
        apart.append(metrics)
    state, batches = epoch_of(tiny_steps, tiny_steps.init([0]))
    state, sums = tiny_steps.train_step(state, None, batches[0])
    state, sums = tiny_steps.train_step(state, sums, batches[1])
    expected = jax.tree.map(lambda a, b: np.asarray(a) + np.asarray(b), *apart)
    jax.tree.map(np.testing.assert_array_equal, sums, expected)


class Counted(Steps):
    """Counts how often the step is traced."""

    traced = 0

    def _train_one(self, *arguments):
        self.traced += 1
        return super()._train_one(*arguments)


@pytest.mark.parametrize("devices", [1, 2])
def test_the_steps_of_an_epoch_share_one_program(devices):
    """The sums before the first step lie where those of later ones do."""
    config = Config(batch_size=16)
    layout = MembersApart(jax.devices()[:devices])
    steps = Counted(tiny_network(), "ovsw", config, feed_of(dataset(48), config), layout=layout)
    state, batches = epoch_of(steps, steps.init(range(devices)))
    sums = steps.no_metrics(state)
    for batch in batches:
        state, sums = steps.train_step(state, sums, batch)
    assert steps.traced == 1


def test_crops_shift_and_flip_whole_images():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(64, 6, 7, 2)), jnp.float32)
    cropped = np.asarray(crop_and_flip(jax.random.key(0), images))
    pad = ((PADDING, PADDING), (PADDING, PADDING), (0, 0))
    places = [*itertools.product(range(2 * PADDING + 1), range(2 * PADDING + 1), (1, -1))]
    seen = set()
    for image, result in zip(np.asarray(images), cropped, strict=True):
        padded = np.pad(image, pad)
        seen.add(
            next(
                (i, j, step)
                for i, j, step in places
                if np.array_equal(padded[i : i + 6, j : j + 7][:, ::step], result)
            )
        )
    assert len(seen) > 40
    rows, columns = ({place[axis] for place in seen} for axis in (0, 1))
    assert rows == columns == set(range(2 * PADDING + 1))
    assert {step for _, _, step in seen} == {1, -1}


def test_standardised_training_images_have_unit_deviation():
    digits = load("digits")
    x = standardise(jnp.asarray(digits.train_images), digits.mean, digits.std)
    assert float(x.mean()) == pytest.approx(0, abs=1e-3)
    assert float(x.std()) == pytest.approx(1, abs=1e-3)


def test_every_recipe_states_command_cost_and_data():
    for name, about in ABOUT.items():
        command = "python -m experiments.train" + f" {name}" * (name != "digits")
        assert all(text in about for text in (command, "\nData:", "\nCost:", "\nExpected:"))


def test_the_help_of_a_recipe_is_about_it(capsys):
    with pytest.raises(SystemExit):
        train.read(["gamma", "--help"])
    assert "96 trainings; 30 minutes on two CPU cores" in capsys.readouterr().out


BAD_COMMANDS = {
    r"recipe 'digit' is unknown. Did you mean 'digits'\?": ["digit"],
    r"network 'resnet2' is unknown. Did you mean 'resnet20'": ["--network", "resnet2"],
    r"optimizer 'osw' is unknown. Did you mean 'ovsw'": ["--optimizers", "sgd", "osw"],
    r"'digit'": ["--data", "digit"],
    r"epochs=0 is out of range: it must be at least 1": ["--epochs", "0"],
    r"seeds=\(1, 1\) is out of range.*different": ["--seeds", "1", "1"],
    r"learning_rate=nan is out of range": ["--learning-rate", "nan"],
    r"lam=-1 is out of range: it must be finite and >= 0": ["--lam", "-1"],
    r"threshold=0.5 can never be reached": ["--threshold", "0.5"],
    r"batch_size=2000 is more than the 1437 training images": ["--batch-size", "2000"],
    r"momentum=0.9999 .* packed state cannot hold": [
        *("--flip-momentum", "0.9999", "--threshold", "1e-5")
    ],
}


@pytest.mark.parametrize("message", BAD_COMMANDS)
def test_bad_commands_end_with_an_explanation(message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        status = train.main(BAD_COMMANDS[message])
    except SystemExit as stopped:  # tyro reports what the Config itself refuses
        status = stopped.code
    assert status == 2
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "Traceback" not in error
    assert re.search(message, error), error
    assert not list(tmp_path.iterdir())  # nothing was begun


def test_a_run_is_never_overwritten(digits_run, capsys):
    before = (digits_run / "metrics.jsonl").read_bytes()
    assert train.main([*SHORT, "--epochs", "3", "--out", str(digits_run)]) == 2
    said = "holds another run; a run never overwrites another: epochs is 2 there and 3 here"
    assert said in capsys.readouterr().err
    assert (digits_run / "metrics.jsonl").read_bytes() == before


@pytest.mark.long
def test_ctrl_c_writes_what_was_measured(tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "experiments.train", "--epochs", "10000", "--out", str(folder)),
            *("--optimizers", "sgd", "--seeds", "0", "--network", "tiny_networks:Tiny"),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests"), "JAX_PLATFORMS": "cpu"},
    )
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert "interrupted; writing what was measured so far" in output
    summary = json.loads((folder / "summary.json").read_text())
    assert not summary["sgd"]["finished"]
    assert summary["sgd"]["epochs"] >= 1
    assert (folder / "figures" / "headline.png").stat().st_size > 10_000
    assert any(k.endswith("never_flipped") for k in np.load(folder / "latent.npz"))
