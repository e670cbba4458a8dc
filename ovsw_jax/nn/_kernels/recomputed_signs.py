"""Products of signs as GPUs and TPUs do them best: by their matrix units, from activations.

A sign costs one comparison, so none is kept for the backward pass, which computes it again from the
activation. That is kept anyway, or the compiler computes it again in its turn; and the comparison
is a part of the kernel that makes the activation, or of the product itself.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from ovsw_jax.nn._kernels.shard_map_types import varying_alike
from ovsw_jax.nn.platforms import platform
from ovsw_jax.nn.sign_kinds import Sign, is_scale_free
from ovsw_jax.precision import accurate_dtype

_Arrays = tuple[jax.Array, ...]


class Multiply(Protocol):
    """A product, linear in both of its operands."""

    def __call__(self, signs: jax.Array, kernel: jax.Array, sum_dtype: Any) -> jax.Array:
        """(batch, ..., in_features) and (..., out_features) to (batch, ..., out_features)."""


def multiply_signs_of(
    x: jax.Array,
    kernel: jax.Array,
    deviation: jax.Array | None,
    *,
    sign: Sign,
    divide: Callable[[jax.Array, jax.Array], jax.Array],
    multiply: Multiply,
) -> jax.Array:
    """The product of the signs of activations with the signs of a kernel.

    Args:
      x: (batch, ..., in_features), real floating-point.
      kernel: (..., out_features), +1 or -1, in the dtype of the gradients' products.
      deviation: (batch, 1...), by which `x` is divided before its sign is taken; has no gradient.
        None: it is not divided.
      sign: of activations, two-valued; may hold parameters, which get their gradients.
      divide: the quotient of two arrays.
      multiply: the product.

    Returns:
      (batch, ..., out_features) float32, or float64 for a float64 kernel.
    """
    # What a sign holds becomes an argument, as the deviation is: a function with a custom gradient
    # may not refer to arrays around it.
    closed, constants = jax.closure_convert(sign, x)
    divisor = () if deviation is None else (lax.stop_gradient(deviation),)
    operands, sums = _exact_dtypes(kernel)
    wide = accurate_dtype(kernel)

    def signs_of_quotient(x: jax.Array, divisor: _Arrays, constants: _Arrays) -> jax.Array:
        return closed(divide(x, *divisor) if divisor else x, *constants)

    def signs_of(x: jax.Array, divisor: _Arrays, constants: _Arrays) -> jax.Array:
        # The deviation moves the window of a gradient. If it moves no sign, none waits for it.
        return signs_of_quotient(x, () if is_scale_free(sign) else divisor, constants)

    @jax.custom_vjp
    def product(x: jax.Array, kernel: jax.Array, divisor: _Arrays, constants: _Arrays) -> jax.Array:
        signs = signs_of(x, divisor, constants)
        return multiply(signs.astype(operands), kernel.astype(operands), sums).astype(wide)

    def forward(*primals: Any) -> tuple[jax.Array, Any]:
        return product(*primals), primals

    def backward(kept: Any, cotangent: jax.Array) -> tuple[Any, ...]:
        x, kernel, divisor, constants = kept
        zero, cotangent = _zero_known_later(x.dtype, cotangent.astype(kernel.dtype))
        signs = signs_of(x + zero, divisor, constants).astype(kernel.dtype)
        _, transpose = jax.vjp(lambda s, k: multiply(s, k, kernel.dtype), signs, kernel)
        to_signs, to_kernel = transpose(cotangent)
        _, pull_back = jax.vjp(lambda x, c: signs_of_quotient(x, divisor, c), x, constants)
        to_x, to_constants = pull_back(to_signs.astype(x.dtype))
        return to_x, to_kernel, jax.tree.map(jnp.zeros_like, divisor), to_constants

    product.defvjp(forward, backward)
    x, kernel, *others = varying_alike(x, kernel, *divisor, *constants)
    return product(x, kernel, tuple(others[: len(divisor)]), tuple(others[len(divisor) :]))


def _zero_known_later(dtype: Any, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A zero that a compiler doesn't know before it knows the cotangent, which comes back too.

    Without it a GPU's compiler makes the signs of the backward pass beside those of the forward
    pass, and keeps them. A TPU's makes signs within the products, and needs no such hint.
    """
    zero = jnp.zeros((), dtype)
    return (zero, cotangent) if platform() == "tpu" else lax.optimization_barrier((zero, cotangent))


def _exact_dtypes(kernel: jax.Array) -> tuple[Any, Any]:
    """Dtypes of operands and sums in which sums of products of signs are exact, the fastest first.

    Bfloat16 holds signs, float32 sums of up to 2^24 of them; a TPU sums so in any case. A GPU's
    library writes its sums in the dtype of the operands. Float16 holds integers up to 2,048, and
    even ones up to 4,096: a sum of an even number of signs is even. Beyond, up to its range, it
    rounds to 11 bits, which bfloat16 does to 8.
    """
    if platform() == "tpu":
        return jnp.bfloat16, jnp.float32
    products = kernel.size // kernel.shape[-1]
    exact = 2048 if kernel.shape[-2] % 2 else 4096
    narrow = jnp.finfo(kernel.dtype).bits == 16
    if products <= (float(jnp.finfo(jnp.float16).max) if narrow else exact):
        return jnp.float16, jnp.float16
    return kernel.dtype, accurate_dtype(kernel)
