"""The networks that the benchmarks know by name."""

from collections.abc import Callable
from typing import Any, Literal

import jax
from flax import nnx

import ovsw_jax as ovsw

NetworkName = Literal["resnet18", "resnet20", "small"]
NETWORKS: dict[str, Callable[..., nnx.Module]] = {
    "resnet18": ovsw.models.CifarResNet18,
    "resnet20": ovsw.models.CifarResNet20,
    "imagenet_resnet18": ovsw.models.ResNet18,  # for images of another size: compiled, not timed
    "small": ovsw.models.SmallResNet,
}


def initial_parameters(network: str) -> Any:
    """Parameters of a network, as a nested dict of arrays."""

    @jax.jit
    def init() -> Any:
        model = NETWORKS[network](10, rngs=nnx.Rngs(0))
        return nnx.to_pure_dict(nnx.state(model, nnx.Param))

    return init()


def latent_weights(params: Any) -> int:
    """How many of the parameters are latent weights."""
    latent = jax.tree.leaves(ovsw.latent_mask(params))
    return sum(
        p.size for p, is_latent in zip(jax.tree.leaves(params), latent, strict=True) if is_latent
    )
