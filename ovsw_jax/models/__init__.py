"""The paper's networks for CIFAR and ImageNet, a small one, and their blocks, in Flax NNX."""

from ovsw_jax.models.basic_block import BasicBlock
from ovsw_jax.models.bireal_block import BiRealBlock
from ovsw_jax.models.cifar_resnet18 import CifarResNet18
from ovsw_jax.models.cifar_resnet20 import CifarResNet20, SmallResNet
from ovsw_jax.models.parts import hardtanh
from ovsw_jax.models.react_block import ReActBlock
from ovsw_jax.models.resnet import ResNet18, ResNet34
from ovsw_jax.models.shortcuts import ConvShortcut, PadShortcut
from ovsw_jax.models.vgg_small import VGGSmall

__all__ = [
    "BasicBlock",
    "BiRealBlock",
    "CifarResNet18",
    "CifarResNet20",
    "ConvShortcut",
    "PadShortcut",
    "ReActBlock",
    "ResNet18",
    "ResNet34",
    "SmallResNet",
    "VGGSmall",
    "hardtanh",
]
