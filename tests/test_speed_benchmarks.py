"""The benchmarks of speed in their quick form: what they measure is there; times are not judged."""

import doctest
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib.image import imread

import ovsw_jax as ovsw
from benchmarks import (
    __main__,
    growth,
    growth_figure,
    inference,
    jax_step,
    measuring,
    optimizer_step,
    stepper,
    sweep,
    training_step,
    worker,
)

ONE = "1.00 (1.00 to 1.00)"


def table(out):
    """Rows of the last Markdown table that was printed, as lists of cells."""
    last = [block for block in out.split("\n\n") if block.startswith("|")][-1]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in last.splitlines()]
    assert len({len(row) for row in rows}) == 1
    return rows[2:]


@pytest.mark.parametrize("module", [measuring, growth_figure])
def test_examples(module):
    result = doctest.testmod(module)
    assert (result.attempted > 0, result.failed) == (True, 0)


def test_environment_names_no_place(monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "/opt/secret/libfast.so:/usr/lib/libother.so")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    monkeypatch.setenv("UNRELATED", "1")
    found = measuring.environment()
    assert found["variables"]["LD_PRELOAD"] == "libfast.so:libother.so"
    assert found["variables"]["MALLOC_ARENA_MAX"] == "1"
    assert "UNRELATED" not in found["variables"]
    assert found["versions"]["jax"] == jax.__version__
    assert found["cores"] >= 1


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: optimizer_step.main(repeats=0), "--repeats 0 measures nothing"),
        (lambda: optimizer_step.main("small", flips=1.5), r"--flips 1.5 is no share"),
        (lambda: training_step.main(repeats=-1), "--repeats -1 measures nothing"),
        (lambda: training_step.main(batch_size=0), "--batch-size 0 measures nothing"),
        (lambda: training_step.main(peers=("jax",)), "--peers jax: give one or more of torch-sgd"),
        (lambda: training_step.main(peers=()), "--peers : give one or more of"),
        (lambda: growth.main(largest=10), "--largest 10 leaves nothing: .* 100,000"),
        (lambda: growth.main(most_kernels=2), "--most-kernels 2 leaves nothing: 10 are fewest"),
        (lambda: sweep.main(epochs=0), "--epochs 0 measures nothing"),
    ],
)
def test_bad_arguments(run, message):
    with pytest.raises(ValueError, match=message):
        run()


