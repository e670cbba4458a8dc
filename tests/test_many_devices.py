"""Training on eight devices equals training on one: optimizers, layers and whole steps."""

import functools
import itertools
import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from longer import long_but

import ovsw_jax as ovsw
from ovsw_jax.nn import BatchNorm

P = PartitionSpec
# Of the last two axes of a kernel, inputs and outputs.
PLACEMENTS = {
    "replicated": (None, None),
    "output": (None, "model"),
    "input": ("model", None),
    "both": ("data", "model"),
}
AXIS_TYPES = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
FLIPS = {"momentum": 0.9, "threshold": 0.05}  # a horizon of 7 steps


@pytest.fixture(params=long_but(AXIS_TYPES, "auto"))
def mesh(request):
    types = (AXIS_TYPES[request.param],) * 2
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=types)
    with jax.set_mesh(mesh):
        yield mesh


def assert_close(actual, expected, tolerance):
    """Equal trees: codes and counts exactly, floats to the tolerance, relative or absolute."""
    actual, expected = jax.device_get((actual, expected))
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, expected)
    chex.assert_trees_all_close(actual, expected, rtol=tolerance, atol=tolerance)


# Optimizers, from fixed gradients


def ovsw_sgd(state):
    rule = {"flip_momentum": 0.9, "threshold": 0.05, "state": state}
    return ovsw.ovsw_sgd(0.5, weight_decay=0.01, lam=0.5, tau=0.02, **rule)


OPTIMIZERS = {
    "ovsw_sgd packed": partial(ovsw_sgd, "packed"),
    "ovsw_sgd packed8": partial(ovsw_sgd, "packed8"),
    "ovsw_sgd ema": partial(ovsw_sgd, "ema"),
    "ags and sad": lambda: optax.chain(ovsw.ags(0.5), ovsw.sad(0.02, **FLIPS), optax.sgd(0.5)),
    "adam": lambda: optax.chain(ovsw.track_flip_state(**FLIPS), optax.adam(0.05)),
    "lars_sgd": lambda: optax.chain(ovsw.track_flip_state(**FLIPS), ovsw.lars_sgd(0.5, eta=0.5)),
    "bop": lambda: optax.chain(ovsw.track_flip_state(**FLIPS), ovsw.bop(0.02, adaptivity=0.2)),
}
STEPS = 10


