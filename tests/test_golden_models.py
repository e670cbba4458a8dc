"""Blocks, networks and whole training steps against the official code, in float64.

A freshly initialised binary network is chaotic: one activation that rounds to the other side of
zero changes half the signs of the last layers. Only float64 comparisons mean anything here.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import ovsw_jax as ovsw
from ovsw_jax.models.cifar_resnet18 import BasicBlock
from ovsw_jax.models.cifar_resnet20 import SkipConvBlock
from tests import golden
from tests.official_signs import official_kernel_sign
from tests.torch_names import leaf, load_state, path_of, to_flax

pytestmark = pytest.mark.usefixtures("float64")

BATCH = 16
PIXELS = {"bn1": 32 * 32, "layer1": 32 * 32, "layer2": 16 * 16, "layer3": 8 * 8, "bn2": 1}


def with_prefix(data, prefix, *, without=("num_batches_tracked", "tracker", "weight_prev")):
    return {
        key.removeprefix(prefix): value
        for key, value in data.items()
        if key.startswith(prefix) and not key.endswith(without)
    }


def unbiased(name, variance, steps):
    """Our running variance as PyTorch keeps it, from the unbiased variance of each batch."""
    n = BATCH * PIXELS[name.split(".")[0]]
    start = 0.9**steps  # what is left of the initial 1
    return start + (variance - start) * n / (n - 1)


def relative_error(actual, expected):
    return np.abs(actual - expected).max() / np.abs(expected).max()


class ResNet20Run:
    """Five training steps on one batch, with the official initial weights."""

    def __init__(self, data, tx):
        self.model = ovsw.models.CifarResNet20(10, rngs=nnx.Rngs(0))
        graph, params, statistics = nnx.split(self.model, nnx.Param, ...)
        init = with_prefix(data, "init/")
        names = [str(n) for n in data["param_order"]]
        self.params = load_state(params, {n: init[n] for n in names})
        self.statistics = load_state(statistics, {n: x for n, x in init.items() if "running" in n})
        x = jnp.asarray(np.moveaxis(data["x"], 1, -1), jnp.float64)
        y = jnp.asarray(data["y"])

        def loss_fn(params, statistics):
            model = nnx.merge(graph, params, statistics, copy=True)
            model.train()
            logits = model(x)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
            return loss, (logits, nnx.state(model, nnx.Not(nnx.Param)))

        def evaluate(params, statistics):
            model = nnx.merge(graph, params, statistics, copy=True)
            model.eval()
            return model(x)

        @jax.jit
        def step(params, statistics, opt_state):
            (loss, (logits, statistics)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
                params, statistics
            )
            updates, opt_state = tx.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), statistics, opt_state, loss, logits, grads

        self.losses, self.logits, self.metrics = [], [], []
        self.opt_state = tx.init(self.params)
        for number in range(5):
            self.params, self.statistics, self.opt_state, loss, logits, grads = step(
                self.params, self.statistics, self.opt_state
            )
            self.losses.append(loss)
            self.logits.append(logits)
            self.metrics.append(ovsw.flip_metrics(self.opt_state))
            if number == 0:
                self.first_gradients, self.first_statistics = grads, self.statistics
        corrected = {
            n: unbiased(n, leaf(self.statistics, n), 5) for n in init if n.endswith("running_var")
        }
        self.eval_logits = jax.jit(evaluate)(self.params, load_state(self.statistics, corrected))


@pytest.fixture(scope="module")
def run_a():
    data = golden.load("model_step")
    with jax.enable_x64(True):
        return ResNet20Run(data, ovsw.ovsw_sgd(0.1, weight_decay=1e-4, lam=0.04, tau=9e-4))


@pytest.fixture(scope="module")
def data():
    return golden.load("model_step")


def test_loss_and_logits_of_five_steps(run_a, data):
    np.testing.assert_allclose(run_a.losses, data["A/f64/loss_per_step"], atol=1e-10, rtol=0)
    np.testing.assert_allclose(run_a.logits, data["A/f64/logits_per_step"], atol=1e-10, rtol=0)


def test_gradients_of_the_first_step(run_a, data):
    for name, expected in with_prefix(data, "A/f64/grad0/").items():
        assert relative_error(leaf(run_a.first_gradients, name), to_flax(expected)) < 1e-9, name


def test_gradients_after_the_rules(run_a, data):
    """AGS and SAD on the official raw gradients of the first step."""
    raw = with_prefix(data, "A/f64/grad0/")
    names = [str(n) for n in data["param_order"]]
    init = {n: data[f"init/{n}"] for n in names}
    params = load_state(run_a.params, init)
    grads = load_state(run_a.params, raw)
    tx = optax.chain(ovsw.ags(0.04), ovsw.sad(9e-4))
    hooked, _ = tx.update(grads, tx.init(params), params)
    for name, expected in with_prefix(data, "A/f64/hooked_grad0/").items():
        np.testing.assert_allclose(
            leaf(hooked, name), to_flax(expected), rtol=1e-12, atol=1e-18, err_msg=name
        )


def test_batch_statistics_after_the_first_forward(run_a, data):
    for name, expected in with_prefix(data, "A/f64/bn_after_first_forward/").items():
        actual = leaf(run_a.first_statistics, name)
        if name.endswith("running_var"):
            actual = unbiased(name, actual, 1)
        np.testing.assert_allclose(actual, expected, atol=1e-12, rtol=1e-12, err_msg=name)


def test_parameters_and_statistics_after_five_steps(run_a, data):
    for name, expected in with_prefix(data, "A/f64/after5/").items():
        state = run_a.statistics if "running" in name else run_a.params
        actual = leaf(state, name)
        if name.endswith("running_var"):
            actual = unbiased(name, actual, 5)
        np.testing.assert_allclose(actual, to_flax(expected), atol=1e-8, rtol=0, err_msg=name)


def test_evaluation_after_five_steps(run_a, data):
    np.testing.assert_allclose(run_a.eval_logits, data["A/f64/eval_logits"], atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    ("metric", "key"), [("flip_ratio", "n_flip"), ("silent_ratio", "n_silent")]
)
def test_flips_and_silent_weights_of_every_layer(run_a, data, metric, key):
    for column, torch_name in enumerate(map(str, data["binary_layers"])):
        layer = torch_name.replace(".", "/")
        size = data[f"init/{torch_name}.weight"].size
        counted = [round(float(m[layer][metric]) * size) for m in run_a.metrics]
        assert counted == data[f"A/f64/{key}"][:, column].tolist(), layer


def test_training_with_batch_norm_decayed(data):
    """Run B: the recipe for CIFAR as shipped; the reference is stored as float32."""
    tx = ovsw.ovsw_sgd(0.1, weight_decay=5e-4, decay_1d=True)
    run = ResNet20Run(data, tx)
    for name, expected in with_prefix(data, "B/f64/after5/").items():
        if "running" not in name:
            np.testing.assert_allclose(
                leaf(run.params, name), to_flax(expected), atol=1e-6, rtol=1e-6, err_msg=name
            )


BLOCKS = {
    "resnet20_identity": (SkipConvBlock, 8, 1),
    "resnet20_down_optionA": (SkipConvBlock, 16, 2),
    "cresnet18_identity": (BasicBlock, 8, 1),
    "cresnet18_down_binary1x1": (BasicBlock, 16, 2),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(name, dtype):
    data = with_prefix(golden.load("models"), f"block/{name}/")
    kind, features, strides = BLOCKS[name]
    graph, params, statistics = nnx.split(
        kind(8, features, strides, rngs=nnx.Rngs(0)), nnx.Param, ...
    )
    initial = {f".{key}": x for key, x in with_prefix(data, "param/").items()}
    params = load_state(params, initial, dtype)
    statistics = jax.tree.map(lambda x: x.astype(dtype), statistics)
    x = jnp.asarray(np.moveaxis(data["x"], 1, -1), dtype)
    cotangent = jnp.asarray(np.moveaxis(data["ct"], 1, -1), dtype)

    def forward(params, x):
        model = nnx.merge(graph, params, statistics, copy=True)
        model.train()
        return model(x)

    @jax.jit
    def run(params, x, cotangent):
        out, transpose = jax.vjp(forward, params, x)
        return out, *transpose(cotangent)

    out, gradients, dx = run(params, x, cotangent)
    precision, tolerance = ("f64", 1e-11) if dtype == np.float64 else ("f32", 1e-5)
    assert relative_error(out, np.moveaxis(data[f"{precision}/out_train"], 1, -1)) < tolerance
    assert relative_error(dx, np.moveaxis(data[f"{precision}/dx"], 1, -1)) < tolerance
    for parameter, expected in with_prefix(data, f"{precision}/grad/").items():
        error = relative_error(leaf(gradients, f".{parameter}"), to_flax(expected))
        assert error < tolerance, parameter


def test_resnet18_loss_and_gradients():
    data = with_prefix(golden.load("models"), "model/cResNet18/")
    step = golden.load("model_step")
    names = [str(n) for n in data["param_names"]]
    model = nnx.eval_shape(lambda: ovsw.models.CifarResNet18(10, rngs=nnx.Rngs(0)))
    for _, module in nnx.iter_modules(model):
        if isinstance(module, ovsw.nn.BinaryConv):
            module.kernel_sign = official_kernel_sign  # a latent weight is exactly 0
    graph, params, statistics = nnx.split(model, nnx.Param, ...)
    shapes = [shape_of(s) for s in data["param_shapes"]]
    arrays = {
        n: generated_parameter(n, int(data["seed"]) + 7919 * p, shape)
        for p, (n, shape) in enumerate(zip(names, shapes, strict=True))
    }
    zeros = [np.sum(arrays[f"{n}.weight"] == 0) for n in map(str, data["binary_layers"])]
    assert sum(zeros) > 0
    statistics = jax.tree.map_with_path(
        lambda path, x: (jnp.ones if "var" in str(path) else jnp.zeros)(x.shape, jnp.float64),
        statistics,
    )
    params = load_state(jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float64), params), arrays)
    x = jnp.asarray(np.moveaxis(step["x"][::2], 1, -1), jnp.float64)
    y = jnp.asarray(data["y"])

    @jax.jit
    @jax.value_and_grad
    def loss_fn(params):
        model = nnx.merge(graph, params, statistics, copy=True)
        model.train()
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    loss, gradients = loss_fn(params)
    np.testing.assert_allclose(loss, data["loss"], rtol=1e-9)
    for number, name in enumerate(names):
        gradient = leaf(gradients, name)
        official_order = np.transpose(gradient, (3, 2, 0, 1)) if gradient.ndim == 4 else gradient.T
        flat = official_order.ravel()
        indices = (np.arange(16) * 2654435761) % flat.size
        np.testing.assert_allclose(
            flat[indices], data["grad_samples"][number], rtol=1e-9, atol=1e-12, err_msg=name
        )
        np.testing.assert_allclose(
            np.linalg.norm(flat), data["grad_l2"][number], rtol=1e-9, atol=1e-12
        )


def shape_of(text):
    return tuple(int(n) for n in str(text).strip("()").split(",") if n.strip())


def generated_parameter(name, seed, shape):
    """The manifest's formula for parameters that are regenerated, in PyTorch's layout."""
    u = golden.LinearCongruential(int(np.prod(shape)), seed).uniform().reshape(shape)
    if len(shape) == 4:
        value = u * np.sqrt(24 / np.prod(shape[1:]))
    elif len(shape) == 2:
        value = u * np.sqrt(12 / shape[1])
    elif path_of(name)[-1] == "scale":
        value = 1 + 0.5 * u
    else:
        value = 0.2 * u
    return value.astype(np.float32)


def test_names_cover_the_network():
    """The mapping of names reaches every parameter, so that no comparison is left out."""
    params = nnx.state(ovsw.models.CifarResNet20(10, rngs=nnx.Rngs(0)), nnx.Param)
    names = [str(n) for n in golden.load("model_step")["param_order"]]
    assert {path_of(n) for n in names} == set(dict(nnx.to_flat_state(params)))
