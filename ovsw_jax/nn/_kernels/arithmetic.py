"""The arithmetic of a binarised layer, shared by the NNX and the linen layers.

train: x <- x / sqrt(var(x over one sample, unbiased) + 1e-5)
y = (conv(sign(x), sign(W)) + bias) * alpha
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from jax import lax

from ovsw_jax.nn._checks import as_dtype, real_array
from ovsw_jax.nn._kernels.convolution import Window, convolve, multiply, pad
from ovsw_jax.nn._kernels.explicit_axes import without_explicit_axes
from ovsw_jax.nn._kernels.features import along_features
from ovsw_jax.nn._kernels.finite import nan_unless_finite, parameters_of
from ovsw_jax.nn._kernels.recomputed_signs import Multiply, multiply_signs_of
from ovsw_jax.nn._kernels.sign_convolution import convolve_signs
from ovsw_jax.nn._kernels.sums import mean_and_variance
from ovsw_jax.nn.platforms import platform
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


def sample_deviation(x: jax.Array, sample_axes: int) -> tuple[jax.Array | None, jax.Array]:
    """What every sample is divided by, without gradient.

    Signs don't notice. The gradient of the sign does: it is non-zero in a window around 0, and
    the division moves the window.

    Args:
      x: (..., sample), the last `sample_axes` axes being one sample.
      sample_axes: number of axes of one sample.

    Returns:
      sqrt(var + 1e-5) in the dtype of `x`, var the unbiased variance over the sample. None for
      samples of one element, whose unbiased variance is undefined: they stay as they are. And for
      each sample 1 if it is finite, else NaN. On a GPU and a TPU, where mean and variance take one
      pass, a sample whose sum of squares is beyond float32 doesn't count as finite.
    """
    axes = tuple(range(x.ndim - sample_axes, x.ndim))
    sizes = [x.shape[a] for a in axes]
    if 0 in sizes or all(n == 1 for n in sizes):
        return None, nan_unless_finite(x, axes, keepdims=True)
    x = _floating(x)
    wide = lax.stop_gradient(x).astype(accurate_dtype(x))
    variance = _two_pass_variance if platform() == "cpu" else _one_pass_variance
    deviation = jnp.sqrt(variance(wide, axes) + EPSILON)
    # One beyond the range of the dtype, or whose square is, counts as the greatest number: so it
    # is NaN only for a sample that isn't finite.
    deviation = jnp.minimum(deviation, float(jnp.finfo(x.dtype).max))
    return deviation.astype(x.dtype), nan_unless_finite(deviation, axes, keepdims=True)


def _floating(x: jax.Array) -> jax.Array:
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(accurate_dtype(x))


def _two_pass_variance(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Unbiased."""
    mean = jnp.mean(x, axes, keepdims=True)
    # The sums of huge numbers may be inf - inf. With an infinite mean instead, the variance is NaN
    # if one of them is infinite or NaN, else infinite.
    mean = jnp.where(jnp.isnan(mean), jnp.inf, mean)
    return jnp.var(x, axes, ddof=1, keepdims=True, mean=mean)  # type: ignore[call-arg]


