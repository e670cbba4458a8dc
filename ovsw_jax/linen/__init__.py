"""Binarised layers for Flax linen, over the same arithmetic as `ovsw_jax.nn`."""

from ovsw_jax.linen.layers import BinaryConv, BinaryDense

__all__ = ["BinaryConv", "BinaryDense"]
