"""Sweeps: members in one program are the runs they stand for, and a stopped sweep goes on."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import chex
import jax
import numpy as np
import pytest
from longer import long_but
from rich.console import Console
from run_folders import untimed

import ovsw_jax as ovsw
from experiments import train
from experiments.config import Config
from experiments.data import load
from experiments.data.batches import feed_of
from experiments.report.progress import Bars
from experiments.run.checkpoint import Checkpoints
from experiments.run.folder import RunFolder
from experiments.sweep.members import Member
from experiments.training.devices import members_that_fit
from experiments.training.initialisation import initialise_latent
from experiments.training.loop import Training
from experiments.training.networks import Network
from experiments.training.sharding import MembersApart
from experiments.training.step import Steps, latent_weights

ROOT = Path(__file__).parents[1]
SWEEP = Config(
    train_images=64,
    batch_size=32,
    epochs=3,
    evaluate_every=2,
    seeds=(0, 1),
    members_at_once=2,
    grids=("optimizer=ovsw lam=0.01,0.08", "optimizer=sgd"),
    network="tiny_networks:Tiny",
)


@pytest.fixture(scope="module")
def digits():
    return load("digits", train_images=64)


@pytest.fixture(scope="module")
def network():
    return Network("tiny_networks:Tiny", 10, (8, 8, 1))


def one_step(network, digits, optimizer, config, values=None, members=1, devices=1):
    """Parameters and optimizer state of each member after the first step."""
    feed = feed_of(digits, config)
    layout = MembersApart(jax.devices()[:devices])
    steps = Steps(network, optimizer, config, feed, layout=layout)
    placed = steps.place(values or {})
    state = steps.init([0] * members, placed)
    state, batches = steps.batches(state, [0], 1)
    state, _ = steps.train_step(state, None, next(batches), placed)
    return jax.device_get((state.params, ovsw.never_flipped_mask(state.opt_state)))


VARIED = {
    "sgd": {"learning_rate": 0.3, "momentum": 0.5, "weight_decay": 0.01, "init_scale": 10.0},
    "adam": {"adam_learning_rate": 0.02},
    "lars": {"eta": 0.5, "learning_rate": 0.3, "momentum": 0.5, "weight_decay": 0.01},
    "bop": {"bop_threshold": 1e-3, "bop_adaptivity": 0.1, "adam_learning_rate": 0.02},
    "ovsw": {"lam": 0.5, "tau": 0.5, "threshold": 5e-4, "flip_momentum": 0.99},  # ags and sad, too
}


@pytest.mark.parametrize("optimizer", long_but(VARIED, "ovsw"))
def test_a_member_is_the_run_it_stands_for(optimizer, network, digits):
    """Values that are traced, one of several, do what they do as numbers of the config."""
    config = Config(batch_size=32)
    values = VARIED[optimizer]
    swept = {name: [getattr(config, name), value] for name, value in values.items()}
    both = one_step(network, digits, optimizer, config, swept, members=2)
    expected = one_step(network, digits, optimizer, config.at(values))
    second = jax.tree.map(lambda x: x[1:], both)
    chex.assert_trees_all_close(second, expected, rtol=2e-3, atol=2e-4)
    params = both[0]["conv"]["latent_kernel"]
    assert np.abs(params[0] - params[1]).max() > 1e-4  # the values matter


@pytest.mark.long
def test_devices_change_nothing_but_rounding(network, digits):
    config, values = Config(batch_size=32), {"lam": [0.01, 0.02, 0.04, 0.08]}
    one, four = (
        one_step(network, digits, "ovsw", config, values, members=4, devices=d) for d in (1, 4)
    )
    chex.assert_trees_all_close(one, four, rtol=2e-3, atol=2e-4)


def rows(folder):
    """metrics.jsonl without what is timed, sorted by member and epoch."""
    return sorted(
        untimed(folder),
        key=lambda r: (r["optimizer"], sorted(r["point"].items()), r["seed"], r["epoch"]),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A sweep that was never stopped."""
    folder = tmp_path_factory.mktemp("sweep") / "whole"
    path, finished, _ = train.train(SWEEP.at({"out": folder}))
    assert finished
    return path


@pytest.mark.long
def test_every_member_has_every_epoch(whole):
    assert [(r["optimizer"], r["point"], r["seed"], r["epoch"]) for r in rows(whole)] == [
        *(("ovsw", {"lam": lam}, s, e) for lam in (0.01, 0.08) for s in (0, 1) for e in (1, 2, 3)),
        *(("sgd", {}, s, e) for s in (0, 1) for e in (1, 2, 3)),
    ]
    assert {r["epoch"] for r in rows(whole) if "test_top1" in r} == {2, 3}
    assert not (whole / "checkpoints").exists()


