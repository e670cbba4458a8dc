"""Binarised layers for Flax linen, over the same arithmetic as `ovsw_jax.nn`."""

from ovsw_jax.linen.activations import PReLU, RPReLU
from ovsw_jax.linen.dense_general import BinaryDenseGeneral
from ovsw_jax.linen.filter_axes import filter_axes, layer_axes
from ovsw_jax.linen.inspection import inspect
from ovsw_jax.linen.layers import BinaryConv, BinaryDense
from ovsw_jax.linen.sharpening import SharpeningSign
from ovsw_jax.linen.threshold import LearnedThresholdSign

__all__ = [
    "BinaryConv",
    "BinaryDense",
    "BinaryDenseGeneral",
    "LearnedThresholdSign",
    "PReLU",
    "RPReLU",
    "SharpeningSign",
    "filter_axes",
    "inspect",
    "layer_axes",
]
