"""Binarised layers for Flax NNX, and the signs with their gradients."""

from ovsw_jax.nn.layers import BinaryConv, BinaryDense
from ovsw_jax.nn.signs import approx_sign, clipped_ste_sign, sign, ste_sign

__all__ = [
    "BinaryConv",
    "BinaryDense",
    "approx_sign",
    "clipped_ste_sign",
    "sign",
    "ste_sign",
]
