"""Factors: what a layer multiplies each filter's sums by; and the standardised kernel."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from ovsw_jax.nn._checks import floating_array
from ovsw_jax.nn._kernels.arithmetic import EPSILON
from ovsw_jax.nn._kernels.finite import nan_unless_finite
from ovsw_jax.nn._kernels.sums import mean_and_variance
from ovsw_jax.nn.platforms import platform
from ovsw_jax.precision import accurate_dtype

Scale = Literal["standardized", "learned"] | Callable[[jax.Array], jax.Array] | None


def check_scale(scale: object, kernel_sign: object) -> None:
    """Raises ValueError unless `scale` is a kind of factor, and one for such a kernel."""
    named = scale is None or (isinstance(scale, str) and scale in ("standardized", "learned"))
    if not callable(scale) and not named:
        raise ValueError(
            f"scale={scale!r} is unknown: use 'standardized', 'learned', a function of the kernel "
            "such as ovsw.nn.mean_magnitude, or None for no factor."
        )
    if kernel_sign is None and scale not in ("learned", None):
        raise ValueError(
            f"scale={scale!r} gives signs the magnitude of the weights behind them, which the real "
            "weights of kernel_sign=None have themselves: use scale=None or scale='learned'."
        )


def initial_scale(kernel: jax.Array, kernel_sign: object) -> jax.Array:
    """Where the learned factor starts: mean |W| of each filter, or 1 if the weights are real."""
    if kernel_sign is None:
        return jnp.ones(kernel.shape[-1], kernel.dtype)
    return mean_magnitude(kernel)


def factor(
    scale: Scale, kernel: jax.Array, learned: jax.Array | None, kernel_sign: object
) -> jax.Array | None:
    """The factor of each filter, (out_features,), or None.

    It is NaN for a filter in whose signs a NaN or an infinity hides.

    Args:
      scale: kind of factor.
      kernel: weights, (..., out_features).
      learned: the parameter of the learned factor.
      kernel_sign: sign of the weights, or None.

    Raises:
      ValueError: if `scale` is a function that gives no such array.
    """
    if scale == "standardized":
        return standardized_scale(kernel)
    factors = _given(scale, kernel) if callable(scale) else learned
    if kernel_sign is None:
        return factors
    finite = nan_unless_finite(kernel, range(kernel.ndim - 1))
    return finite if factors is None else factors * finite.astype(factors.dtype)


def _given(scale: Callable[[jax.Array], jax.Array], kernel: jax.Array) -> jax.Array:
    factors = scale(kernel)
    shape = getattr(factors, "shape", None)
    if shape != kernel.shape[-1:]:
        gave = repr(factors) if shape is None else f"factors of shape {shape}"
        raise ValueError(
            f"scale={scale!r} gave {gave} for a kernel of shape {kernel.shape}: it must give an "
            f"array of one factor per filter, {kernel.shape[-1:]}."
        )
    return factors


def filters(kernel: jax.Array) -> jax.Array:
    """A kernel as an array; an error unless it has an axis of filters, with weights in each."""
    kernel = floating_array("kernel", kernel)
    if kernel.ndim == 0 or 0 in kernel.shape[:-1]:
        raise ValueError(
            f"kernel of shape {kernel.shape} has no filter with weights: its last axis must be "
            "that of the filters, and no other may be empty."
        )
    return kernel


def mean_magnitude(kernel: jax.Array) -> jax.Array:
    r"""Mean |W| of each filter, without gradient: the factor of XNOR-Net and ReActNet.

    .. math::
      \alpha_i = \operatorname{mean} |W_i|,

    of all alpha the one with the least :math:`\|W_i - \alpha \operatorname{sign} W_i\|_2`. The
    backward pass holds it constant. XNOR-Net differentiates it: for that, pass
    `scale=lambda W: jnp.abs(W).mean(tuple(range(W.ndim - 1)))`.

    Args:
      kernel: latent weights, (..., out_features).

    Returns:
      (out_features,) array, with the dtype of `kernel`.

    >>> mean_magnitude(jnp.array([[1.0, -0.5], [-3.0, 0.0]])).tolist()
    [2.0, 0.25]

    Source: Rastegari et al. 2016, XNOR-Net, Sec. 3.1; Liu et al. 2020, ReActNet.
    """
    kernel = lax.stop_gradient(filters(kernel))
    return jnp.mean(jnp.abs(kernel), axis=tuple(range(kernel.ndim - 1)))


def standardize_kernel(kernel: jax.Array) -> jax.Array:
    r"""Weight standardisation: each filter with mean 0 and variance 1; differentiable.

    .. math::
      \hat W_i = \frac{W_i - \operatorname{mean} W_i}{\sqrt{\operatorname{var} W_i + 10^{-5}}}

    with the unbiased variance. A sign behind it splits each filter near its mean instead of at 0;
    `standardized_sign` is that. Sums are taken in float32 at least.

    Args:
      kernel: weights, (..., out_features).

    Returns:
      Array of the shape and dtype of `kernel`; 0 for a constant filter. A filter of one weight,
      which has no variance, comes back as it is.

    >>> standardize_kernel(jnp.array([[1.0], [2.0], [3.0]])).round(3).ravel().tolist()
    [-1.0, 0.0, 1.0]

    Source: Qiao et al. 2019, Weight Standardization; Qin et al. 2020, IR-Net, before signs.
    """
    kernel = filters(kernel)
    if kernel.size == kernel.shape[-1]:
        return kernel
    return _standardize(kernel).astype(kernel.dtype)


def standardized_scale(latent: jax.Array) -> jax.Array:
    """alpha_i: mean magnitude of the standardised latent weights of filter i, without gradient.

    Args:
      latent: latent weights, (..., out_features).

    Returns:
      (out_features,) array: mean |W_i - mean W_i| / sqrt(var W_i + 1e-5) with the unbiased
      variance; 0 for a constant filter. A filter of one weight has nothing to standardise and no
      unbiased variance: its factor is 1. NaN for a filter with NaN or infinity.

    >>> factors = standardized_scale(jnp.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]))
    >>> [round(factor, 3) for factor in factors.tolist()]
    [0.667, 0.0]

    Source: the OvSW authors' code (facts only).
    """
    latent = lax.stop_gradient(filters(latent))
    if latent.size == latent.shape[-1]:
        return nan_unless_finite(latent, range(latent.ndim - 1)).astype(latent.dtype)
    return mean_magnitude(_standardize(latent)).astype(latent.dtype)


def _standardize(kernel: jax.Array) -> jax.Array:
    axes = tuple(range(kernel.ndim - 1))
    wide = kernel.astype(accurate_dtype(kernel))
    if platform() != "cpu":
        # A weight of the filter as the shift: so a constant filter has a variance of exactly 0.
        first = wide[(slice(0, 1),) * len(axes)]
        mean, variance = mean_and_variance(wide, lax.stop_gradient(first), axes)
        unbiased = variance * (wide.size / (wide.size - wide.shape[-1]))
        return (wide - mean) / jnp.sqrt(unbiased + EPSILON)
    centered = wide - jnp.mean(wide, axis=axes, keepdims=True)
    # Twice: a rounding error of the mean is no deviation of a constant filter from it.
    centered = centered - jnp.mean(centered, axis=axes, keepdims=True)
    squares = jnp.sum(jnp.square(centered), axis=axes, keepdims=True)
    variance = squares / (wide.size / wide.shape[-1] - 1)
    return centered / jnp.sqrt(variance + EPSILON)
