"""The arithmetic of a binarised layer, shared by the NNX and the linen layers.

train: x <- x / sqrt(var(x over one sample, unbiased) + 1e-5)
y = (conv(sign(x), sign(W)) + bias) * alpha
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ovsw_jax.latent import accurate_dtype
from ovsw_jax.nn.signs import Sign

Scale = Literal["standardized", "learned"] | None
Padding = str | int | Sequence[int | tuple[int, int]]

EPSILON = 1e-5


class Window(NamedTuple):
    """Geometry of a convolution: one entry a spatial axis. Hashable, so static under jit."""

    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str | tuple[tuple[int, int], ...]
    kernel_dilation: tuple[int, ...]
    feature_group_count: int


def make_window(
    in_features: int,
    out_features: int,
    kernel_size: int | Sequence[int],
    strides: int | Sequence[int],
    padding: Padding,
    kernel_dilation: int | Sequence[int],
    feature_group_count: int,
) -> Window:
    """Spells out the arguments of a convolution layer, which are those of `nnx.Conv`.

    Raises:
      ValueError: if the groups don't divide the features, or an argument has not one entry for
        each spatial axis, or the padding is unknown.
    """
    size = (kernel_size,) if isinstance(kernel_size, int) else tuple(kernel_size)
    for name, features in (("in_features", in_features), ("out_features", out_features)):
        if features % feature_group_count:
            raise ValueError(
                f"{name}={features} is not divisible by feature_group_count={feature_group_count}: "
                "every group takes the same number of features. Change one of the two."
            )
    return Window(
        size,
        _per_axis("strides", strides, len(size)),
        _padding(padding, len(size)),
        _per_axis("kernel_dilation", kernel_dilation, len(size)),
        feature_group_count,
    )


def _per_axis(name: str, value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(values) != axes or any(v < 1 for v in values):
        raise ValueError(
            f"{name}={value} must be a positive integer, or {axes} of them: one for each axis of "
            "kernel_size."
        )
    return values


def _padding(padding: Padding, axes: int) -> str | tuple[tuple[int, int], ...]:
    if isinstance(padding, str):
        known = ("SAME", "VALID", "CIRCULAR", "REFLECT") + (("CAUSAL",) if axes == 1 else ())
        if padding not in known:
            raise ValueError(
                f"padding={padding!r} is unknown for {axes} spatial axes: use one of "
                f"{', '.join(known)}, an integer, or {axes} (low, high) pairs."
            )
        return padding
    pads = (padding,) * axes if isinstance(padding, int) else tuple(padding)
    if len(pads) != axes:
        raise ValueError(
            f"padding={padding} has {len(pads)} entries for {axes} spatial axes: give an integer "
            "or a (low, high) pair for each."
        )
    return tuple((p, p) if isinstance(p, int) else (p[0], p[1]) for p in pads)


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
    y = _affine(_convolve(signs, kernel, window), bias, scale, dtype)
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


def _convolve(signs: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    signs, padding = _pad(signs, window)
    window = window._replace(padding=padding)
    if accurate_dtype(signs) == signs.dtype:
        return _conv(signs, kernel, window, signs.dtype)
    return _narrow_conv(signs, kernel, window)


def _pad(signs: jax.Array, window: Window) -> tuple[jax.Array, str | tuple[tuple[int, int], ...]]:
    """Does the padding that XLA's convolution doesn't know, and names what is left to do."""
    if window.padding in ("SAME", "VALID") or not isinstance(window.padding, str):
        return signs, window.padding
    extent = [(k - 1) * d for k, d in zip(window.kernel_size, window.kernel_dilation, strict=True)]
    if window.padding == "CAUSAL":
        return signs, ((extent[0], 0),)
    pads = [(0, 0), *((e // 2, e - e // 2) for e in extent), (0, 0)]
    mode = "wrap" if window.padding == "CIRCULAR" else "reflect"
    return jnp.pad(signs, pads, mode=mode), "VALID"


def _conv(
    signs: jax.Array, kernel: jax.Array, window: Window, sum_dtype: jax.typing.DTypeLike
) -> jax.Array:
    spatial = "DHW"[-len(window.kernel_size) :]
    return lax.conv_general_dilated(
        signs,
        kernel,
        window.strides,
        window.padding,
        rhs_dilation=window.kernel_dilation,
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        feature_group_count=window.feature_group_count,
        preferred_element_type=sum_dtype,
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _narrow_conv(signs: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """Convolution of bfloat16 signs that sums in float32.

    JAX has no transpose of a convolution whose result is wider than its operands, so the backward
    pass narrows the cotangent, as mixed-precision training does anyway.
    """
    return _conv(signs, kernel, window, jnp.float32)


def _narrow_conv_forward(
    signs: jax.Array, kernel: jax.Array, window: Window
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _narrow_conv(signs, kernel, window), (signs, kernel)


def _narrow_conv_backward(
    window: Window, operands: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    dtype = operands[0].dtype
    _, transpose = jax.vjp(lambda a, w: _conv(a, w, window, dtype), *operands)
    return transpose(cotangent.astype(dtype))


_narrow_conv.defvjp(_narrow_conv_forward, _narrow_conv_backward)
