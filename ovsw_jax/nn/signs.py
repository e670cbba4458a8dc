"""One sign, several gradients.

The derivative of a sign is zero almost everywhere, so each of these puts a pseudo-gradient in its
place; all give the same +1 and -1 in the forward pass. sign(0) = sign(-0.0) = +1, since a binary
weight is one bit. NaN gives -1; a pseudo-gradient that reads x stays NaN there.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Sign = Callable[[jax.Array], jax.Array]


def sign(x: jax.Array) -> jax.Array:
    """The sign as a number, with zero gradient.

    Args:
      x: real array of any shape.

    Returns:
      +1 where x >= 0, else -1; shape and dtype of `x`.

    >>> sign(jnp.array([-2.0, -0.0, 0.0, 3.0])).tolist()
    [-1.0, 1.0, 1.0, 1.0]
    """
    x = jnp.asarray(x)
    return jnp.where(x >= 0, 1, -1).astype(x.dtype)


@jax.custom_jvp
def ste_sign(x: jax.Array) -> jax.Array:
    """Sign with the straight-through gradient, for latent weights.

    Forward sign(x); pseudo-gradient 1 everywhere, without clipping.

    Args:
      x: real array of any shape.

    Returns:
      +1 or -1; shape and dtype of `x`.

    >>> jax.grad(lambda x: 3 * ste_sign(x))(5.0).item()
    3.0

    Source: Bengio et al. 2013; the weights of OvSW (Xiang et al., ECCV 2024).
    """
    return sign(x)


@jax.custom_jvp
def clipped_ste_sign(x: jax.Array) -> jax.Array:
    """Sign with the clipped straight-through gradient.

    Forward sign(x); pseudo-gradient 1 where |x| <= 1, else 0.

    Args:
      x: real array of any shape.

    Returns:
      +1 or -1; shape and dtype of `x`.

    >>> jax.vmap(jax.grad(clipped_ste_sign))(jnp.array([-2.0, 0.5, 1.0])).tolist()
    [0.0, 1.0, 1.0]

    Source: Courbariaux et al. 2016, BinaryNet.
    """
    return sign(x)


@jax.custom_jvp
def approx_sign(x: jax.Array) -> jax.Array:
    """Sign with a triangular gradient, for activations.

    Forward sign(x); pseudo-gradient max(2 - 2|x|, 0), that of a piecewise quadratic sign.

    Args:
      x: real array of any shape.

    Returns:
      +1 or -1; shape and dtype of `x`.

    >>> jax.vmap(jax.grad(approx_sign))(jnp.array([-2.0, -0.25, 0.0])).tolist()
    [0.0, 1.5, 2.0]

    Source: Liu et al. 2018, Bi-Real Net; the activations of OvSW (Xiang et al., ECCV 2024).
    """
    return sign(x)


def _define_gradient(f: Any, derivative: Callable[[jax.Array], jax.Array]) -> None:
    def jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
        (x,), (tangent,) = primals, tangents
        return sign(x), derivative(x) * tangent

    f.defjvp(jvp)


ste_sign.defjvp(lambda primals, tangents: (sign(*primals), *tangents))
_define_gradient(clipped_ste_sign, lambda x: (jnp.abs(x) <= 1).astype(x.dtype))
_define_gradient(approx_sign, lambda x: jnp.maximum(2 - 2 * jnp.abs(x), 0))
