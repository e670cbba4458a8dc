"""Blocks, networks and whole training steps against the official code, in float64.

A freshly initialised binary network is chaotic: one activation that rounds to the other side of
zero changes half the signs of the last layers. Only float64 comparisons mean anything here.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from longer import long_but

import ovsw_jax as ovsw
from ovsw_jax.models import BasicBlock, BiRealBlock, ConvShortcut, PadShortcut
from tests import golden
from tests.golden_networks import CASES, NetworkRun, compiled, shape_of, with_prefix
from tests.torch_names import leaf, load_state, path_of, to_flax, to_torch

pytestmark = pytest.mark.usefixtures("float64")


def relative_error(actual, expected):
    return np.abs(actual - expected).max() / np.abs(expected).max()


@pytest.fixture(scope="module", params=long_but(CASES, "cResNet20"))
def network(request):
    with jax.enable_x64(True):
        return NetworkRun(request.param)


@pytest.mark.parametrize(
    ("attribute", "key"),
    [
        ("loss", "loss"),
        ("logits", "logits"),
        ("loss_after", "loss_after1"),
        ("logits_after", "logits_after1_train"),
        ("eval_logits", "logits_after1_eval"),
    ],
)
def test_network_before_and_after_one_step(network, attribute, key):
    assert relative_error(getattr(network, attribute), network.data[key]) < 1e-9


@pytest.mark.parametrize(
    ("attribute", "keys"),
    [
        ("gradients", ("grad_l2", "grad_samples")),
        ("hooked", ("hooked_l2", "hooked_samples")),  # after AGS and SAD
        ("parameters", (None, "param_samples_after1")),
    ],
)
def test_network_arrays(network, attribute, keys):
    for actual, key in zip(getattr(network, attribute), keys, strict=True):
        if key is not None:
            np.testing.assert_allclose(actual, network.data[key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_network_binary_layers(name):
    """Every parameter has a name and a shape in the reference, and the same layers are binary."""
    case, data = CASES[name], with_prefix(golden.load("models"), f"model/{name}/")
    params = dict(nnx.to_flat_state(compiled(case.network, case.classes).params))
    names = [str(n) for n in data["param_names"]]
    paths = {n: path_of(n, params) for n in names}
    assert set(paths.values()) == set(params)
    for n, shape in zip(names, map(shape_of, data["param_shapes"]), strict=True):
        assert to_torch(np.empty(params[paths[n]].shape)).shape == shape, n
    binary = [n for n, path in paths.items() if path[-1] == "latent_kernel"]
    assert binary == [f"{n}.weight" for n in map(str, data["binary_layers"])]


class ResNet20Run:
    """Five training steps on one batch, with the official initial weights."""

    def __init__(self, data, tx):
        x = jnp.asarray(np.moveaxis(data["x"], 1, -1), jnp.float64)
        functions = compiled(ovsw.models.CifarResNet20, 10)
        init = {n: to_flax(x) for n, x in with_prefix(data, "init/").items()}
        names = [str(n) for n in data["param_order"]]
        self.params = load_state(functions.params, {n: init[n] for n in names})
        running = {n: x for n, x in init.items() if "running" in n}
        self.statistics = load_state(functions.statistics, running)
        y = jnp.asarray(data["y"])

        @jax.jit
        def step(params, opt_state, gradients):
            updates, opt_state = tx.update(gradients, opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        self.losses, self.logits, self.metrics = [], [], []
        self.opt_state = jax.jit(tx.init)(self.params)
        for number in range(5):
            loss, (logits, self.statistics), gradients = functions.gradients(
                self.params, self.statistics, x, y
            )
            self.params, self.opt_state = step(self.params, self.opt_state, gradients)
            self.losses.append(loss)
            self.logits.append(logits)
            self.metrics.append(ovsw.flip_metrics(self.opt_state))
            if number == 0:
                self.first_gradients = gradients
                self.first_statistics = functions.as_pytorch(self.statistics, x, steps=1)
        self.statistics = functions.as_pytorch(self.statistics, x, steps=5)
        self.eval_logits = functions.evaluate(self.params, self.statistics, x)


@pytest.fixture(scope="module")
def data():
    return golden.load("model_step")


@pytest.fixture(scope="module")
def run_a(data):
    with jax.enable_x64(True):
        return ResNet20Run(data, ovsw.ovsw_sgd(0.1, weight_decay=1e-4, lam=0.04, tau=9e-4))


@pytest.mark.long
def test_loss_and_logits_of_five_steps(run_a, data):
    np.testing.assert_allclose(run_a.losses, data["A/f64/loss_per_step"], atol=1e-10, rtol=0)
    np.testing.assert_allclose(run_a.logits, data["A/f64/logits_per_step"], atol=1e-10, rtol=0)


@pytest.mark.long
def test_gradients_of_the_first_step(run_a, data):
    for name, expected in with_prefix(data, "A/f64/grad0/").items():
        assert relative_error(leaf(run_a.first_gradients, name), to_flax(expected)) < 1e-9, name


def test_gradients_after_the_rules(data):
    """AGS and SAD on the official raw gradients of the first step, of layers that are there."""
    expected = with_prefix(data, "A/f64/hooked_grad0/")
    params, grads = (
        {n: {"latent_kernel": jnp.asarray(to_flax(data[f"{kind}/{n}"]))} for n in expected}
        for kind in ("init", "A/f64/grad0")
    )
    tx = optax.chain(ovsw.ags(0.04), ovsw.sad(9e-4))
    hooked = jax.jit(lambda g, p: tx.update(g, tx.init(p), p)[0])(grads, params)
    for name, gradient in expected.items():
        np.testing.assert_allclose(
            hooked[name]["latent_kernel"],
            to_flax(gradient),
            rtol=1e-12,
            atol=1e-18,
            err_msg=name,
        )


@pytest.mark.parametrize(("number", "side"), [(1, 16), (2, 8)])
def test_statistics_behind_layers_that_get_the_official_signs(data, number, side):
    """Convolutions of the network on the recorded signs of their inputs: it needs no images."""
    name = f"layer3.0.conv{number}"
    block = compiled(ovsw.models.CifarResNet20, 10).model.layer3[0]
    graph, _ = nnx.split(getattr(block, f"conv{number}"))
    kernel = to_flax(data[f"init/{name}.weight"])
    bits = np.unpackbits(data[f"A/f64/step0_input_positive_bits/{name}"])
    signs = np.moveaxis(bits.reshape(-1, kernel.shape[2], side, side), 1, -1) * 2.0 - 1

    out = np.asarray(nnx.merge(graph, {"latent_kernel": jnp.asarray(kernel)})(jnp.asarray(signs)))
    # PyTorch's running statistics start at 0 and 1 and keep 0.9 of it; their variance is unbiased.
    expected = with_prefix(data, f"A/f64/bn_after_first_forward/layer3.0.bn{number}.running_")
    mean, var = 0.1 * out.mean((0, 1, 2)), 0.9 + 0.1 * np.var(out, (0, 1, 2), ddof=1)
    np.testing.assert_allclose(mean, expected["mean"], atol=1e-12, rtol=1e-12)
    np.testing.assert_allclose(var, expected["var"], atol=1e-12, rtol=1e-12)


@pytest.mark.long
def test_batch_statistics_after_the_first_forward(run_a, data):
    for name, expected in with_prefix(data, "A/f64/bn_after_first_forward/").items():
        actual = leaf(run_a.first_statistics, name)
        np.testing.assert_allclose(actual, expected, atol=1e-12, rtol=1e-12, err_msg=name)


@pytest.mark.long
def test_parameters_and_statistics_after_five_steps(run_a, data):
    for name, expected in with_prefix(data, "A/f64/after5/").items():
        actual = leaf(run_a.statistics if "running" in name else run_a.params, name)
        np.testing.assert_allclose(actual, to_flax(expected), atol=1e-8, rtol=0, err_msg=name)


@pytest.mark.long
def test_evaluation_after_five_steps(run_a, data):
    np.testing.assert_allclose(run_a.eval_logits, data["A/f64/eval_logits"], atol=1e-8, rtol=0)


@pytest.mark.long
@pytest.mark.parametrize(
    ("metric", "key"), [("flip_ratio", "n_flip"), ("silent_ratio", "n_silent")]
)
def test_flips_and_silent_weights_of_every_layer(run_a, data, metric, key):
    for column, torch_name in enumerate(map(str, data["binary_layers"])):
        layer = torch_name.replace(".", "/")
        size = data[f"init/{torch_name}.weight"].size
        counted = [round(float(m[layer][metric]) * size) for m in run_a.metrics]
        assert counted == data[f"A/f64/{key}"][:, column].tolist(), layer


@pytest.mark.long
def test_training_with_batch_norm_decayed(data):
    """Run B: the recipe for CIFAR as shipped; the reference is stored as float32."""
    tx = ovsw.ovsw_sgd(0.1, weight_decay=5e-4, decay_1d=True)
    run = ResNet20Run(data, tx)
    for name, expected in with_prefix(data, "B/f64/after5/").items():
        if "running" not in name:
            np.testing.assert_allclose(
                leaf(run.params, name), to_flax(expected), atol=1e-6, rtol=1e-6, err_msg=name
            )


PAD = partial(BiRealBlock, shortcut=PadShortcut)
CONV = partial(BiRealBlock, shortcut=ConvShortcut)
BLOCKS = {
    "resnet20_identity": (PAD, 8, 1),
    "resnet20_down_optionA": (PAD, 16, 2),
    "cresnet18_identity": (BasicBlock, 8, 1),
    "cresnet18_down_binary1x1": (BasicBlock, 16, 2),
    "imagenet_identity": (CONV, 8, 1),
    "imagenet_down_fp1x1": (CONV, 16, 2),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(name, dtype):
    data = with_prefix(golden.load("models"), f"block/{name}/")
    kind, features, strides = BLOCKS[name]
    abstract = nnx.eval_shape(lambda: kind(8, features, strides, rngs=nnx.Rngs(0)))
    graph, params, statistics = nnx.split(abstract, nnx.Param, ...)
    initial = {key: to_flax(x) for key, x in with_prefix(data, "param/").items()}
    params = load_state(params, initial, dtype)
    start = jax.tree.map(lambda x: jnp.zeros(x.shape, dtype), statistics)
    x = jnp.asarray(np.moveaxis(data["x"], 1, -1), dtype)
    cotangent = jnp.asarray(np.moveaxis(data["ct"], 1, -1), dtype)

    def forward(params, x):
        model = nnx.merge(graph, params, start, copy=True)
        model.train()
        return model(x), nnx.state(model, nnx.Not(nnx.Param))

    @jax.jit
    def run(params, x, cotangent):
        out, transpose, statistics = jax.vjp(forward, params, x, has_aux=True)
        return out, statistics, *transpose(cotangent)

    out, statistics, gradients, dx = run(params, x, cotangent)
    precision, tolerance = ("f64", 1e-11) if dtype == np.float64 else ("f32", 1e-5)
    assert relative_error(out, np.moveaxis(data[f"{precision}/out_train"], 1, -1)) < tolerance
    assert relative_error(dx, np.moveaxis(data[f"{precision}/dx"], 1, -1)) < tolerance
    for parameter, expected in with_prefix(data, f"{precision}/grad/").items():
        error = relative_error(leaf(gradients, parameter), to_flax(expected))
        assert error < tolerance, parameter
    for name, expected in with_prefix(data, f"{precision}/buffers/").items():
        n = out.size // out.shape[-1]
        actual = leaf(statistics, name)
        if name.endswith("running_var"):  # PyTorch's begins at 1 and adds the unbiased variance
            actual = 0.9 + actual * n / (n - 1)
        assert relative_error(actual, expected) < tolerance, name
