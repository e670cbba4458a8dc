"""The arithmetic of a binarised layer, shared by the NNX and the linen layers.

train: x <- x / sqrt(var(x over one sample, unbiased) + 1e-5)
y = (conv(sign(x), sign(W)) + bias) * alpha
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from ovsw_jax.latent import accurate_dtype
from ovsw_jax.nn.convolution import Window, convolve
from ovsw_jax.nn.signs import Sign

Scale = Literal["standardized", "learned"] | None

EPSILON = 1e-5


def check_scale(scale: object) -> None:
    """Raises ValueError unless `scale` is a kind of factor."""
    if scale not in ("standardized", "learned", None):
        raise ValueError(
            f"scale={scale!r} is unknown: use 'standardized', 'learned', or None for no factor."
        )


def check_input(x: jax.Array, in_features: int, min_rank: int) -> None:
    """Raises ValueError unless the last axis of `x` holds the features."""
    if x.ndim < min_rank or x.shape[-1] != in_features:
        raise ValueError(
            f"input of shape {x.shape} does not fit a layer of {in_features} input features: it "
            f"needs at least {min_rank} axes, the last of size {in_features} (channels last)."
        )


def result_dtype(
    x: jax.Array, latent: jax.Array, dtype: jax.typing.DTypeLike | None
) -> jax.typing.DTypeLike:
    """The dtype of products and result: `dtype`, or that of input and parameters.

    Raises:
      TypeError: if it is not a real floating-point type, in which products of signs would wrap.
    """
    chosen = jnp.result_type(x, latent) if dtype is None else jnp.dtype(dtype)
    if not jnp.issubdtype(chosen, jnp.floating):
        raise TypeError(
            f"dtype={chosen} can't hold the result of a binary layer: use float32, bfloat16 or "
            "another real floating-point type, for the input as for dtype=."
        )
    return chosen


def normalize_sample(x: jax.Array, sample_axes: int) -> jax.Array:
    """Divides every sample by its standard deviation; the divisor has no gradient.

    Signs don't notice. The gradient of the sign does: it is non-zero in a window around 0, and
    the division moves the window.

    Args:
      x: (..., sample), the last `sample_axes` axes being one sample.
      sample_axes: number of axes of one sample.

    Returns:
      x / sqrt(var + 1e-5), var the unbiased variance over the sample. A sample of one element,
      whose unbiased variance is undefined, comes back as it is.
    """
    axes = tuple(range(x.ndim - sample_axes, x.ndim))
    if all(x.shape[a] == 1 for a in axes):
        return x
    wide = lax.stop_gradient(x).astype(accurate_dtype(x))
    deviation = jnp.sqrt(jnp.var(wide, axis=axes, keepdims=True, ddof=1) + EPSILON)
    return x / deviation.astype(x.dtype)


def mean_magnitude(latent: jax.Array) -> jax.Array:
    """Mean |W| of each filter: where the learned factor starts.

    Args:
      latent: latent weights, (..., out_features).

    Returns:
      (out_features,) array.
    """
    return jnp.mean(jnp.abs(latent), axis=tuple(range(latent.ndim - 1)))


def standardized_scale(latent: jax.Array) -> jax.Array:
    """alpha_i: mean magnitude of the standardised latent weights of filter i, without gradient.

    Args:
      latent: latent weights, (..., out_features).

    Returns:
      (out_features,) array: mean |W_i - mean W_i| / sqrt(var W_i + 1e-5) with the unbiased
      variance; 0 for a constant filter. A filter of one weight has nothing to standardise and no
      unbiased variance: its factor is 1.
    """
    latent = lax.stop_gradient(latent)
    axes = tuple(range(latent.ndim - 1))
    if latent.size == latent.shape[-1]:
        return jnp.ones(latent.shape[-1], latent.dtype)
    wide = latent.astype(accurate_dtype(latent))
    centered = wide - jnp.mean(wide, axis=axes)
    # Twice: a rounding error of the mean is no deviation of a constant filter from it.
    centered = centered - jnp.mean(centered, axis=axes)
    variance = jnp.sum(jnp.square(centered), axis=axes) / (wide.size / wide.shape[-1] - 1)
    deviation = jnp.sqrt(variance + EPSILON)
    return mean_magnitude(centered / deviation).astype(latent.dtype)


def binary_conv(
    x: jax.Array,
    latent: jax.Array,
    bias: jax.Array | None,
    scale: jax.Array | None,
    *,
    window: Window,
    input_sign: Sign,
    kernel_sign: Sign,
    normalize: bool,
    dtype: jax.typing.DTypeLike,
) -> jax.Array:
    """Binarised convolution.

    Args:
      x: (*batch, *spatial, in_features) activations.
      latent: (*kernel_size, in_features // groups, out_features) latent weights.
      bias: (out_features,) or None, added before the factor.
      scale: (out_features,) factor alpha or None.
      window: geometry. Padding is of the signs: a zero-padded border adds nothing.
      input_sign: sign of the activations.
      kernel_sign: sign of the latent weights.
      normalize: divide each sample by its standard deviation first (training).
      dtype: of the products and the result. Sums are taken in float32 at least, so products of
        signs are exact in bfloat16.

    Returns:
      (*batch, *spatial', out_features) array of `dtype`.
    """
    sample_axes = len(window.kernel_size) + 1
    batch = x.shape[: x.ndim - sample_axes]
    normalized_axes = sample_axes if normalize else 0
    signs, kernel = _signs(x, latent, input_sign, kernel_sign, normalized_axes, dtype)
    signs = signs.reshape((-1, *x.shape[x.ndim - sample_axes :]))
    y = _affine(convolve(signs, kernel, window), bias, scale, dtype)
    return y.reshape((*batch, *y.shape[1:]))


def binary_dense(
    x: jax.Array,
    latent: jax.Array,
    bias: jax.Array | None,
    scale: jax.Array | None,
    *,
    input_sign: Sign,
    kernel_sign: Sign,
    normalize: bool,
    dtype: jax.typing.DTypeLike,
) -> jax.Array:
    """Binarised matrix product; arguments as for `binary_conv`.

    Args:
      x: (..., in_features); one sample is one vector of features.
      latent: (in_features, out_features).
      bias: (out_features,) or None.
      scale: (out_features,) or None.
      input_sign: sign of the activations.
      kernel_sign: sign of the latent weights.
      normalize: divide each sample by its standard deviation first.
      dtype: of the products and the result.

    Returns:
      (..., out_features) array of `dtype`.
    """
    signs, kernel = _signs(x, latent, input_sign, kernel_sign, int(normalize), dtype)
    return _affine(_multiply(signs, kernel), bias, scale, dtype)


def _signs(
    x: jax.Array,
    latent: jax.Array,
    input_sign: Sign,
    kernel_sign: Sign,
    normalized_axes: int,
    dtype: jax.typing.DTypeLike,
) -> tuple[jax.Array, jax.Array]:
    if normalized_axes:
        x = normalize_sample(x, normalized_axes)
    return input_sign(x).astype(dtype), kernel_sign(latent).astype(dtype)


def _affine(
    y: jax.Array, bias: jax.Array | None, scale: jax.Array | None, dtype: jax.typing.DTypeLike
) -> jax.Array:
    if bias is not None:
        y = y + bias.astype(y.dtype)
    if scale is not None:
        y = y * scale.astype(y.dtype)
    return y.astype(dtype)


def _multiply(signs: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.dot(signs, kernel, preferred_element_type=accurate_dtype(signs))
