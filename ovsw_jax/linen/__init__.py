"""Binarised layers for Flax linen, over the same arithmetic as `ovsw_jax.nn`."""

from ovsw_jax.linen.activations import PReLU, RPReLU
from ovsw_jax.linen.filter_axes import filter_axes, layer_axes
from ovsw_jax.linen.layers import BinaryConv, BinaryDense
from ovsw_jax.linen.sharpening import SharpeningSign
from ovsw_jax.linen.threshold import LearnedThresholdSign

__all__ = [
    "BinaryConv",
    "BinaryDense",
    "LearnedThresholdSign",
    "PReLU",
    "RPReLU",
    "SharpeningSign",
    "filter_axes",
    "layer_axes",
]