def interrupted(tmp_path, monkeypatch, epochs=2):
    """The folder of a sweep that was stopped after so many epochs of its members."""
    written, done = Training._write, []

    def stop(self, *arguments):
        if len(done) == epochs:
            raise KeyboardInterrupt
        done.append(1)
        written(self, *arguments)

    with monkeypatch.context() as stopping:
        stopping.setattr(Training, "_write", stop)
        config = SWEEP.at({"out": tmp_path / "run", "checkpoint_seconds": 0.0})
        assert train.train(config)[1] is False
    return tmp_path / "run"


@pytest.mark.parametrize("epochs_before", long_but([1, 4], 4))
def test_a_stopped_sweep_goes_on_where_it_was(epochs_before, whole, tmp_path, monkeypatch):
    """At an epoch of the first members or of later ones: the same numbers, none twice."""
    folder, written, trained = (
        interrupted(tmp_path, monkeypatch, epochs_before),
        Training._write,
        [],
    )
    monkeypatch.setattr(
        Training, "_write", lambda self, e, *rest: trained.append(e) or written(self, e, *rest)
    )
    assert train.train(SWEEP.at({"out": folder}))[1] is True
    assert len(trained) == 9 - epochs_before  # three pairs of members, three epochs each
    assert rows(folder) == rows(whole)
    versions = json.loads((folder / "versions.json").read_text())
    assert [v["jax"] for v in versions["continued"]] == [jax.__version__]


def test_a_finished_sweep_trains_nothing_again(whole, monkeypatch):
    before = (whole / "metrics.jsonl").read_bytes()
    monkeypatch.setattr(Training, "run", None)
    assert train.train(SWEEP.at({"out": whole, "members_at_once": 1}))[1]
    assert (whole / "metrics.jsonl").read_bytes() == before


def run_with(text, whole, folder):
    """A folder of the sweep that holds no more than these rows."""
    folder.mkdir()
    shutil.copy(whole / "config.json", folder)
    (folder / "metrics.jsonl").write_text(text)
    return folder


def test_a_last_line_that_was_cut_off_is_trained_again(whole, tmp_path):
    folder = run_with((whole / "metrics.jsonl").read_text()[:-20], whole, tmp_path / "run")
    assert train.train(SWEEP.at({"out": folder}))[1]
    assert rows(folder) == rows(whole)


@pytest.mark.parametrize("change", [{}, {"epoch": "1"}, {"epoch": 1.5}, {"seed": True}])
def test_a_broken_line_is_named(whole, tmp_path, change):
    first = json.dumps(rows(whole)[0] | change) if change else '{"optimizer": '
    folder = run_with(f"{first}\n{{}}\n", whole, tmp_path / "run")
    with pytest.raises(ValueError, match=r"line 1 of .*metrics.jsonl is no row.*another --out"):
        train.train(SWEEP.at({"out": folder}))


@pytest.mark.long
def test_rows_that_a_checkpoint_lacks_begin_anew_and_are_kept(whole, tmp_path, monkeypatch, capsys):
    folder = interrupted(tmp_path, monkeypatch)
    shutil.rmtree(folder / "checkpoints")
    before = len(rows(folder))
    assert train.train(SWEEP.at({"out": folder}))[1]
    assert "resuming after epoch 0 of 3; 4 rows are measured again" in " ".join(
        capsys.readouterr().out.split()
    )
    assert len((folder / "metrics.dropped.jsonl").read_text().splitlines()) == before == 4
    assert rows(folder) == rows(whole)


@pytest.mark.long
def test_a_checkpoint_without_its_rows_begins_anew(whole, tmp_path, monkeypatch, capsys):
    folder = interrupted(tmp_path, monkeypatch)
    (folder / "metrics.jsonl").write_text("")
    assert train.train(SWEEP.at({"out": folder}))[1]
    said, unused = " ".join(capsys.readouterr().out.split()), folder / "checkpoints.unused"
    assert "the checkpoint is not of the next members" in said
    assert f"It is now {unused}; the unfinished trainings start again" in said
    assert Checkpoints(unused).numbers()
    assert rows(folder) == rows(whole)


