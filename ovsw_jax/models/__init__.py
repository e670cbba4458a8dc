"""The paper's networks in Flax NNX, a small one, their blocks, trained ones, PyTorch's weights."""

from ovsw_jax.models.blocks import BasicBlock, BiRealBlock, ReActBlock
from ovsw_jax.models.cifar_resnet import CifarResNet18, CifarResNet20, SmallResNet
from ovsw_jax.models.resnet import ResNet18, ResNet34
from ovsw_jax.models.shortcuts import ConvShortcut, PadShortcut
from ovsw_jax.models.torch_weights import TorchNames, load_torch, torch_state_dict
from ovsw_jax.models.trained_networks import Pretrained, pretrained
from ovsw_jax.models.vgg_small import VGGSmall
from ovsw_jax.nn.hardtanh import hardtanh

__all__ = [
    "BasicBlock",
    "BiRealBlock",
    "CifarResNet18",
    "CifarResNet20",
    "ConvShortcut",
    "PadShortcut",
    "Pretrained",
    "ReActBlock",
    "ResNet18",
    "ResNet34",
    "SmallResNet",
    "TorchNames",
    "VGGSmall",
    "hardtanh",
    "load_torch",
    "pretrained",
    "torch_state_dict",
]
