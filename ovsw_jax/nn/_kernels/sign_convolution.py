"""A convolution whose two operands are signs, +1 or -1.

What its backward pass needs of a sign is one bit, so that is what the forward pass keeps.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ovsw_jax.nn._kernels.convolution import Window, convolve, multiply, pad
from ovsw_jax.nn._kernels.popcount import can_count, convolve_words, kernel_gradient
from ovsw_jax.nn._kernels.shard_map_types import varying_alike
from ovsw_jax.nn._kernels.taps import Taps
from ovsw_jax.nn._kernels.words import pack, unpack
from ovsw_jax.precision import accurate_dtype

_Function = Callable[..., jax.Array]


class _Kept(NamedTuple):
    words: jax.Array  # signs of the activations, packed
    kernel: jax.Array  # int8


def convolve_signs(signs: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """Convolution of signs with signs, exact.

    Args:
      signs: (batch, *spatial, in_features), +1 or -1.
      kernel: (*kernel_size, in_features // groups, out_features), +1 or -1, of the same dtype.
      window: geometry; padding adds zeros, or repeats the signs.

    Returns:
      (batch, *spatial', out_features) float32, or float64 for float64 signs. Its gradients are
      those of the products in the dtype of the signs.

    Raises:
      NotImplementedError: when differentiated twice, where it counts: of the signs only bits are
        kept, and those can't carry a derivative. (Forward mode is refused by JAX.)
    """
    signs, window = pad(signs, window)
    taps = _taps(window, signs.shape[1:-1])
    if window.feature_group_count > 1 or not can_count(signs.shape[0], signs.shape[-1], taps):
        return convolve(signs, kernel, window)
    return _convolve(*varying_alike(signs, kernel), window, signs.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(signs: jax.Array, kernel: jax.Array, window: Window, dtype: Any) -> jax.Array:
    return _convolve_forward(signs, kernel, window, dtype)[0]


def _convolve_forward(
    signs: jax.Array, kernel: jax.Array, window: Window, dtype: Any
) -> tuple[jax.Array, _Kept]:
    # Second derivatives would differentiate this. Packing, of both operands, refuses.
    del dtype
    words = pack(signs)
    count, product = _products(window, signs.shape[1:-1], accurate_dtype(signs))
    y = lax.platform_dependent(words, signs, kernel, cpu=count, default=product)
    return y, _Kept(words, kernel.astype(jnp.int8))


def _convolve_backward(
    window: Window, dtype: Any, kept: _Kept, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # JAX has no transpose of a convolution whose result is wider than its operands.
    cotangent, kernel = cotangent.astype(dtype), kept.kernel.astype(dtype)
    *shape, _ = kept.words.shape
    # Both products are linear: where a gradient is taken makes no difference.
    some_signs, some_kernel, _ = varying_alike(
        jnp.zeros((*shape, kernel.shape[-2]), dtype), jnp.zeros(kernel.shape, dtype), cotangent
    )
    to_signs = jax.vjp(lambda s: multiply(s, kernel, window, dtype), some_signs)[1](cotangent)[0]
    spread_out, transposed = _kernel_gradients(window, tuple(shape[1:]), dtype)
    to_kernel = lax.platform_dependent(
        kept.words, cotangent, some_kernel, cpu=spread_out, default=transposed
    )
    return to_signs, to_kernel


_convolve.defvjp(_convolve_forward, _convolve_backward)


# JAX knows a function that it has compiled by its identity, so each of these is made once.


@functools.cache
def _products(window: Window, spatial: tuple[int, ...], dtype: Any) -> tuple[_Function, _Function]:
    def count(words: jax.Array, signs: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolve_words(words, kernel, _taps(window, spatial)).astype(dtype)

    def product(words: jax.Array, signs: jax.Array, kernel: jax.Array) -> jax.Array:
        return multiply(signs, kernel, window, dtype)

    return count, product


@functools.cache
def _kernel_gradients(
    window: Window, spatial: tuple[int, ...], dtype: Any
) -> tuple[_Function, _Function]:
    def spread_out(words: jax.Array, cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
        return kernel_gradient(words, cotangent, kernel.shape[-2], _taps(window, spatial))

    def transposed(words: jax.Array, cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
        signs = unpack(words, kernel.shape[-2]).astype(dtype)
        return jax.vjp(lambda k: multiply(signs, k, window, dtype), kernel)[1](cotangent)[0]

    return spread_out, transposed


def _taps(window: Window, spatial: tuple[int, ...]) -> Taps:
    size, strides, pads, dilation, _ = window
    if isinstance(pads, str):
        extents = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
        pads = tuple(lax.padtype_to_pads(spatial, extents, strides, pads))
    return Taps(size, strides, dilation, pads, spatial)