def weights_or_gradients(seed, *leading):
    """A convolution for each placement, a dense layer, and a real-valued head."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return (0.1 * rng.standard_normal((*leading, *shape))).astype(np.float32)

    shapes = dict.fromkeys(PLACEMENTS, (3, 3, 8, 16)) | {"dense": (8, 16)}
    tree = {name: {"latent_kernel": draw(*shape)} for name, shape in shapes.items()}
    return {**tree, "head": {"kernel": draw(8, 16), "bias": draw(16)}}


def place(tree, mesh, leading=0):
    def put(path, leaf):
        placement = {"dense": "both", "head": "replicated"}.get(path[0].key, path[0].key)
        spec = P(*[None] * (leaf.ndim - 2), *PLACEMENTS[placement])
        spec = spec if leaf.ndim - leading > 1 else P()
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    return jax.tree_util.tree_map_with_path(put, tree)


def train(tx, params, state, gradients):
    """Compiled steps; params, state, metrics and masks after them."""

    @jax.jit
    def step(t, params, state):
        updates, state = tx.update(jax.tree.map(lambda g: g[t], gradients), state, params)
        params = optax.apply_updates(params, updates)
        return params, state, ovsw.flip_metrics(state), ovsw.silent_mask(state)

    for t in range(STEPS):
        params, state, *seen = step(t, params, state)
    return params, state, *seen


@functools.cache
def on_one_device(optimizer):
    tx = OPTIMIZERS[optimizer]()
    params, gradients = jax.device_put((weights_or_gradients(0), weights_or_gradients(1, STEPS)))
    return jax.device_get(train(tx, params, tx.init(params), gradients))


def assert_placed_alike(state, params):
    """Flip codes, momenta and moments lie where their weights do."""
    of_shape = {
        (jax.tree_util.keystr(path), leaf.shape): leaf.sharding
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    found = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        for (name, shape), sharding in of_shape.items():
            if jax.tree_util.keystr(path).endswith(name) and leaf.shape == shape:
                assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim), path
                found += leaf.ndim > 1
    assert found > len(PLACEMENTS)  # a leaf for each kernel at least


SHORT = (("ovsw_sgd packed", "auto"), ("ovsw_sgd packed8", "explicit"))
LONG = [
    pytest.param(name, mesh, marks=pytest.mark.long)
    for name, mesh in itertools.product(OPTIMIZERS, AXIS_TYPES)
    if (name, mesh) not in SHORT and (mesh == "auto" or name.startswith("ovsw_sgd"))
]


@pytest.mark.parametrize(("optimizer", "mesh"), [*SHORT, *LONG], indirect=["mesh"])
def test_sharded_updates_equal_one_device_s(optimizer, mesh):
    tx = OPTIMIZERS[optimizer]()
    params = place(weights_or_gradients(0), mesh)
    gradients = place(weights_or_gradients(1, STEPS), mesh, leading=1)
    state = tx.init(params)
    assert_placed_alike(state, params)
    trained = train(tx, params, state, gradients)
    assert_placed_alike(trained[:2], params)
    expected = on_one_device(optimizer)
    assert_close(trained, expected, 1e-6)
    total = expected[2]["total"]
    assert 0.01 < total["flip_ratio"] < 0.95
    assert 0.05 < total["silent_ratio"] < 0.95


def test_a_compiled_init_places_flip_state_as_weights(mesh):
    params = place(weights_or_gradients(0), mesh)
    for kind in ("packed", "packed8", "ema"):
        tx = ovsw.sad(0.02, state=kind)
        assert_placed_alike(jax.jit(tx.init)(params), params)


# Layers


def layer_case(layer):
    rng = np.random.default_rng(0)
    x_shape, kernel_shape = {
        "conv": ((8, 6, 6, 16), (3, 3, 16, 32)),
        "dense": ((8, 16), (16, 32)),
    }[layer]
    make = {"conv": partial(ovsw.nn.BinaryConv, kernel_size=(3, 3)), "dense": ovsw.nn.BinaryDense}
    model = make[layer](16, 32, scale="standardized", use_bias=True, rngs=nnx.Rngs(0))
    graph, _ = nnx.split(model)
    params = {
        "latent_kernel": rng.standard_normal(kernel_shape),
        "bias": rng.standard_normal(32),
    }

    def loss(params, x):
        return jnp.mean(nnx.merge(graph, params)(x) ** 2)

    return loss, params, rng.standard_normal(x_shape)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("layer", ["conv", "dense"])
def test_gradients_of_a_layer(layer, mesh):
    """However its kernel is sharded, also over the axis of the batch, and in a `shard_map`."""
    loss, params, x = layer_case(layer)
    gradients = jax.jit(jax.value_and_grad(loss))
    expected = jax.device_get(gradients(params, x))
    placed_x = jax.device_put(x, NamedSharding(mesh, P("data")))

    @jax.jit
    @partial(jax.shard_map, in_specs=(P(), P("data")), out_specs=P(), axis_names={"data"})
    def partly_manual(params, x):
        return jax.value_and_grad(lambda p: jax.lax.pmean(loss(p, x), "data"))(params)

    for entries in [(None, "model"), ("model", None), ("data", "model"), ("model", "data")]:
        where = NamedSharding(mesh, P(*[None] * (params["latent_kernel"].ndim - 2), *entries))
        placed = {
            "latent_kernel": jax.device_put(params["latent_kernel"], where),
            "bias": jax.device_put(params["bias"], NamedSharding(mesh, P())),
        }
        assert_close(gradients(placed, placed_x), expected, 1e-12)
        if entries == (None, "model"):
            assert_close(partly_manual(placed, placed_x), expected, 1e-12)


@pytest.mark.long
def test_a_sharded_batch_stays_where_it_is():
    """The kernel's gradient is made in parts; they are summed, but no images are sent."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    conv = ovsw.nn.BinaryConv(64, 64, (3, 3), scale=None, rngs=nnx.Rngs(0))
    graph, params = nnx.split(conv)

    def loss(params, x):
        return jnp.sum(nnx.merge(graph, params)(x) ** 2)

    def sharded(tree, spec):
        return jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=NamedSharding(mesh, spec)),
            tree,
        )

    x = sharded(jax.ShapeDtypeStruct((128, 16, 16, 64), jnp.float32), P("data"))
    program = jax.jit(jax.grad(loss)).lower(sharded(params, P()), x).compile().as_text()
    sent = set(re.findall(r"(all-\w+|collective-permute|reduce-scatter)\(", program))
    assert sent == {"all-reduce"}


# Batch norm


@pytest.mark.usefixtures("float64")
def test_batch_norm_in_a_shard_map():
    """Result, statistics and gradients are those of the whole batch."""
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 16, 3, 3, 6))
    graph, _, rest = nnx.split(BatchNorm(6, rngs=nnx.Rngs(0)), nnx.Param, ...)
    params = {"scale": rng.standard_normal(6), "bias": rng.standard_normal(6)}
    statistics = jax.tree.map(lambda s: s.astype(np.float64), nnx.to_pure_dict(rest))

    def run(axis_name, params, x, dy):
        def f(params, x):
            norm = nnx.merge(graph, params, statistics)
            norm.set_attributes(axis_name=axis_name)
            norm.train()
            y = norm(x)
            return y, nnx.to_pure_dict(nnx.state(norm, nnx.BatchStat))

        y, transpose, after = jax.vjp(f, params, x, has_aux=True)
        to_params, to_x = transpose(dy)
        return y, after, to_params, to_x

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split, whole = P("data"), P()
    specs = {"in_specs": (whole, split, split), "out_specs": (split, whole, whole, split)}
    actual = jax.jit(jax.shard_map(partial(run, "data"), mesh=mesh, **specs))(params, x, dy)
    assert_close(actual, jax.jit(partial(run, None))(params, x, dy), 1e-12)