def _one_pass_variance(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Unbiased; NaN if the sum of squares is not finite.

    It may lose digits where the mean is large beside the deviation. But then hardly an element lies
    within the window that the deviation is for.
    """
    count = math.prod(x.shape[a] for a in axes)
    variance = mean_and_variance(x, 0, axes)[1] * (count / (count - 1))
    return jnp.where(variance == jnp.inf, jnp.nan, variance)


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
    kernel = latent if kernel_sign is None else _signs_of("kernel_sign", kernel_sign, latent)
    operand = _operand(x, input_sign, kernel_sign, sample_axes if training else 0, normalize)
    operand = jax.tree.map(lambda a: _one_batch_axis(a, len(batch)), operand)
    y = _layer(
        operand,
        kernel,
        bias,
        scale,
        products=_Products(
            of_signs=partial(convolve_signs, window=window),
            of_any=partial(convolve, window=window),
            linear=partial(_convolve, window),
        ),
        input_sign=input_sign,
        kernel_sign=kernel_sign,
        dtype=dtype,
        batch_axes=1,
    )
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
    kernel = latent if kernel_sign is None else _signs_of("kernel_sign", kernel_sign, latent)
    return _layer(
        _operand(x, input_sign, kernel_sign, int(training), normalize),
        kernel,
        bias,
        scale,
        products=_Products(of_signs=_multiply, of_any=_multiply, linear=_dot),
        input_sign=input_sign,
        kernel_sign=kernel_sign,
        dtype=dtype,
        batch_axes=x.ndim - 1,
    )


class _Operand(NamedTuple):
    """What a layer multiplies its kernel by.

    Attributes:
      x: (*batch, ..., in_features), signs, or activations whose signs the product computes.
      deviation: (*batch, 1...), by which it divides those; None: they are as they are.
      samples: (*batch, 1...), 1, or NaN where signs hide a NaN; None: that is not looked for.
    """

    x: jax.Array
    deviation: jax.Array | None
    samples: jax.Array | None


class _Products(NamedTuple):
    """The ways to multiply: signs with signs, anything, and in a dtype that is asked for."""

    of_signs: Callable[[jax.Array, jax.Array], jax.Array]
    of_any: Callable[[jax.Array, jax.Array], jax.Array]
    linear: Multiply


def _layer(
    operand: _Operand,
    kernel: jax.Array,
    bias: jax.Array | None,
    scale: jax.Array | None,
    *,
    products: _Products,
    input_sign: Sign | None,
    kernel_sign: Sign | None,
    dtype: jax.typing.DTypeLike,
    batch_axes: int,
) -> jax.Array:
    """The product and what follows it; arguments as for `binary_conv`."""
    x, deviation, samples = operand
    recomputes = _recomputes_signs(input_sign, kernel_sign)
    multiply = products.of_signs if _are_signs(input_sign, kernel_sign) else products.of_any

    def layer(
        x: jax.Array, kernel: jax.Array, deviation: jax.Array | None, *affine: jax.Array | None
    ) -> jax.Array:
        if recomputes and input_sign is not None:
            y = multiply_signs_of(
                x, kernel, deviation, sign=input_sign, divide=_divide, multiply=products.linear
            )
        else:
            y = multiply(x, kernel)
        return _affine(y, *affine).astype(dtype)

    operands = (x if recomputes else x.astype(dtype), kernel.astype(dtype), deviation)
    return without_explicit_axes(layer, *operands, bias, scale, samples, batch_axes=batch_axes)


def _are_signs(input_sign: Sign | None, kernel_sign: Sign | None) -> bool:
    """Whether both operands are known to be +1 and -1 alone."""
    return is_two_valued(input_sign) and is_two_valued(kernel_sign)


def _recomputes_signs(input_sign: Sign | None, kernel_sign: Sign | None) -> bool:
    """Whether the product computes the signs of its input itself, to compute them again later."""
    # A linen module can't be called within the gradient of a function.
    callable_there = not isinstance(input_sign, linen.Module)
    return platform() != "cpu" and _are_signs(input_sign, kernel_sign) and callable_there


def _operand(
    x: jax.Array,
    input_sign: Sign | None,
    kernel_sign: Sign | None,
    sample_axes: int,
    normalize: bool,
) -> _Operand:
    """`sample_axes` is 0 in evaluation, as in `_signs_of_samples`."""
    if input_sign is None or not _recomputes_signs(input_sign, kernel_sign):
        signs, samples = _signs_of_samples(x, input_sign, sample_axes, normalize)
        return _Operand(signs, None, samples)
    x = _floating(x)
    if not sample_axes:
        return _Operand(x, None, None)
    deviation, finite = _samples(x, input_sign, sample_axes, normalize)
    return _Operand(x, deviation, finite)


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
    deviation, finite = _samples(x, sign, sample_axes, normalize)
    return _signs_of("input_sign", sign, _divided(x, deviation)), finite


def before_sign(x: jax.Array, sample_axes: int, *, normalize: bool, training: bool) -> jax.Array:
    """What a layer applies the sign of its input to; arguments as for `binary_conv`."""
    deviation = sample_deviation(x, sample_axes)[0] if normalize and training else None
    return _divided(x, deviation)


def _divided(x: jax.Array, deviation: jax.Array | None) -> jax.Array:
    return x if deviation is None else _divide(_floating(x), deviation)


def _samples(
    x: jax.Array, sign: Sign, sample_axes: int, normalize: bool
) -> tuple[jax.Array | None, jax.Array]:
    """By what to divide each sample, None for nothing; and 1, or NaN if its signs hide a NaN."""
    if normalize:
        deviation, finite = sample_deviation(x, sample_axes)
    else:
        axes = range(x.ndim - sample_axes, x.ndim)
        deviation, finite = None, nan_unless_finite(x, axes, keepdims=True)
    for parameter in parameters_of(sign):
        finite = finite * nan_unless_finite(parameter)
    return deviation, finite


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


def _convolve(
    window: Window, signs: jax.Array, kernel: jax.Array, sum_dtype: jax.typing.DTypeLike
) -> jax.Array:
    signs, window = pad(signs, window)
    return multiply(signs, kernel, window, sum_dtype)


def _multiply(signs: jax.Array, kernel: jax.Array) -> jax.Array:
    return _dot(signs, kernel, accurate_dtype(signs))


def _dot(signs: jax.Array, kernel: jax.Array, sum_dtype: jax.typing.DTypeLike) -> jax.Array:
    return jnp.dot(signs, kernel, preferred_element_type=sum_dtype)
