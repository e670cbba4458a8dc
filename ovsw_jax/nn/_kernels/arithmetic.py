"""The arithmetic of a binarised layer, shared by the NNX and the linen layers.

train: x <- x / sqrt(var(x over one sample, unbiased) + 1e-5)
y = (conv(sign(x), sign(W)) + bias) * alpha
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ovsw_jax.nn._checks import as_dtype, real_array
from ovsw_jax.nn._kernels.convolution import Window, convolve
from ovsw_jax.nn._kernels.explicit_axes import without_explicit_axes
from ovsw_jax.nn._kernels.features import along_features
from ovsw_jax.nn._kernels.finite import nan_unless_finite, parameters_of
from ovsw_jax.nn._kernels.sign_convolution import convolve_signs
from ovsw_jax.nn.sign_kinds import Sign, is_two_valued
from ovsw_jax.precision import accurate_dtype

EPSILON = 1e-5  # added to variances


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


def normalize_sample(x: jax.Array, sample_axes: int) -> tuple[jax.Array, jax.Array]:
    """Divides every sample by its standard deviation; the divisor has no gradient.

    Signs don't notice. The gradient of the sign does: it is non-zero in a window around 0, and
    the division moves the window.

    Args:
      x: (..., sample), the last `sample_axes` axes being one sample.
      sample_axes: number of axes of one sample.

    Returns:
      x / sqrt(var + 1e-5), var the unbiased variance over the sample, with the signs of `x`
      whatever its numbers; integers give floating-point numbers. A sample of one element, whose
      unbiased variance is undefined, comes back as it is. And for each sample 1 if it is finite,
      else NaN.
    """
    axes = tuple(range(x.ndim - sample_axes, x.ndim))
    sizes = [x.shape[a] for a in axes]
    if 0 in sizes or all(n == 1 for n in sizes):
        return x, nan_unless_finite(x, axes, keepdims=True)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(accurate_dtype(x))
    wide = lax.stop_gradient(x).astype(accurate_dtype(x))
    mean = jnp.mean(wide, axes, keepdims=True)
    # The sums of huge numbers may be inf - inf. With an infinite mean instead, the variance is NaN
    # if one of them is infinite or NaN, else infinite.
    mean = jnp.where(jnp.isnan(mean), jnp.inf, mean)
    variance = jnp.var(wide, axes, ddof=1, keepdims=True, mean=mean)  # type: ignore[call-arg]
    deviation = jnp.sqrt(variance + EPSILON)
    # One beyond the range of the dtype, or whose square is, counts as the greatest number: so it
    # is NaN only for a sample that isn't finite.
    deviation = jnp.minimum(deviation, float(jnp.finfo(x.dtype).max))
    finite = nan_unless_finite(deviation, axes, keepdims=True)
    return _divide(x, deviation.astype(x.dtype)), finite


def _divide(x: jax.Array, divisor: jax.Array) -> jax.Array:
    """The quotient, negative where `x` is: one too small for the dtype would be a -0."""
    quotient = x / divisor
    lost = (x < 0) & (quotient == 0)
    return quotient + jnp.where(lost, -float(jnp.finfo(x.dtype).tiny), 0).astype(x.dtype)


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
    training: bool,
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
      normalize: divide each sample by its standard deviation first, if in training.
      training: give NaN for a sample with NaN or infinity, which signs would hide.
      dtype: of the products and the result. Sums are taken in float32 at least, so products of
        signs are exact in bfloat16.

    Returns:
      (*batch, *spatial', out_features) array of `dtype`.
    """
    sample_axes = len(window.kernel_size) + 1
    batch = x.shape[: x.ndim - sample_axes]
    signs, samples = _signs_of_samples(x, input_sign, sample_axes if training else 0, normalize)
    kernel = latent if kernel_sign is None else _signs_of("kernel_sign", kernel_sign, latent)
    signs = _one_batch_axis(signs, len(batch))
    samples = None if samples is None else _one_batch_axis(samples, len(batch))
    known = is_two_valued(input_sign) and is_two_valued(kernel_sign)
    multiply = convolve_signs if known else convolve

    def layer(signs: jax.Array, kernel: jax.Array, *affine: jax.Array | None) -> jax.Array:
        return _affine(multiply(signs, kernel, window), *affine).astype(dtype)

    signs, kernel = signs.astype(dtype), kernel.astype(dtype)
    y = without_explicit_axes(layer, signs, kernel, bias, scale, samples, batch_axes=1)
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
    training: bool,
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
      normalize: divide each sample by its standard deviation first, if in training.
      training: as there.
      dtype: of the products and the result.

    Returns:
      (..., out_features) array of `dtype`.
    """
    signs, samples = _signs_of_samples(x, input_sign, int(training), normalize)
    kernel = latent if kernel_sign is None else _signs_of("kernel_sign", kernel_sign, latent)

    def layer(signs: jax.Array, kernel: jax.Array, *affine: jax.Array | None) -> jax.Array:
        return _affine(_multiply(signs, kernel), *affine).astype(dtype)

    signs, kernel = signs.astype(dtype), kernel.astype(dtype)
    operands = (signs, kernel, bias, scale, samples)
    return without_explicit_axes(layer, *operands, batch_axes=x.ndim - 1)


def _signs_of_samples(
    x: jax.Array, sign: Sign | None, sample_axes: int, normalize: bool
) -> tuple[jax.Array, jax.Array | None]:
    """The signs, and for each sample NaN if they hide a NaN in it, else 1; None if not looked for.

    In evaluation `sample_axes` is 0: nothing is divided, and NaN is not looked for, as that would
    read all activations once more.
    """
    if sign is None:
        return x, None
    if not sample_axes:
        return _signs_of("input_sign", sign, x), None
    if normalize:
        x, finite = normalize_sample(x, sample_axes)
    else:
        finite = nan_unless_finite(x, range(x.ndim - sample_axes, x.ndim), keepdims=True)
    signs = _signs_of("input_sign", sign, x)
    for parameter in parameters_of(sign):
        finite = finite * nan_unless_finite(parameter)
    return signs, finite


def _signs_of(name: str, sign: Sign, x: jax.Array) -> jax.Array:
    """What a sign gives; TypeError or ValueError unless it is a sign for each element."""
    signs = sign(x)
    if not isinstance(signs, jax.Array | np.ndarray):
        raise TypeError(
            f"{name}={sign!r} gave {signs!r}, which is no array: let it return a sign for each "
            f"element of its argument, of shape {x.shape}."
        )
    if signs.shape != x.shape:
        raise ValueError(
            f"{name}={sign!r} gave an array of shape {signs.shape} for one of shape {x.shape}: let "
            "it return a sign for each element."
        )
    return jnp.asarray(signs)


def _one_batch_axis(x: jax.Array, axes: int) -> jax.Array:
    return x.reshape((math.prod(x.shape[:axes]), *x.shape[axes:]))


def _affine(
    y: jax.Array, bias: jax.Array | None, scale: jax.Array | None, samples: jax.Array | None
) -> jax.Array:
    """(y * samples + bias) * scale, `samples` being (batch, 1...), the others (features,)."""
    if samples is not None:
        y = y * samples.astype(y.dtype)
    if bias is not None:
        y = y + along_features(bias.astype(y.dtype), y)
    return y if scale is None else y * along_features(scale.astype(y.dtype), y)


def _multiply(signs: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.dot(signs, kernel, preferred_element_type=accurate_dtype(signs))
