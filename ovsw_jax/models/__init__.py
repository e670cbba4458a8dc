"""The paper's networks for CIFAR, and a small one, as Flax NNX modules."""

from ovsw_jax.models.cifar_resnet18 import CifarResNet18
from ovsw_jax.models.cifar_resnet20 import CifarResNet20, SmallResNet

__all__ = ["CifarResNet18", "CifarResNet20", "SmallResNet"]
