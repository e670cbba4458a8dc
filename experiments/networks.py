"""The networks that can be trained by name."""

from collections.abc import Callable

from flax import nnx

import ovsw_jax as ovsw

NETWORKS: dict[str, Callable[..., nnx.Module]] = {
    "small": ovsw.models.SmallResNet,
    "resnet20": ovsw.models.CifarResNet20,
    "resnet18": ovsw.models.CifarResNet18,
}
