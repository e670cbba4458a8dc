"""A convolution of signs: its geometry, padding, and sums that are exact in bfloat16.

One of the two operands may be real: it is rounded to the dtype of the products, and no further.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from ovsw_jax.nn._checks import check_counts, is_count
from ovsw_jax.precision import accurate_dtype

Padding = str | int | Sequence[int | tuple[int, int]]


class Window(NamedTuple):
    """Geometry of a convolution: one entry per spatial axis. Hashable, so static under jit."""

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
      ValueError: if a number of features or groups is no positive integer, the groups don't divide
        the features, an argument has not one entry for each spatial axis, or the padding is
        unknown.
    """
    axes = len(kernel_size) if isinstance(kernel_size, Sequence) else 1
    size = _per_axis("kernel_size", kernel_size, axes)
    check_counts(
        in_features=in_features, out_features=out_features, feature_group_count=feature_group_count
    )
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
    values = tuple(value) if isinstance(value, Sequence) else (value,) * axes
    if not (0 < axes <= 3 and len(values) == axes and all(map(is_count, values))):
        raise ValueError(
            f"{name}={value!r} must be a positive integer, or {axes} of them: one for each spatial "
            "axis of kernel_size, of which there are 1 to 3."
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
    entries = tuple(padding) if isinstance(padding, Sequence) else (padding,) * axes
    pairs: list[Any] = [tuple(p) if isinstance(p, Sequence) else (p, p) for p in entries]
    if len(pairs) != axes or not all(map(_is_pair, pairs)):
        raise ValueError(
            f"padding={padding!r} does not fit {axes} spatial axes: give a name such as 'SAME', an "
            f"integer >= 0, or {axes} integers or (low, high) pairs."
        )
    return tuple((low, high) for low, high in pairs)


def _is_pair(pair: tuple[object, ...]) -> bool:
    return len(pair) == 2 and all(isinstance(n, int) and n >= 0 for n in pair)


def convolve(signs: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """Convolution of signs with signs, summed in float32 at least.

    Args:
      signs: (batch, *spatial, in_features).
      kernel: (*kernel_size, in_features // groups, out_features), of the same dtype.
      window: geometry; padding adds zeros, or repeats the signs.

    Returns:
      (batch, *spatial', out_features) float32, or float64 for float64 signs.
    """
    signs, window = pad(signs, window)
    if accurate_dtype(signs) == signs.dtype:
        return multiply(signs, kernel, window, signs.dtype)
    return _narrow_conv(signs, kernel, window)


def pad(signs: jax.Array, window: Window) -> tuple[jax.Array, Window]:
    """Does the padding that XLA's convolution doesn't know, and leaves the rest to the window."""
    if window.padding in ("SAME", "VALID") or not isinstance(window.padding, str):
        return signs, window
    extent = [(k - 1) * d for k, d in zip(window.kernel_size, window.kernel_dilation, strict=True)]
    if window.padding == "CAUSAL":
        return signs, window._replace(padding=((extent[0], 0),))
    pads = [(0, 0), *((e // 2, e - e // 2) for e in extent), (0, 0)]
    mode = "wrap" if window.padding == "CIRCULAR" else "reflect"
    return jnp.pad(signs, pads, mode=mode), window._replace(padding="VALID")


def multiply(
    signs: jax.Array, kernel: jax.Array, window: Window, sum_dtype: jax.typing.DTypeLike
) -> jax.Array:
    """Convolution by XLA, zeros around the input, with sums and result in `sum_dtype`."""
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


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _narrow_conv(signs: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """Convolution of bfloat16 signs that sums in float32.

    JAX has no transpose of a convolution whose result is wider than its operands, so the
    derivative is narrow, as in mixed-precision training anyway.
    """
    return multiply(signs, kernel, window, jnp.float32)


def _narrow_conv_derivative(
    window: Window, operands: tuple[jax.Array, jax.Array], tangents: tuple[Any, Any]
) -> tuple[jax.Array, jax.Array]:
    y = _narrow_conv(*operands, window)
    (signs, kernel), (d_signs, d_kernel) = operands, tangents
    terms = [
        multiply(a, w, window, signs.dtype)
        for a, w in ((d_signs, kernel), (signs, d_kernel))
        if not isinstance(a, SymbolicZero) and not isinstance(w, SymbolicZero)
    ]
    return y, sum(terms[1:], terms[0]).astype(y.dtype)


_narrow_conv.defjvp(_narrow_conv_derivative, symbolic_zeros=True)
