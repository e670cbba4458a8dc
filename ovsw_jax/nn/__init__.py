"""Binarised layers for Flax NNX, signs with gradients, factors, activations, batch norm."""

from ovsw_jax.nn.activations import PReLU, RPReLU
from ovsw_jax.nn.batch_norm import BatchNorm
from ovsw_jax.nn.filter_signs import magnitude_aware_sign, standardized_sign
from ovsw_jax.nn.hardtanh import hardtanh
from ovsw_jax.nn.layers import BinaryConv, BinaryDense
from ovsw_jax.nn.linear_general import BinaryLinearGeneral
from ovsw_jax.nn.platforms import compute_for
from ovsw_jax.nn.scale import mean_magnitude, standardize_kernel, standardized_scale
from ovsw_jax.nn.sharpening import SharpeningSign
from ovsw_jax.nn.signs import (
    approx_sign,
    clipped_ste_sign,
    sign,
    sign_with_gradient,
    ste_sign,
    swish_sign,
    tanh_sign,
)
from ovsw_jax.nn.threshold import LearnedThresholdSign

__all__ = [
    "BatchNorm",
    "BinaryConv",
    "BinaryDense",
    "BinaryLinearGeneral",
    "LearnedThresholdSign",
    "PReLU",
    "RPReLU",
    "SharpeningSign",
    "approx_sign",
    "clipped_ste_sign",
    "compute_for",
    "hardtanh",
    "magnitude_aware_sign",
    "mean_magnitude",
    "sign",
    "sign_with_gradient",
    "standardize_kernel",
    "standardized_scale",
    "standardized_sign",
    "ste_sign",
    "swish_sign",
    "tanh_sign",
]
