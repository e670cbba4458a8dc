"""Networks of a user's own: trained as they are, or refused before a run begins."""

import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_data import dataset
from tiny_networks import Tiny

import ovsw_jax as ovsw
from experiments import train
from experiments.config import Config
from experiments.data.batches import feed_of
from experiments.run import weights
from experiments.training.networks import Network, find_network
from experiments.training.step import Steps
from experiments.training.trained import Trained, load_trained

SHAPE = (2, 3, 1)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(4, *SHAPE)), jnp.float32)


class Base(nnx.Module):
    """The smallest with signs and statistics."""

    def __init__(self, classes, *, in_channels, rngs):
        self.dense = ovsw.nn.BinaryDense(6 * in_channels, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, classes, rngs=rngs)

    def body(self, x):
        return self.norm(self.dense(x.reshape(len(x), -1)))

    def __call__(self, x):
        return self.head(self.body(x))


class Kind(nnx.Variable):
    pass


def of_base(**members):
    """A relative of Base with attributes that its constructor makes, and another call."""
    call = members.pop("call", Base.__call__)

    def make(self, *args, **options):
        Base.__init__(self, *args, **options)
        for name, value in members.items():
            setattr(self, name, value())

    return type("Own", (Base,), {"__init__": make, "__call__": call})


def network_of(cls, classes=3, **options):
    """It is found under its name, as a user's is."""
    module = sys.modules[__name__]
    module.Own = cls
    return Network(f"{__name__}:Own", classes, SHAPE, **options)


def state_of(network):
    return jax.tree.map(lambda x: x[0], network.init(jax.random.key(0)[None]))


def sow(self, x):
    x = self.body(x)
    self.sow(nnx.Intermediate, "features", x)
    self.last = nnx.Intermediate(x)
    return self.head(self.perturb("gradient", x))


sows = pytest.mark.filterwarnings("ignore:(?s).*Module.(sow|perturb):DeprecationWarning")


@sows
def test_what_a_call_leaves_to_be_looked_at_is_no_state():
    """It trains, and its state is that of the network that leaves nothing."""
    own, plain, config = network_of(of_base(call=sow)), network_of(Base), Config(batch_size=4)
    steps = Steps(own, "sgd", config, feed_of(dataset(8, shape=SHAPE), config))
    state, batches = steps.batches(steps.init([0]), [0], 1)
    for batch in batches:
        state, sums = steps.train_step(state, None, batch)
        assert sums.skipped.tolist() == [0]
    one = jax.tree.map(lambda x: x[0], (state.params, state.statistics))
    results = [network.train(*one, IMAGES) for network in (own, plain)]
    jax.tree.map(np.testing.assert_array_equal, *results)


def count(self, x):
    self.calls[...] += 1
    self.ready[...] = ~self.ready[...]
    x = self.body(x) * self.table
    self.cache[...] = x.max(0)
    return self.head(self.dropout(self.twice(self.blocks[0](x))))


def test_state_of_every_kind_is_carried():
    own = of_base(
        calls=lambda: Kind(jnp.int32(0)),
        ready=lambda: Kind(jnp.array(False)),
        cache=lambda: nnx.Cache(jnp.zeros(4)),
        table=lambda: np.full(4, 2, np.float32),
        dropout=lambda: nnx.Dropout(0.5, rngs=nnx.Rngs(0)),
        blocks=lambda: nnx.List([nnx.Linear(4, 4, rngs=nnx.Rngs(0))]),
        twice=lambda: nnx.Linear(4, 4, rngs=nnx.Rngs(0)),
        call=count,
    )
    network = network_of(own)
    params, statistics = state_of(network)
    step = jax.jit(network.train)
    for _ in range(3):
        logits, statistics = step(params, statistics, IMAGES)
    assert (int(statistics["calls"]), bool(statistics["ready"])) == (3, True)
    assert int(statistics["dropout"]["rngs"]["count"]) == 3
    assert np.all(statistics["cache"] != 0)
    assert np.all(statistics["table"] == 2)
    assert logits.shape == (4, 3)


def flagged(self, x, train=False, *, use_running_average):
    assert train != use_running_average
    x = self.norm(self.dense(x.reshape(len(x), -1)), use_running_average=use_running_average)
    return self.head(x + 100 if train else x)


