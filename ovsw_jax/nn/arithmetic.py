"""The arithmetic of a binarised layer, shared by the NNX and the linen layers.

train: x <- x / sqrt(var(x over one sample, unbiased) + 1e-5)
y = (conv(sign(x), sign(W)) + bias) * alpha
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from ovsw_jax.arguments import as_dtype, real_array
from ovsw_jax.latent import accurate_dtype
from ovsw_jax.nn.convolution import Window, convolve
from ovsw_jax.nn.explicit_axes import without_explicit_axes
from ovsw_jax.nn.scale import EPSILON
from ovsw_jax.nn.sign_convolution import convolve_signs
from ovsw_jax.nn.signs import Sign
from ovsw_jax.nn.two_valued import is_two_valued


def check_input(x: jax.Array, in_features: int | None, min_rank: int) -> jax.Array:
    """The input as an array whose last axis holds the features, any number of them if None.

    Raises:
      ValueError: if it does not, or has too few axes.
      TypeError: if it is no real array.
    """
    x = real_array("input", x)
    if in_features is None:
        in_features = max(1, *x.shape[-1:]) if x.ndim else 1
    if x.ndim < min_rank or x.shape[-1] != in_features:
        raise ValueError(
            f"input of shape {x.shape} does not fit a layer of {in_features} input features: it "
            f"needs at least {min_rank} axes, the last of size {in_features} (channels last)."
        )
    return x


def result_dtype(
    x: jax.Array, latent: jax.Array, dtype: jax.typing.DTypeLike | None
) -> jax.typing.DTypeLike:
    """The dtype of products and result: `dtype`, or that of input and parameters.

    Raises:
      TypeError: if it is not a real floating-point type, in which products of signs would wrap.
    """
    chosen = jnp.result_type(x, latent) if dtype is None else as_dtype("dtype", dtype)
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


def binary_conv(
    x: jax.Array,
    latent: jax.Array,
    bias: jax.Array | None,
    scale: jax.Array | None,
    *,
    window: Window,
    input_sign: Sign | None,
    kernel_sign: Sign | None,
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
      input_sign: sign of the activations; None takes them as they are, without a division.
      kernel_sign: sign of the latent weights; None takes them as they are.
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
    signs = signs.reshape((math.prod(batch), *x.shape[x.ndim - sample_axes :]))
    known = is_two_valued(input_sign) and is_two_valued(kernel_sign)
    multiply = convolve_signs if known else convolve

    def layer(
        signs: jax.Array, kernel: jax.Array, bias: jax.Array | None, scale: jax.Array | None
    ) -> jax.Array:
        return _affine(multiply(signs, kernel, window), bias, scale, dtype)

    y = without_explicit_axes(layer, signs, kernel, bias, scale, batch_axes=1)
    return y.reshape((*batch, *y.shape[1:]))


def binary_dense(
    x: jax.Array,
    latent: jax.Array,
    bias: jax.Array | None,
    scale: jax.Array | None,
    *,
    input_sign: Sign | None,
    kernel_sign: Sign | None,
    normalize: bool,
    dtype: jax.typing.DTypeLike,
) -> jax.Array:
    """Binarised matrix product; arguments as for `binary_conv`.

    Args:
      x: (..., in_features); one sample is one vector of features.
      latent: (in_features, out_features).
      bias: (out_features,) or None.
      scale: (out_features,) or None.
      input_sign: sign of the activations, or None.
      kernel_sign: sign of the latent weights, or None.
      normalize: divide each sample by its standard deviation first.
      dtype: of the products and the result.

    Returns:
      (..., out_features) array of `dtype`.
    """
    signs, kernel = _signs(x, latent, input_sign, kernel_sign, int(normalize), dtype)

    def layer(
        signs: jax.Array, kernel: jax.Array, bias: jax.Array | None, scale: jax.Array | None
    ) -> jax.Array:
        return _affine(_multiply(signs, kernel), bias, scale, dtype)

    return without_explicit_axes(layer, signs, kernel, bias, scale, batch_axes=x.ndim - 1)


def _signs(
    x: jax.Array,
    latent: jax.Array,
    input_sign: Sign | None,
    kernel_sign: Sign | None,
    normalized_axes: int,
    dtype: jax.typing.DTypeLike,
) -> tuple[jax.Array, jax.Array]:
    if input_sign is not None:
        x = input_sign(normalize_sample(x, normalized_axes) if normalized_axes else x)
    kernel = latent if kernel_sign is None else kernel_sign(latent)
    return x.astype(dtype), kernel.astype(dtype)


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
