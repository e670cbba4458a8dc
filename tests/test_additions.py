"""A rule, a sign and a network as somebody else adds them.

Through public names alone, which tests/test_imports.py checks.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import ovsw_jax as ovsw


@ovsw.nn.sign_with_gradient
def cubic_sign(x):
    """Pseudo-gradient max(1 - |x|^3, 0)."""
    return jnp.maximum(1 - jnp.abs(x) ** 3, 0)


class NoiseState(NamedTuple):
    """What the latest update of `wake_silent` saw."""

    key: jax.Array
    woken: Any

    def layer_metrics(self):
        """The share of weights that noise was added to."""
        return {"woken_ratio": (self.woken, jax.tree.map(jnp.ones_like, self.woken))}


def wake_silent(size):
    """A rule: adds noise to the gradients of silent weights, and reports how many there are."""

    def init(params):
        return NoiseState(jax.random.key(0), _per_kernel(ovsw.latent_mask(params), jnp.zeros(())))

    def update(updates, state, params=None, *, flips, **_):
        silent = ovsw.silent_mask(flips)
        key, draw = jax.random.split(state.key)

        def noisy(gradient, is_silent):
            if isinstance(is_silent, optax.MaskedNode):
                return gradient
            return gradient + size * is_silent * jax.random.normal(draw, gradient.shape)

        is_leaf = lambda x: isinstance(x, optax.MaskedNode)  # noqa: E731
        updates = jax.tree.map(noisy, updates, silent, is_leaf=is_leaf)
        return updates, NoiseState(key, jax.tree.map(jnp.mean, silent))

    return optax.GradientTransformationExtraArgs(init, update)


def _per_kernel(mask, value):
    return jax.tree.map(lambda latent: value if latent else optax.MaskedNode(), mask)


class Net(nnx.Module):
    """A network of a user: one binary convolution with the user's sign."""

    def __init__(self, classes, *, in_channels, rngs):
        self.stem = nnx.Conv(in_channels, 8, (3, 3), rngs=rngs)
        self.norm = ovsw.nn.BatchNorm(8, rngs=rngs)
        self.body = ovsw.nn.BinaryConv(8, 16, (3, 3), input_sign=cubic_sign, rngs=rngs)
        self.head = nnx.Linear(16, classes, rngs=rngs)

    def __call__(self, x):
        x = self.body(ovsw.nn.hardtanh(self.norm(self.stem(x))))
        return self.head(jnp.mean(x, (1, 2)))


def test_they_work_together():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(8, 6, 6, 1)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 3, 8))
    model = Net(3, in_channels=1, rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    watch, rule = ovsw.track_flip_state(), wake_silent(0.1)
    sgd = ovsw.ovsw_sgd(0.1, axes=ovsw.filter_axes(model))

    @jax.jit
    def step(params, states):
        def loss(params):
            logits = nnx.merge(graph, params, rest)(images)
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

        value, gradients = jax.value_and_grad(loss)(params)
        flips, noise, momentum = states
        gradients, flips = watch.update(gradients, flips, params)
        gradients, noise = rule.update(gradients, noise, params, flips=flips)
        updates, momentum = sgd.update(gradients, momentum, params)
        return optax.apply_updates(params, updates), (flips, noise, momentum), value

    states = tuple(tx.init(params) for tx in (watch, rule, sgd))
    losses = []
    for _ in range(5):
        params, states, value = step(params, states)
        losses.append(float(value))
    assert losses[-1] < losses[0]
    metrics = ovsw.flip_metrics(states[:2])
    assert set(metrics) == {"body", "total"}
    assert metrics["body"]["woken_ratio"] == metrics["body"]["silent_ratio"] > 0


def test_the_sign_counts_bits():
    """Its layer keeps a word for each pixel of up to 32 channels, not a number for each channel."""
    layer = ovsw.nn.BinaryConv(8, 16, (3, 3), input_sign=cubic_sign, rngs=nnx.Rngs(0))
    x = jnp.ones((2, 6, 6, 8))
    known = str(jax.make_jaxpr(lambda x: layer(x))(x))
    layer.input_sign = lambda x: cubic_sign(x)
    unknown = str(jax.make_jaxpr(lambda x: layer(x))(x))
    assert "u32[2,6,6,1]" in known
    assert "u32[2,6,6,1]" not in unknown
    np.testing.assert_allclose(jax.grad(cubic_sign)(0.5), 1 - 0.5**3)


def test_the_network_is_counted():
    summary = ovsw.summary(Net(3, in_channels=1, rngs=nnx.Rngs(0)), (1, 6, 6, 1))
    assert summary.total.binary_params == 3 * 3 * 8 * 16