def test_a_call_is_told_whether_it_trains():
    """Else batch norm would never see a batch, in silence."""
    network = network_of(of_base(call=flagged))
    params, statistics = state_of(network)
    trained, after = network.train(params, statistics, IMAGES)
    assert np.any(after["norm"]["mean"] != statistics["norm"]["mean"])
    assert np.max(np.abs(trained - network.evaluate(params, statistics, IMAGES))) > 1


def test_logits_in_bfloat16_are_compared_in_float32():
    own = of_base(call=lambda self, x: Base.__call__(self, x).astype(jnp.bfloat16))
    network = network_of(own)
    state = state_of(network)
    assert network.train(*state, IMAGES)[0].dtype == jnp.float32
    assert network.evaluate(*state, IMAGES).dtype == jnp.float32


def stacked():
    return nnx.vmap(lambda rngs: ovsw.nn.BinaryDense(4, 4, rngs=rngs))(nnx.Rngs(0).split(2))


def assign(self, x):
    x = self.body(x)
    self.last.set_value(x.astype(jnp.float16))
    return self.head(x)


def counted(self, x):
    self.calls = getattr(self, "calls", 0) + 1
    return Base.__call__(self, x)


def made_late(self, x):
    self.late = Kind(x.mean())
    return Base.__call__(self, x)


def only_in_training(self, x):
    x = self.body(x)
    return self.head(x[:, :2] if self.norm.use_running_average else x)


def of_pairs(self, x):
    return Base.__call__(self, x.reshape(2, *x.shape[1:]))


def two_results(self, x):
    return Base.__call__(self, x), x


class RealValued(nnx.Module):
    def __init__(self, classes, *, in_channels, rngs):
        self.head = nnx.Linear(in_channels, classes, rngs=rngs)

    def __call__(self, x):
        return self.head(x.mean((1, 2)))


REFUSED = {
    "calls": (of_base(call=counted), r"changes what it consists of \(calls\), and each step"),
    "late": (of_base(call=made_late), r"consists of \(late\).*Make every nnx.Variable there"),
    "grows": (
        of_base(last=lambda: Kind(jnp.zeros(4)), call=assign),
        r"its state: last is float32\[4\] and becomes float16\[2, 4\]\. A Variable must keep its",
    ),
    "intermediate": (
        of_base(last=lambda: nnx.Intermediate(jnp.zeros(4)), call=assign),
        r"last is an nnx.Intermediate that the constructor makes.*as by self\.sow",
    ),
    "array": (
        of_base(table=lambda: jnp.ones(4)),
        r"table is an array outside any Variable.*make it an nnx.Variable",
    ),
    "array in a partial": (
        of_base(table=lambda: functools.partial(jnp.add, jnp.ones(4))),
        r"table is an array outside any",
    ),
    "array in a tuple": (of_base(table=lambda: (jnp.ones(4), 1)), r"table is an array outside any"),
    "integers": (
        of_base(shift=lambda: nnx.Param(jnp.ones(4, jnp.int32))),
        r"its parameter shift is int32, which has no gradient",
    ),
    "stacked": (
        of_base(blocks=stacked),
        r"latent kernel of blocks has shape \(2, 4, 4\): it is stacked.*Hold .* in an nnx\.List",
    ),
    "two results": (of_base(call=two_results), r"it gives a tuple, and must give one array of"),
    "integer logits": (
        of_base(call=lambda self, x: Base.__call__(self, x).astype(jnp.int32)),
        r"its logits are int32, and must be floating-point",
    ),
    "one size of a batch": (of_base(call=of_pairs), r"TypeError: .*reshape"),
    "evaluation": (of_base(call=only_in_training), r"TypeError.*contracting"),
    "logits of other classes": (
        lambda classes, *, in_channels, rngs: Base(2, in_channels=in_channels, rngs=rngs),
        r"gives \(2, 2\) for 2 images of 3 classes; it must give .*\(2, 3\)",
    ),
    "nothing binary": (RealValued, r"no binary layer: none .* latent_kernel"),
    "other arguments": (lambda rngs: None, r"TypeError.*made as Class\(classes, in_channels"),
    "no module": (lambda classes, *, in_channels, rngs: "net", r"it is no NNX module, but a str"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_networks_that_would_go_wrong_later(name):
    own, message = REFUSED[name]
    with pytest.raises(ValueError, match=rf"(?s)'{__name__}:Own' .*{message}"):
        network_of(own)


def test_a_network_may_keep_its_random_keys():
    def with_keys(classes, *, in_channels, rngs):
        model = Base(classes, in_channels=in_channels, rngs=rngs)
        model.rngs = rngs
        return model

    network = network_of(with_keys)
    assert network.train(*state_of(network), IMAGES)[0].shape == (4, 3)


def test_a_part_of_a_name_allows_no_import(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"network": "tiny_networks:Tiny", "optimizers": ["sgd"], "seeds": [0]})
    )
    with pytest.raises(ValueError, match=r"is of network 'tiny_networks:Tiny', which is not imp"):
        load_trained(tmp_path, own="my.tiny_networks:Tiny2")
    with pytest.raises(ValueError, match=r"holds no trained weights"):
        load_trained(tmp_path, own="tiny_networks:Tiny")