@pytest.mark.usefixtures("float64")
def test_batch_norm_of_each_device_s_own_images(mesh):
    """Nothing is sent for results and gradient, and they are those of one device."""
    x, dy = np.random.default_rng(0).standard_normal((2, 16, 3, 6))
    graph, state = nnx.split(BatchNorm(6, batch_groups=4, rngs=nnx.Rngs(0)))

    def run(x, dy):
        y, transpose = jax.vjp(lambda x: nnx.merge(graph, state, copy=True)(x), x)
        return y, transpose(dy)[0]

    placed = jax.device_put((x, dy), NamedSharding(mesh, P("data")))
    compiled = jax.jit(run).lower(*placed).compile()
    assert not re.findall(r"(all-\w+|collective-permute|reduce-scatter)\(", compiled.as_text())
    assert_close(compiled(*placed), jax.jit(run)(x, dy), 1e-12)


# Whole training steps


@pytest.fixture(scope="module")
def trained():
    """Two training steps of a small network, its start, and what they make of it on one device."""
    model = ovsw.models.SmallResNet(10, in_channels=1, widths=(8,), rngs=nnx.Rngs(0))
    graph, *state = nnx.split(model, nnx.Param, ...)
    params, statistics = jax.tree.map(np.float64, [nnx.to_pure_dict(tree) for tree in state])
    rng, tx = np.random.default_rng(0), ovsw_sgd("packed")
    batch = rng.standard_normal((16, 8, 8, 1)), rng.integers(0, 10, 16)

    @jax.jit
    def step(params, statistics, state, images, labels):
        def loss(params):
            model = nnx.merge(graph, params, statistics)
            model.train()
            logits = model(images)
            one_hot = jax.nn.one_hot(labels, 10, dtype=logits.dtype)
            mean = optax.softmax_cross_entropy(logits, one_hot).mean()
            return mean, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

        (value, after), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), after, state, value

    def run(params, batch):
        carry = params, statistics, tx.init(params)
        for _ in range(2):
            *carry, loss = step(*carry, *batch)
        return *carry, loss

    with jax.enable_x64(True):
        return run, params, batch, jax.device_get(run(params, batch))


@pytest.mark.usefixtures("float64")
def test_a_training_step_under_jit(trained, mesh):
    """One kernel's filters lie on different devices; another's inputs on those of the batch."""
    run, params, batch, expected = trained
    specs = {"conv1": P(None, None, None, "model"), "conv2": P(None, None, "data", None)}

    def put(path, leaf):
        spec = specs[path[-2].key] if path[-1].key == "latent_kernel" else P()
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    params = jax.tree_util.tree_map_with_path(put, params)
    batch = jax.device_put(batch, NamedSharding(mesh, P("data")))
    assert_close(run(params, batch), expected, 1e-11)


# Flax's annotations


def test_annotated_kernels(mesh):
    """What an initialiser says of a kernel is true of its flip state and momentum too."""
    spec = (None, None, None, "model")
    annotated = nnx.with_partitioning(nnx.initializers.he_normal(), spec)
    conv = partial(ovsw.nn.BinaryConv, kernel_init=annotated, scale="learned")

    @nnx.jit
    def create():
        model = ovsw.models.BiRealBlock(8, 8, conv=conv, rngs=nnx.Rngs(0))
        return model, nnx.Optimizer(model, ovsw_sgd("packed"), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, images):
        gradients = nnx.grad(lambda model: jnp.mean(model(images) ** 2))(model)
        optimizer.update(model, gradients)

    model, optimizer = create()
    model.train()
    before = model.conv1.latent_kernel[...]
    rng = np.random.default_rng(0)
    images = rng.standard_normal((8, 4, 4, 8), np.float32)
    step(model, optimizer, jax.device_put(images, NamedSharding(mesh, P("data"))))
    (flips,) = (s for s in optimizer.opt_state if hasattr(s, "history"))
    history = flips.history["conv1"]["latent_kernel"]
    after = model.conv1.latent_kernel[...]
    for array in (before, after, history[...]):
        assert array.sharding.is_equivalent_to(NamedSharding(mesh, P(*spec)), 4)
    assert nnx.get_partition_spec(history).get_value() == P(*spec)
    assert not np.array_equal(before, after)


def test_annotated_kernels_in_linen():
    annotated = nn.with_partitioning(nn.initializers.he_normal(), (None, "model"))
    layer = ovsw.linen.BinaryDense(32, scale="learned", kernel_init=annotated)
    init = partial(layer.init, train=True)
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.ones((8, 16)))
    specs = nn.get_partition_spec(shapes)["params"]
    assert specs == {"latent_kernel": P(None, "model"), "filter_scale": P()}