@pytest.mark.long
def test_a_checkpoint_of_what_is_done_just_goes(whole, tmp_path, monkeypatch, capsys):
    """A kill came between the last rows of the first members and the removal of it."""
    folder = interrupted(tmp_path, monkeypatch)

    def stop(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "remove", stop)
        assert train.train(SWEEP.at({"out": folder}))[1] is False
    assert Checkpoints(folder / "checkpoints").numbers()
    assert train.train(SWEEP.at({"out": folder}))[1]
    assert "the checkpoint is not of" not in capsys.readouterr().out
    assert not list(folder.glob("checkpoints*"))
    assert rows(folder) == rows(whole)


def test_a_folder_that_is_written_to_is_left_alone(whole):
    open_run = RunFolder(SWEEP.at({"out": whole}))
    with pytest.raises(ValueError, match=r"another process is writing to .*another --out"):
        RunFolder(SWEEP.at({"out": whole}))
    open_run.close()
    RunFolder(SWEEP.at({"out": whole})).close()


DAMAGED = {
    "config.json": (b'{"a": ' * 100_000, r"config.json is no JSON object .*another --out"),
    "versions.json": (b"\xff", r"versions.json is no JSON object .*another --out"),
    "latent.npz": (b"PK nothing", r"latent.npz is damaged .*Remove it"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_named_and_nothing_is_lost(name, whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    some = b"".join((whole / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:4])
    (folder / "metrics.jsonl").write_bytes(some)
    content, message = DAMAGED[name]
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        train.train(SWEEP.at({"out": folder}))
    assert (folder / "metrics.jsonl").read_bytes() == some


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_initial_weights_of_another_scale(distribution, network):
    params = jax.tree.map(lambda x: x[0], network.init(jax.random.split(jax.random.key(0), 1))[0])
    gamma = 0.01
    made = initialise_latent(params, jax.random.key(1), distribution, gamma, network.axes)
    for name, weight in latent_weights(made).items():
        fan_in = np.prod(weight.shape[:-1])
        assert float(weight.std()) == pytest.approx(gamma * np.sqrt(2 / fan_in), rel=0.12), name
        bound = gamma * np.sqrt(6 / fan_in)
        inside = float(np.mean(np.abs(weight) <= bound))
        assert inside == 1 if distribution == "uniform" else 0.85 < inside < 0.97
    after = dict(jax.tree.leaves_with_path(made))
    for path, leaf in jax.tree.leaves_with_path(params):
        assert (leaf is after[path]) == ("latent_kernel" not in str(path))


def test_too_many_held_out_images():
    for count in (1437, 1400):
        with pytest.raises(ValueError, match=rf"held_out={count:,} and .* lower held_out"):
            load("digits", train_images=None if count == 1437 else 100, held_out=count)


def test_a_core_is_a_device():
    code = "import jax; from experiments.training.devices import one_device_a_core;"
    code += "one_device_a_core(); one_device_a_core(); print(len(jax.devices()))"
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == os.cpu_count()


def test_a_sweep_shows_one_bar_that_fits_80_columns():
    """Beside two members that were done before, two and then one train together."""
    numbers = {"loss": 2.345, "top1": 0.456, "images_per_second": 12345.0}
    numbers |= {"flip_ratio": 0.0012, "silent_ratio": 1.0}
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system=None)
    config, plan = Config(epochs=3, warmup_epochs=0), [(0, 2), (0, 1)]
    with Bars(console, config, plan, sweep=True, done=2) as bars:
        for _, count in plan:
            members = [Member("ovsw", {}, seed) for seed in range(count)]
            steps = SimpleNamespace(steps_per_epoch=7)
            together = SimpleNamespace(steps=steps, members=members, count=count)
            with bars.training(together):
                for epoch in (1, 2, 3):
                    bars.step(7 * epoch - 3, numbers)
                    bars.epoch(epoch, numbers)
        (bar,) = bars._progress.tasks
        assert (bar.completed, bar.total) == (5 * 21, 5 * 21)
    shown = screen.getvalue()
    assert "5/5 " in shown
    assert "silent 100.0%" in shown
    assert "…" not in shown


@pytest.mark.long
def test_an_accelerator_takes_as_many_members_as_its_memory_holds(network, digits):
    config = Config(batch_size=32)
    steps = Steps(network, "ovsw", config, feed_of(digits, config))
    values = steps.place({"lam": [0.04]})
    one = steps.bytes_a_member(values)
    params = jax.eval_shape(steps.init, [0], values).params
    assert one > 2 * sum(4 * p.size for p in jax.tree.leaves(params))

    def gpu(limit):
        return SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": limit})

    assert members_that_fit(steps, values, [gpu(10 * one)] * 3) == 3 * 8
    assert members_that_fit(steps, values, [gpu(0)]) == 1
    assert members_that_fit(steps, values, jax.devices()[:2]) == 2
