"""What users write, for type checkers: nothing here needs a cast, an Any or an ignored error.

mypy checks it in the clone; .ci/release checks it by basedpyright against the wheel.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import assert_type

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import ovsw_jax as ovsw


class Net(nnx.Module):
    """Two binary layers, a real stem and head."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        """Random initial weights."""
        self.stem = nnx.Conv(3, 16, (3, 3), rngs=rngs)
        self.conv = ovsw.nn.BinaryConv(16, 32, (3, 3), padding=1, rngs=rngs)
        self.bn = ovsw.nn.BatchNorm(32, rngs=rngs)
        self.dense = ovsw.nn.BinaryDense(32, 10, input_sign=ovsw.nn.approx_sign, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits (n, 10) of images (n, height, width, 3)."""
        x = self.bn(self.conv(self.stem(images)))
        return self.dense(ovsw.nn.hardtanh(x).mean((1, 2)))


def rules(schedule: optax.Schedule) -> optax.GradientTransformation:
    """The rules in a chain, and as one optimizer."""
    chained = optax.chain(
        ovsw.scale_by_ags(lam=0.04),
        ovsw.silence_aware_decay(tau=9e-4),
        optax.sgd(schedule, momentum=0.9),
        ovsw.clip_latent(1.5),
    )
    others = [ovsw.ovsw_sgd(0.1), ovsw.lars_sgd(schedule), ovsw.bop(1e-6), ovsw.track_flip_state()]
    return optax.chain(chained, *others)


def train(net: Net, images: jax.Array, labels: jax.Array) -> Mapping[str, Mapping[str, jax.Array]]:
    """A step, and what the flip state says after it."""
    optimizer = nnx.Optimizer(net, ovsw.ovsw_sgd(0.1), wrt=nnx.Param)

    def loss(net: Net) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(net(images), labels).mean()

    optimizer.update(net, nnx.grad(loss)(net))
    return ovsw.flip_metrics(optimizer.opt_state)


def look(net: Net, images: jax.Array) -> str:
    """Whether its layers can learn, and what they cost."""
    assert_type(ovsw.silence_horizon(0.999, 1e-4), int)
    inspected = ovsw.inspect(net, images)
    summarised = ovsw.summary(net, (1, 32, 32, 3))
    return f"{inspected}\n{summarised}"


def ship(net: Net, path: Path) -> jax.Array:
    """The one-bit file and back."""
    frozen = ovsw.deploy.freeze(net, (1, 32, 32, 3))
    frozen.save(path)
    return ovsw.deploy.load(path)(jnp.zeros((1, 32, 32, 3)))
