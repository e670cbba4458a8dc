"""Steps with numbers that are not finite are skipped, counted, and in the end stop the run."""

import contextlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from longer import long_but
from run_folders import rows
from tiny_data import Spoilt, dataset
from tiny_networks import Tiny

from experiments import train
from experiments.config import Config
from experiments.data.batches import feed_of
from experiments.report.progress import describe
from experiments.training.losses import cross_entropy
from experiments.training.networks import Network
from experiments.training.skipping import look_at, name_wrong, no_skips
from experiments.training.step import Steps

STEPS = 4


@pytest.fixture(scope="module")
def network():
    return Network("tiny_networks:Tiny", 3, (8, 8, 1))


def spoilt(network, *, bad=(0,), optimizer="ovsw", **fields):
    config = Config(batch_size=16, **fields)
    return Spoilt(network, optimizer, config, feed_of(dataset(16 * STEPS, bad=bad), config))


def host(tree):
    return jax.tree.map(np.asarray, tree)


def kept(state):
    return host((state.params, state.statistics, state.opt_state))


def differs(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return any(not np.array_equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("state", long_but(["packed", "ema"], "packed"))
def test_one_member_skips_alone(network, state):
    """All of the first member stays bit for bit, but its key; the second trains on."""
    steps = spoilt(network, bad=range(64), flip_state=state)
    values = steps.place({"learning_rate": [0.1, 0.01]})
    start, batches = steps.batches(steps.init([0, 0], values), [0, 0], 1)
    before, keys = kept(start), np.asarray(jax.random.key_data(start.key))
    after, sums = steps.train_step(start, None, next(batches), values)
    first, second = (
        [jax.tree.map(lambda x, i=i: x[i], tree) for tree in (before, kept(after))] for i in (0, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, *first)
    assert differs(*second)
    assert np.all(np.any(jax.random.key_data(after.key) != keys, axis=-1))
    assert sums.skipped.tolist() == [1, 0]
    assert float(sums.loss[0]) == 0 != float(sums.loss[1])
    assert after.skips.in_a_row.tolist() == [1, 0]


def test_training_goes_on_after_a_bad_batch(network):
    """One of four steps has the bad image; the others are made, and the mean is theirs."""
    steps = spoilt(network)
    state, batches = steps.batches(steps.init([0]), [0], 1)
    sums, moved = None, []
    for batch in batches:
        before = host(state.params)
        state, sums = steps.train_step(state, sums, batch)
        moved.append(differs(before, host(state.params)))
    assert sorted(moved) == [False, True, True, True]
    assert sums.skipped.tolist() == [1]
    assert np.isfinite(sums.loss[0])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(kept(state)))


def test_given_up_is_given_up():
    """After two in a row no step is made, also not a finite one; the reason stays."""
    params = {"conv": {"latent_kernel": jnp.ones(2)}, "fc": {"kernel": jnp.ones(2)}}
    nan, one = jnp.asarray(jnp.nan), jnp.asarray(1.0)
    bad = {"conv": {"latent_kernel": jnp.array([jnp.inf, 0])}, "fc": {"kernel": jnp.ones(2)}}
    skips, all_made = no_skips(params), []
    for loss, gradients in ((one, bad), (one, params), (one, bad), (nan, bad), (one, params)):
        made, skips = look_at(skips, loss, {}, gradients, max_skipped=2)
        all_made.append(bool(made))
    assert all_made == [False, True, False, False, False]
    assert int(skips.in_a_row) == 3
    expected = "the loss or the batch statistics, and the gradients of conv"
    assert name_wrong(params, skips.wrong.tolist()) == expected
    skips = look_at(no_skips(params), one, {}, bad, max_skipped=2)[1]
    assert name_wrong(params, skips.wrong.tolist()) == "the gradients of conv"


def test_many_layers_are_not_all_named():
    params = {name: {"latent_kernel": 0.0} for name in "abcde"}
    assert name_wrong(params, [False] + [True] * 5) == "the gradients of a, b, c and 2 more"


class LosesStatistics(Tiny):
    """Of a batch with a bad image, a statistic that nothing reads becomes NaN."""

    def __init__(self, classes, *, in_channels, rngs):
        super().__init__(classes, in_channels=in_channels, rngs=rngs)
        self.seen = nnx.BatchStat(jnp.zeros(()))
        self.largest = nnx.BatchStat(jnp.full((), -jnp.inf))  # which is no fault

    def __call__(self, x):
        bad = jnp.any(jnp.all(x >= 0, (1, 2, 3)))
        self.seen[...] = jnp.where(bad, jnp.nan, self.seen[...] + 1)
        return super().__call__(x)


@pytest.mark.long
def test_a_statistic_that_nothing_reads_is_not_lost():
    """One of four batches would make it NaN for good; no answer that is NaN is a right one."""
    network = Network("test_skipped_steps:LosesStatistics", 3, (8, 8, 1))
    config = Config(batch_size=16)
    steps = Steps(network, "sgd", config, feed_of(dataset(16 * STEPS, bad=(0,)), config))
    state, batches = steps.batches(steps.init([0]), [0], 1)
    sums = None
    for batch in batches:
        state, sums = steps.train_step(state, sums, batch)
    assert sums.skipped.tolist() == [1]
    assert state.statistics["seen"].tolist() == [3]
    assert 0 < steps.evaluate(state).metrics["test_top1"] < 1
    bias = state.params["head"]["bias"].at[:].set(jnp.nan)
    head = {**state.params["head"], "bias": bias}
    lost = state._replace(params={**state.params, "head": head})
    assert steps.evaluate(lost).metrics["test_top1"].tolist() == [0]


def test_the_line_tells_of_skipped_steps_only_if_there_are():
    numbers = {"loss": 0.5, "top1": 0.9, "images_per_second": 1.0}
    assert "skipped" not in describe({**numbers, "skipped_steps": 0.0, "given_up": 0.0})
    said = describe({**numbers, "skipped_steps": 3.0, "given_up": 1.0})
    assert said.endswith("skipped 3 given up 1")


def test_max_skipped_is_checked():
    with pytest.raises(ValueError, match="max_skipped=0 is out of range: it must be at least 1"):
        Config(max_skipped=0)


@pytest.fixture
def losing_seed(monkeypatch):
    """From step 7 on, the second of the second epoch, learning rates above 0.05 make NaN."""
    plain = Steps._train_one

    def train_one(self, state, sums, first, second, values, shared):
        self.hit = (state.opt_state[0].count >= 6) & (values.get("learning_rate", 1.0) > 0.05)
        return plain(self, state, sums, first, second, values, shared)

    def loss(self, logits, labels, *rest):
        return cross_entropy(logits, labels) * jnp.where(self.hit, jnp.nan, 1.0)

    monkeypatch.setattr(Steps, "_train_one", train_one)
    monkeypatch.setattr(Steps, "_loss", loss)


RUN = ["--optimizers", "sgd", "--epochs", "3", "--batch-size", "32", "--train-images", "160"]
RUN += ["--network", "tiny_networks:Tiny"]


@pytest.mark.long
def test_the_only_training_stops_the_run(losing_seed, tmp_path, capsys):
    folder = tmp_path / "run"
    command = [*RUN, "--seeds", "4", "--max-skipped", "3", "--out", str(folder)]
    for _ in range(2):  # the same command goes on, to the same end
        assert train.main(command) == 2
        error = capsys.readouterr().err
        assert "SGD with seed 4 is given up after max_skipped=3 skipped steps in a row" in error
        assert "not finite from step 2 of epoch 2 on: the loss or the batch statistics" in error
        (row,) = rows(folder)
        assert (row["epoch"], row["skipped_steps"]) == (1, 0)
        assert (folder / "checkpoints").exists()


@pytest.mark.long
def test_a_sweep_goes_on_without_the_diverged(losing_seed, tmp_path):
    """Four steps of the second epoch are skipped, one was made; of the third all five."""
    folder = tmp_path / "run"
    grid = "optimizer=sgd learning_rate=0.01,0.1"
    command = [*RUN, "--seeds", "4", "--max-skipped", "3", "--grids", grid]
    command += ["--members-at-once", "2", "--out", str(folder)]
    assert train.main(command) == 0
    written = {(r["point"]["learning_rate"], r["epoch"]): r for r in rows(folder)}
    assert [written[0.1, e]["skipped_steps"] for e in (1, 2, 3)] == [0, 4, 5]
    assert [written[0.01, e]["skipped_steps"] for e in (1, 2, 3)] == [0, 0, 0]
    assert [np.isfinite(written[0.1, e]["loss"]) for e in (1, 2, 3)] == [True, False, False]
    assert [np.isfinite(written[0.1, e]["train_top1"]) for e in (1, 2, 3)] == [True, True, False]
    for epoch in (2, 3):
        assert "not finite from step 2 of epoch 2 on" in written[0.1, epoch]["given_up"]
    assert written[0.1, 3]["epoch_flip_ratio"] == written[0.1, 3]["flip_ratio"] == 0
    for epoch in (1, 2, 3):
        assert "given_up" not in written[0.01, epoch]
        assert np.isfinite(written[0.01, epoch]["loss"])
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["sgd learning_rate=0.1"]["diverged_seeds"] == [4]
    assert "diverged_seeds" not in summary["sgd learning_rate=0.01"]


@pytest.mark.long
def test_debug_nans(network):
    """No false alarm in a finite step; an error where the loss is NaN."""
    alarm = pytest.raises(FloatingPointError, match="nan")
    with jax.debug_nans(True):
        for bad, raised in (((), contextlib.nullcontext()), (range(64), alarm)):
            steps = spoilt(network, bad=bad)
            state, batches = steps.batches(steps.init([0]), [0], 1)
            with raised:
                jax.block_until_ready(steps.train_step(state, None, next(batches)))