@pytest.mark.long
def test_one_command_measures_optimizers(tmp_path):
    command = [sys.executable, "-m", "benchmarks"]
    done = subprocess.run(
        [*command, "--quick", "--only", "optimizer_step", "--out", str(tmp_path / "new")],
        cwd=pathlib.Path(__file__).parents[1],
        env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("## optimizer_step\n")
    rows = {row[0]: row for row in table(done.stdout)}
    assert list(rows) == list(optimizer_step.OPTIMIZERS)
    assert rows["SGD"][1] == ONE
    written = json.loads((tmp_path / "new" / "optimizer_step.json").read_text())
    latent = written["latent_weights"]
    extra = {"SGD": 0, "OvSW, literal": 8, "OvSW, EMA": 4, "OvSW, packed": 2}
    for name, of in written["optimizers"].items():
        assert len(of["seconds"]) == 3
        assert min(of["seconds"]) > 0
        beyond = of["state_bytes"] - written["optimizers"]["SGD"]["state_bytes"]
        assert beyond / latent == pytest.approx(extra.get(name, beyond / latent), abs=0.02)


@pytest.mark.parametrize("flips", [0.0, 0.01, 1.0])
def test_as_many_flip_as_asked(flips):
    rng = np.random.default_rng(0)
    params = {"latent_kernel": rng.normal(size=(300, 100)), "bias": rng.normal(size=100)}
    params = jax.tree.map(jnp.float32, params)
    tx = optax.chain(ovsw.track_flip_state(), optax.sgd(1e-4))
    of = stepper.Stepper(tx, params, stepper.small_gradients(params), flips=flips)
    for steps in (1, 3, 2):  # the turn goes on from one measurement to the next
        of.measure(steps)
        ratio = ovsw.flip_metrics(of._state)["total"]["flip_ratio"]
        assert ratio == pytest.approx(flips, abs=0.003)
    np.testing.assert_allclose(of._copies[0]["bias"], params["bias"], rtol=1e-3)


@pytest.mark.long
def test_growth(capsys, tmp_path):
    growth.main(tmp_path, quick=True)
    assert [row[0] for row in table(capsys.readouterr().out)] == ["2", "4"]
    written = json.loads((tmp_path / "growth.json").read_text())
    weights, kernels = written["series"]["weights"], written["series"]["kernels"]
    assert [point["weights"] for point in weights] == [4 * 9 * 17**2, 4 * 9 * 53**2]
    assert [point["kernels"] for point in kernels] == [2, 4]
    for point in weights + kernels:
        assert tuple(point["optimizers"]) == growth.NAMES
        for of in point["optimizers"].values():
            assert len(of["seconds"]) == 2
        state = {name: of["state_bytes"] for name, of in point["optimizers"].items()}
        assert state["SGD"] == 4 * point["weights"]
        assert state["SGD"] < state["OvSW, packed"] < state["OvSW, EMA"]
    height, width, _ = imread(tmp_path / "growth.png").shape
    assert min(height, width) > 600


class StandIn:
    """A worker that measures 0.1 s, then 0.2 s, and so on, and counts what is asked of it."""

    asked: list = []  # noqa: RUF012  # of all workers, in order

    def __init__(self, module, settings, variables):
        self.module, self.settings, self.variables = module, settings, variables
        self.info = {"first_step_seconds": 1.0}
        if module == "benchmarks.jax_step":
            self.info |= {"temporary_bytes": 2e6, "kept_bytes": 3e6}
        self._measured = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def measure(self, steps):
        self.asked.append((self.settings, self.variables, steps))
        self._measured += 1
        slower = 2 if self.settings.get("optimizer") == "ovsw" else 1
        return 0.1 * self._measured * slower


@pytest.mark.parametrize("torch", [True, False])
def test_training_step_of_all_peers(torch, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if torch else None)
    monkeypatch.setattr(training_step, "Worker", StandIn)
    monkeypatch.setattr(StandIn, "asked", [])
    file = tmp_path / "training_step.json"
    training_step.main(("resnet20", "small"), repeats=3, json_file=file)
    out = capsys.readouterr().out
    expected = [p for p in training_step.PEERS.values() if torch or "torch" not in p.module]
    rows = table(out)
    assert [row[0] for row in rows] == [peer.name for peer in expected]
    assert rows[0][2] == ONE
    assert {row[3] for row in rows if "OvSW" in row[0] and row[3]} == {"50.0 (50.0 to 50.0)"}
    assert ("pip install -e '.[torch]'" in out) is not torch
    assert "PyTorch, OvSW, memory kept" in out
    written = json.loads(file.read_text())
    assert written["networks"]["resnet20"]["batch_size"] == 128
    peers = written["networks"]["small"]["peers"]
    assert peers["ovsw"]["seconds"] == pytest.approx([0.6, 0.8, 1.0])
    # In turns: as many measurements of each, and never two of one peer in a row.
    turns = StandIn.asked[-3 * len(expected) :]
    assert turns[: len(expected)] == turns[len(expected) : 2 * len(expected)]
    assert len({id(settings) for settings, _, _ in turns}) == len(expected)


def test_only_pytorch_without_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"PyTorch, SGD need PyTorch: pip install"):
        training_step.main(peers=("torch-sgd",))


