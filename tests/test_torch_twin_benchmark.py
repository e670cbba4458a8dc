"""The peers of the benchmark do the arithmetic of the library: PyTorch's twin and plain JAX."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ovsw_jax as ovsw
from benchmarks import jax_step, literal_ovsw

LABELS = np.arange(4) % 3
IMAGES = np.random.default_rng(0).normal(size=(4, 16, 16, 3))
LARGER = np.random.default_rng(0).normal(size=(4, 32, 32, 3))  # which ImageNet's ResNet18 halves

pytestmark = pytest.mark.usefixtures("float64")


def float64_params(name):
    """Parameters of a network.

    Batch norms are not as at the start: a sum that is exactly its mean would give 0 there, and the
    sign of that is one of rounding.
    """
    rng = np.random.default_rng(0)

    def moved(x):
        return np.asarray(x, np.float64) + (rng.normal(0, 0.1, x.shape) if x.ndim == 1 else 0)

    return jax.tree.map(moved, jax_step.make_network(name, "ovsw_jax")[1])


def backward_pass(name, code="ovsw_jax"):
    """A compiled function from parameters to logits and gradients."""
    apply, _, statistics = jax_step.make_network(name, code)
    images = LARGER if name == "imagenet_resnet18" else IMAGES

    def loss(params):
        logits, _ = apply(params, jax.tree.map(jnp.float64, statistics), images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
        return jnp.mean(losses), logits

    return jax.jit(lambda params: jax.grad(loss, has_aux=True)(params)[::-1])


@functools.cache
def ours(name):
    """Parameters of the library's network, and its logits and gradients there."""
    params = float64_params(name)
    return params, *backward_pass(name)(params)


def assert_close(actual, expected):
    """Within 1e-9 of the largest number."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


@pytest.mark.long
@pytest.mark.parametrize("name", ["small", "imagenet_resnet18"])
def test_plain_jax_agrees(name):
    params, *expected = ours(name)
    jax.tree.map(assert_close, list(backward_pass(name, "plain")(params)), expected)


def twin_of(name, params):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_twin

    twin = torch_twin.NETWORKS[name]().to(torch.float64, memory_format=torch.channels_last)
    torch_twin.load(twin, params)
    return torch, torch_twin, twin


def backward(torch, twin):
    """Runs the twin forward and backward; returns the logits."""
    twin.zero_grad()
    logits = twin(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2)))
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(LABELS)).backward()
    return logits.detach().numpy()


@pytest.mark.parametrize("name", ["small", "resnet20", "resnet18"])
def test_twin_agrees(name):
    pytest.importorskip("torch")
    params, logits, gradients = ours(name)
    torch, torch_twin, twin = twin_of(name, params)
    assert_close(backward(torch, twin), logits)
    expected = torch_twin.named(gradients)
    assert expected.keys() == dict(twin.named_parameters()).keys()
    for key, parameter in twin.named_parameters():
        assert_close(parameter.grad.numpy(), expected[key])


def test_twin_trains_alike():
    params = float64_params("small")
    torch, torch_twin, twin = twin_of("small", params)
    options = {"lam": 0.5, "tau": 0.1, "threshold": 5e-4}
    tx = ovsw.ovsw_sgd(0.1, state="ema", flip_momentum=0.9, **options)
    optimizer = torch_twin.sgd(twin)
    torch_twin.OvSW(twin, momentum=0.9, **options).attach(optimizer)
    state, run, update = tx.init(params), backward_pass("small"), jax.jit(tx.update)
    for _ in range(2):
        updates, state = update(run(params)[1], state, params)
        params = optax.apply_updates(params, updates)
        backward(torch, twin)
        optimizer.step()
    expected = torch_twin.named(params)
    for key, parameter in twin.named_parameters():
        assert_close(parameter.detach().numpy(), expected[key])
    assert 0 < ovsw.flip_metrics(state)["total"]["silent_ratio"] < 1


def test_twin_refuses_other_parameters():
    pytest.importorskip("torch")
    params = float64_params("small")
    with pytest.raises(ValueError, match=r"not the parameters of this CifarResNet20: .*layer3"):
        twin_of("resnet20", params)


def test_literal_rules_are_those_of_the_library():
    rng = np.random.default_rng(0)
    params = {"a": {"latent_kernel": rng.normal(size=(9, 8))}, "bias": rng.normal(size=8)}
    params = jax.tree.map(jnp.asarray, params)
    options = {"lam": 0.5, "tau": 0.1, "momentum": 0.9, "threshold": 5e-4}
    ours = optax.chain(
        ovsw.ags(0.5), ovsw.sad(0.1, momentum=0.9, threshold=5e-4, state="ema"), optax.sgd(0.5)
    )
    peer = optax.chain(literal_ovsw.literal_ovsw(**options), optax.sgd(0.5))
    state, of_peer = ours.init(params), peer.init(params)
    latent = params["a"]["latent_kernel"].size
    size = sum(x.nbytes for x in jax.tree.leaves(of_peer))
    assert size == 2 * 8 * latent  # in float32 half of that
    for _ in range(5):
        gradients = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)
        updates, state = ours.update(gradients, state, params)
        of_them, of_peer = peer.update(gradients, of_peer, params)
        jax.tree.map(assert_close, of_them, updates)
        params = optax.apply_updates(params, updates)
    assert ovsw.flip_metrics(state)["total"]["flip_ratio"] > 0
