"""Experiments inspect at each epoch: rows, warnings, and trainings that stay the same."""

import io
import json

import jax
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

import ovsw_jax as ovsw
from experiments.config import Config
from experiments.train import train
from experiments.training.step import Steps

SAME = ("loss", "train_top1", "test_top1", "flip_ratio", "silent_ratio", "epoch_flip_ratio")


class Behind(nnx.Module):
    """A binary convolution behind a function."""

    function = staticmethod(ovsw.nn.hardtanh)

    def __init__(self, classes, *, in_channels, rngs):
        self.stem = nnx.Conv(in_channels, 8, (3, 3), strides=4, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.conv = ovsw.nn.BinaryConv(8, 8, (3, 3), rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(8, classes, rngs=rngs)

    def __call__(self, x):
        x = self.conv(self.function(self.norm(self.stem(x))))
        return self.head(self.dropout(x).mean((1, 2)))


class BehindRelu(Behind):
    function = staticmethod(nnx.relu)


class Divided(Behind):
    """Which can be trained, but not inspected."""

    def __call__(self, x):
        mesh = jax.make_mesh((1,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
        spec = jax.sharding.PartitionSpec()
        conv = jax.shard_map(self.conv, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
        x = conv(self.function(self.norm(self.stem(x))))
        return self.head(self.dropout(x).mean((1, 2)))


def run(folder, network, seeds=(0, 1)):
    config = Config(
        network=f"{__name__}:{network}",
        optimizers=("sgd",),
        seeds=seeds,
        epochs=2,
        train_images=256,
        members_at_once=len(seeds),
        out=folder,
    )
    console = Console(file=io.StringIO(), width=200)
    train(config, console)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return rows, console.file.getvalue()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "run"
    return (*run(folder, "Behind"), folder)


def test_rows_hold_the_measures_of_each_layer(plain):
    rows, printed, _ = plain
    assert len(rows) == 4
    for row in rows:
        layer = row["layers"]["conv"]
        assert 0.3 < layer["positive_input_ratio"] < 0.7
        assert layer["nonfinite_inputs"] == 0
        assert "flip_ratio" in layer
        assert "positive_input_ratio" not in row
    assert "warning" not in printed


def test_trainings_are_the_same_without_it(plain, tmp_path, monkeypatch):
    def fail(self, state):
        raise ValueError("no")

    monkeypatch.setattr(Steps, "inspect", fail)
    rows, printed = run(tmp_path / "run", "Behind")
    assert "warning: layers: can't be inspected: no" in printed
    for with_it, without in zip(plain[0], rows, strict=True):
        assert all(with_it[name] == without[name] for name in SAME)
        kept = without["layers"]["conv"]
        assert kept == {name: with_it["layers"]["conv"][name] for name in kept}
    for file in sorted((tmp_path / "run" / "weights").iterdir()):
        with np.load(file) as there, np.load(plain[2] / "weights" / file.name) as here:
            for name in there.files:
                np.testing.assert_array_equal(there[name], here[name])


def test_the_first_epoch_warns_once_of_layer_and_remedy(tmp_path):
    rows, printed = run(tmp_path / "run", "BehindRelu")
    assert rows[0]["layers"]["conv"]["positive_input_ratio"] == 1
    warnings = [line for line in printed.splitlines() if line.startswith("warning")]
    (line,) = warnings
    assert line.startswith("warning: conv: every input sign is +1, since no input is negative. Put")
    assert "hardtanh" in line
    assert printed.index("warning") < printed.index("epoch 1/2")


def test_a_network_that_can_not_be_inspected_is_trained(tmp_path):
    rows, printed = run(tmp_path / "run", "Divided", seeds=(0,))
    assert len(rows) == 2
    assert "positive_input_ratio" not in rows[0]["layers"]["conv"]
    assert "can't be inspected: a layer is called within shard_map" in printed