@pytest.mark.long
def test_real_workers(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    file = tmp_path / "training_step.json"
    keys = ("torch-ovsw", "plain-sgd", "ovsw-metrics")
    training_step.main((), 2, keys, "bfloat16", quick=True, json_file=file)
    peers = json.loads(file.read_text())["networks"]["small"]["peers"]
    without = importlib.util.find_spec("torch") is None
    assert list(peers) == list(keys[1:] if without else keys)
    for of in peers.values():
        assert len(of["seconds"]) == 2
        assert min(of["seconds"]) > 0
        assert of["kept_bytes"] > 2 * 2 * 32 * 32 * 16  # one of the activations


def test_kept_bytes():
    def loss(params, x):
        hidden = jnp.sin(x @ params)  # keeps cos of (4, 3), and x, an argument
        return jnp.sum(hidden * hidden), None  # keeps (4, 3)

    kept = jax_step.residual_bytes(loss, jnp.ones((5, 3)), jnp.ones((4, 5)))
    assert kept == 2 * 4 * (4 * 3)


def test_a_worker_that_fails(capfd):
    with pytest.raises(RuntimeError, match=r"benchmarks.jax_step ended with exit code 1"):
        worker.Worker("benchmarks.jax_step", {"network": "none", "batch_size": 1}, {})
    assert "KeyError: 'none'" in capfd.readouterr().err


def test_sweep(monkeypatch, capsys, tmp_path):
    trained = []
    monkeypatch.setattr(sweep, "_train", lambda *run: trained.append(run))
    file = tmp_path / "sweep.json"
    sweep.main(repeats=2, epochs=3, json_file=file)
    rows = table(capsys.readouterr().out)
    assert [row[0] for row in rows] == [sweep.SEPARATE, *sweep.TOGETHER]
    assert rows[0][1] == ONE
    separate = [((value,), 3, "1") for value in sweep.LAM]
    assert trained == 2 * [*separate, (sweep.LAM, 3, "None"), (sweep.LAM, 3, "8")]
    assert [len(s) for s in json.loads(file.read_text())["seconds"].values()] == [2] * 3


@pytest.fixture
def modules_run(monkeypatch):
    """Commands that would be run, by what they say; the module `sweep` fails."""
    commands = []

    def run(command, **_):
        commands.append(command[1:])
        name = command[2].removeprefix("benchmarks.")
        where = command[4] if command[3] == "--json-file" else f"{command[4]}/growth.json"
        if name == "sweep":
            return subprocess.CompletedProcess(command, 3)
        with open(where, "w") as file:
            json.dump({"benchmark": name}, file)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(__main__.subprocess, "run", run)
    return commands


def test_all_into_a_folder(modules_run, capsys, tmp_path):
    assert __main__.main(out=tmp_path / "speed") == ["sweep"]
    assert [command[1] for command in modules_run] == [f"benchmarks.{n}" for n in __main__.NAMES]
    assert all("--quick" not in command for command in modules_run)
    assert {file.stem for file in (tmp_path / "speed").iterdir()} == {*__main__.NAMES} - {"sweep"}
    assert "sweep failed with exit code 3" in capsys.readouterr().out


def test_some_into_a_file(modules_run, tmp_path):
    file = tmp_path / "speed.json"
    assert __main__.main(("growth", "optimizer_step"), quick=True, out=file) == []
    assert all(command[-1] == "--quick" for command in modules_run)
    assert list(json.loads(file.read_text())) == ["growth", "optimizer_step"]
    assert [f.name for f in tmp_path.iterdir()] == ["speed.json"]


@pytest.mark.long
def test_inference_in_several_ways(capsys, tmp_path):
    ways = ("onnxruntime-float", "onnxruntime-int8", "jax-float", "jax", "jax-frozen")
    inference.main(ways=ways, quick=True, json_file=tmp_path / "found.json")
    rows = table(capsys.readouterr().out)
    assert [row[0] for row in rows] == [inference.NAMES[way] for way in ways]
    assert rows[0][2] == ONE
    (measured,) = json.loads((tmp_path / "found.json").read_text())["measured"]
    assert {len(seconds) for seconds in measured["seconds"].values()} == {2}
    assert measured["left_out"] == {}


def test_inference_of_an_unknown_way():
    with pytest.raises(ValueError, match="--ways torch: give some of onnxruntime-float"):
        inference.main(ways=("torch",), quick=True)
