"""Hardtanh, whose backward pass keeps a bit per element, or what is kept anyway."""

import jax
import jax.numpy as jnp

from ovsw_jax.nn._checks import floating_array
from ovsw_jax.nn.platforms import platform


def hardtanh(x: jax.Array) -> jax.Array:
    """Clips to [-1, 1]: the activation between binary layers.

    Its gradient at exactly -1 and +1 is 0. Such ties are common here, where a saturated skip
    meets a batch norm that gives 0, and `jnp.clip` would pass half the gradient. Second
    derivatives are there, but no forward mode (`jax.jvp`) of the first.

    Args:
      x: real floating-point array of any shape.

    Returns:
      Array of the shape and dtype of `x`.

    >>> import ovsw_jax as ovsw
    >>> ovsw.nn.hardtanh(jnp.array([-3.0, 0.5, 1.0])).tolist()
    [-1.0, 0.5, 1.0]

    Source: Courbariaux et al. 2016, BinaryNet; the gradient at the ends as in PyTorch.
    """
    return _hardtanh(floating_array("x", x))


@jax.custom_vjp
def _hardtanh(x: jax.Array) -> jax.Array:
    return _clip(x)


def _forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = _clip(x)
    # On a GPU and a TPU the binary layer behind keeps the result, which is inside where x is.
    return y, jnp.abs(x) < 1 if platform() == "cpu" else y


@jax.custom_jvp
def _clip(x: jax.Array) -> jax.Array:
    return jnp.clip(x, -1, 1)


@_clip.defjvp
def _tangent_inside(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    # For second derivatives. Alone it would do for the first, but keep zeros beside the mask.
    return _clip(*primals), jnp.where(jnp.abs(*primals) < 1, *tangents, 0)


def _pass_inside(kept: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    inside = kept if kept.dtype == bool else jnp.abs(kept) < 1
    return (jnp.where(inside, cotangent, 0),)


_hardtanh.defvjp(_forward, _pass_inside)
