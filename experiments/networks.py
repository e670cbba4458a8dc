"""The networks that can be trained by name, and a network as pure functions of its state."""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from flax import nnx

import ovsw_jax as ovsw
from experiments.choices import choose

NETWORKS: dict[str, Callable[..., nnx.Module]] = {
    "small": ovsw.models.SmallResNet,
    "tiny": partial(ovsw.models.SmallResNet, widths=(16, 32, 64), stem_strides=4),
    "resnet20": ovsw.models.CifarResNet20,
    "resnet18": ovsw.models.CifarResNet18,
}


def find_network(name: str) -> Callable[..., nnx.Module]:
    """The network called `name`, or a user's own as package.module:Class.

    Returns:
      A callable of (classes, in_channels=, rngs=) that makes an NNX module.

    Raises:
      ValueError: if there is none.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        return choose("network", name, NETWORKS)
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"network {name!r} can't be imported: {error}. Give package.module:Class of an NNX "
            "module made as Class(classes, in_channels=..., rngs=...), in a package that Python "
            "finds from here."
        ) from error


class Network:
    """A network whose parameters and batch statistics are plain pytrees.

    Plain pytrees go through `jax.jit`, not NNX modules: it costs a tenth of the Python time of
    `nnx.jit` a step. All optimizers share one network, so its initialisation compiles once.
    """

    def __init__(self, make: Callable[..., nnx.Module], classes: int, in_channels: int):
        """Describes the network; nothing is computed yet."""
        self._make = partial(make, classes, in_channels=in_channels)
        abstract = nnx.eval_shape(lambda: self._make(rngs=nnx.Rngs(0)))
        self._graph = nnx.split(abstract, nnx.Param, ...)[0]

    @partial(jax.jit, static_argnums=0)
    def init(self, keys: jax.Array) -> tuple[Any, Any]:
        """Parameters and statistics for (n,) random keys; every leaf has a leading axis of n."""

        def init_one(key: jax.Array) -> tuple[Any, Any]:
            model = self._make(rngs=nnx.Rngs(params=key))
            statistics = nnx.state(model, nnx.Not(nnx.Param))
            return nnx.to_pure_dict(nnx.state(model, nnx.Param)), nnx.to_pure_dict(statistics)

        return jax.vmap(init_one)(keys)

    def train(self, params: Any, statistics: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        """Logits in training mode, and the batch statistics after this batch."""
        model = nnx.merge(self._graph, params, statistics)
        model.train()
        logits = model(images)
        return logits, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))

    def evaluate(self, params: Any, statistics: Any, images: jax.Array) -> jax.Array:
        """Logits in evaluation mode."""
        model = nnx.merge(self._graph, params, statistics)
        model.eval()
        return model(images)