class WithIntegers(Tiny):
    def __init__(self, classes, *, in_channels, rngs):
        super().__init__(classes, in_channels=in_channels, rngs=rngs)
        self.shift = nnx.Param(jnp.ones(8, jnp.int32))


def test_a_refused_network_leaves_no_run_folder(tmp_path, capsys):
    command = ["--network", f"{__name__}:WithIntegers", "--out", str(tmp_path / "run")]
    assert train.main(command) == 2
    assert "its parameter shift is int32, which has no gradient" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_modules_that_break_when_imported(tmp_path, monkeypatch):
    (tmp_path / "broken_when_imported.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"can't be imported: ZeroDivisionError: .*NNX module"):
        find_network("broken_when_imported:Net")
    with pytest.raises(ValueError, match=r"can't be imported: TypeError: it is \(2, 3, 1\)"):
        find_network(f"{__name__}:SHAPE")


DATA = weights.Data(("a", "b", "c"), SHAPE, np.full(1, 0.5, np.float32), np.ones(1, np.float32))


def in_bfloat16(self, x):
    return self.head((self.body(x) * self.gain[...]).astype(jnp.float32))


def test_weights_in_bfloat16_and_bools_come_back_from_a_file(tmp_path):
    """NumPy's files know no bfloat16."""
    own = of_base(
        gain=lambda: nnx.Param(jnp.full(4, 1.0078125, jnp.bfloat16)),
        ready=lambda: Kind(jnp.array(True)),
        calls=lambda: Kind(jnp.int32(2**30 + 1)),
        call=in_bfloat16,
    )
    state, path = state_of(network_of(own)), tmp_path / "weights" / "sgd-seed0.npz"
    weights.save(path, state, DATA)
    blank = jax.tree.map(jnp.zeros_like, state)
    for x, y in zip(*map(jax.tree.leaves, (weights.load(path, *blank), state)), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.full((4, 3), np.nan, np.float32), r"hold NaN, in params/head/kernel: that training"),
        (
            np.ones((4, 3), np.int32),
            r"params/head/kernel is int32 there and float32 in the network",
        ),
    ],
)
def test_weights_that_cannot_be_gone_on_with(value, message, tmp_path):
    params, statistics = state_of(network_of(Base))
    path = tmp_path / "weights" / "sgd-seed0.npz"
    head = {**params["head"], "kernel": value}
    weights.save(path, ({**params, "head": head}, statistics), DATA)
    with pytest.raises(ValueError, match=message):
        weights.load(path, params, statistics)


@pytest.fixture(scope="module")
def trained():
    network = network_of(Base)
    return Trained(network, *state_of(network), DATA)


PIXELS = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), dtype=np.uint8)


def test_answers_to_the_images_of_a_data_set(trained):
    shown = jnp.asarray(PIXELS, jnp.float32) / 255 - 0.5
    expected = trained.network.evaluate(trained.params, trained.statistics, shown)
    for images in (PIXELS, jnp.asarray(PIXELS)):
        np.testing.assert_allclose(trained.logits(images), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "images",
    [PIXELS / 255, PIXELS.astype(np.int32), jnp.asarray(PIXELS, jnp.bfloat16), PIXELS.tolist()],
    ids=["0 to 1", "int32", "bfloat16", "list"],
)
def test_images_of_another_dtype(images, trained):
    with pytest.raises(TypeError, match=r"images are \w+, and must be uint8 from 0 to 255, as in "):
        trained.logits(images)


@pytest.mark.parametrize(
    "shape", [(2, 3, 1), (4, 2, 3), (4, 3, 2, 1), (4, 1, 2, 3), (4, 2, 3, 3), (1, 4, 2, 3, 1)]
)
def test_images_of_another_shape(shape, trained):
    with pytest.raises(ValueError, match=r"images have shape .*, and must have \(batch, 2, 3, 1\)"):
        trained.logits(np.zeros(shape, np.uint8))
