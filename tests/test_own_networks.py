"""Networks of a user's own: trained as they are, or refused before a run begins."""

import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from tiny_data import dataset

import ovsw_jax as ovsw
from experiments.config import Config
from experiments.data.batches import feed_of
from experiments.run import weights
from experiments.training.initialisation import initialise_latent
from experiments.training.make_optimizer import make_optimizer
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


@pytest.mark.long
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


class Block(nnx.Module):
    def __init__(self, rngs):
        self.dense = ovsw.nn.BinaryDense(4, 4, use_bias=True, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)

    def __call__(self, x):
        return x + self.norm(self.dense(x))


def stacked(count):
    return lambda: nnx.vmap(Block)(nnx.Rngs(0).split(count))


def listed():
    return nnx.List([Block(nnx.Rngs(i)) for i in range(3)])


def scan(self, x):
    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    def through(x, block):
        return block(x)

    return self.head(through(self.body(x), self.blocks))


def loop(self, x):
    x = self.body(x)
    for block in self.blocks:
        x = block(x)
    return self.head(x)


def as_list(tree):
    """The blocks of a stack one by one, as an nnx.List holds them."""
    blocks = {i: jax.tree.map(lambda x, i=i: x[i], tree["blocks"]) for i in range(3)}
    return {**tree, "blocks": blocks}


@pytest.mark.parametrize("optimizer", ["ovsw", "lars"])
def test_stacked_layers_are_trained_as_a_list_of_them(optimizer):
    stack = network_of(of_base(blocks=stacked(3), call=scan))
    blocks = network_of(of_base(blocks=listed, call=loop))
    assert stack.axes.stacked == ("blocks/dense/latent_kernel",)
    params, statistics = state_of(stack)
    # Layers of other sizes, so that a norm over several is another one.
    sizes = 10.0 ** jnp.arange(-1, 2)[:, None, None]
    params["blocks"]["dense"]["latent_kernel"] *= sizes
    ends = []
    for network, state in (
        (stack, (params, statistics)),
        (blocks, (as_list(params), as_list(statistics))),
    ):
        tx = make_optimizer(optimizer, Config(lam=1.0, epochs=1, warmup_epochs=0), 9, network.axes)

        @jax.jit
        def step(params, statistics, opt_state, network=network, tx=tx):
            def loss(params):
                logits, after = network.train(params, statistics, IMAGES)
                return jnp.sum(logits[:, 0] ** 2), after

            gradients, after = jax.grad(loss, has_aux=True)(params)
            updates, opt_state = tx.update(gradients, opt_state, params)
            return optax.apply_updates(params, updates), after, opt_state

        state = *state, tx.init(state[0])
        # One step: a second one would blow up how the first one rounds.
        state = step(*state)
        ends.append((state[0], ovsw.flip_metrics(state[2])["total"]))
    (of_stack, metrics), (of_list, expected) = ends
    # Biases in front of batch norm have no gradient but rounding, of about 1e-4.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=5e-4)
    jax.tree.map(close, as_list(of_stack), of_list)
    jax.tree.map(close, metrics, expected)


def test_stacked_layers_start_with_the_fan_in_of_one():
    network = network_of(of_base(blocks=stacked(300)))
    params = network.init(jax.random.key(0)[None])[0]
    start = lambda p: initialise_latent(p, jax.random.key(1), "uniform", 1.0, network.axes)  # noqa: E731
    weight = jax.vmap(start)(params)["blocks"]["dense"]["latent_kernel"]
    assert float(weight.std()) == pytest.approx(np.sqrt(2 / 4), rel=0.05)


def test_stacked_vectors_are_no_matrices_to_decay():
    axes = network_of(of_base(blocks=stacked(3))).axes
    for optimizer in ("sgd", "lars", "ovsw"):
        with pytest.raises(
            ValueError, match=r"decay_1d=False.*blocks/dense/latent.*\(--decay-1d\)"
        ):
            make_optimizer(optimizer, Config(decay_1d=False), 1, axes)
    make_optimizer("adam", Config(decay_1d=False), 1, axes)


def assign(self, x):
    x = self.body(x)
    self.last.set_value(x.astype(jnp.float16))
    return self.head(x)


def setting(name, value):
    """A call that first sets an attribute."""

    def call(self, x):
        setattr(self, name, value(self, x))
        return Base.__call__(self, x)

    return call


def only_in_training(self, x):
    x = self.body(x)
    return self.head(x[:, :2] if self.norm.use_running_average else x)


class RealValued(nnx.Module):
    def __init__(self, classes, *, in_channels, rngs):
        self.head = nnx.Linear(in_channels, classes, rngs=rngs)

    def __call__(self, x):
        return self.head(x.mean((1, 2)))


REFUSED = {
    "calls": (
        of_base(call=setting("calls", lambda self, x: getattr(self, "calls", 0) + 1)),
        r"changes what it consists of \(calls\), and each step",
    ),
    "late": (
        of_base(call=setting("late", lambda self, x: Kind(x.mean()))),
        r"consists of \(late\).*Make every nnx.Variable there",
    ),
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
        of_base(blocks=stacked(4)),
        r"at 'blocks/dense/latent_kernel' \(BinaryDense\) have shape \(4, 4, 4\).* stacked_axes",
    ),
    "two results": (
        of_base(call=lambda self, x: (Base.__call__(self, x), x)),
        r"it gives a tuple, and must give one array of",
    ),
    "integer logits": (
        of_base(call=lambda self, x: Base.__call__(self, x).astype(jnp.int32)),
        r"its logits are int32, and must be floating-point",
    ),
    "one size of a batch": (
        of_base(call=lambda self, x: Base.__call__(self, x.reshape(2, *x.shape[1:]))),
        r"TypeError: .*reshape",
    ),
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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken_when_imported:Net", ": ZeroDivisionError: .*NNX module"),
        (f"{__name__}:SHAPE", r": TypeError: it is \(2, 3, 1\)"),
        *((name, ".*NNX module") for name in ("no_such_module:Net", f"{__name__}:NoNet", ":Net")),
    ],
)
def test_what_cannot_be_imported(name, message, tmp_path, monkeypatch):
    (tmp_path / "broken_when_imported.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=rf"network '{name}' can't be imported{message}"):
        find_network(name)


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
