"""One sign, several gradients.

The derivative of a sign is zero almost everywhere, so each of these puts a pseudo-gradient in its
place; all give the same +1 and -1 in the forward pass. sign(0) = sign(-0.0) = +1, since a binary
weight is one bit; so is that of a subnormal where XLA takes it for zero, as on CPUs. NaN gives -1,
and its pseudo-gradient is NaN, unless that is the same for all x.

Higher derivatives are those of the pseudo-gradient: the derivative of ste_sign(w)^2 is
2 ste_sign(w), the second one 2.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ovsw_jax.hyperparams import check_sharpness
from ovsw_jax.nn._checks import real_array
from ovsw_jax.precision import accurate_dtype

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
    x = real_array("x", x)
    return jnp.where(x >= 0, 1, -1).astype(x.dtype)


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
    return _ste_sign(real_array("x", x))


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
    return _clipped_ste_sign(real_array("x", x))


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
    return _approx_sign(real_array("x", x))


def swish_sign(x: jax.Array, beta: jax.typing.ArrayLike = 5.0) -> jax.Array:
    r"""Sign with the gradient of SignSwish, a smooth sign that overshoots.

    Forward sign(x); pseudo-gradient

    .. math::
      \frac{\beta (2 - \beta x \tanh(\beta x / 2))}{1 + \cosh(\beta x)},

    which is :math:`\beta` at 0 and a little below 0 where :math:`\beta |x| > 2.4`: a sign that is
    sure of itself is pulled back. It is computed in float32 at least.

    Args:
      x: real array of any shape.
      beta: sharpness, above 0; may be traced, so it may grow in training. It gets no gradient.

    Returns:
      +1 or -1; shape and dtype of `x`.

    Raises:
      ValueError: if beta is known, and not above 0 and finite.

    >>> [round(jax.grad(swish_sign)(x).item(), 3) for x in (0.0, 1.0)]
    [5.0, -0.195]

    Source: Darabi et al. 2018, BNN+.
    """
    return _swish_sign(real_array("x", x), _sharpness("beta", beta))


def tanh_sign(x: jax.Array, sharpness: jax.typing.ArrayLike = 1.0) -> jax.Array:
    r"""Sign with the gradient of a tanh, which sharpens as training goes on.

    Forward sign(x); pseudo-gradient that of :math:`k \tanh(t x)`,

    .. math::
      k t (1 - \tanh^2(t x)), \quad k = \max(1 / t, 1).

    IR-Net lets t grow from 0.1, where nearly every x has gradient 1, to 10, where few have any:
    t = 0.1 * 100 ** (epoch / epochs). It is computed in float32 at least.

    Args:
      x: real array of any shape.
      sharpness: t, above 0; may be traced. It gets no gradient.

    Returns:
      +1 or -1; shape and dtype of `x`.

    Raises:
      ValueError: if the sharpness is known, and not above 0 and finite.

    >>> jax.grad(tanh_sign)(0.0, 10.0).item()
    10.0

    Source: Qin et al. 2020, IR-Net (error decay estimator).
    """
    return _tanh_sign(real_array("x", x), _sharpness("sharpness", sharpness))


def _sharpness(name: str, value: jax.typing.ArrayLike) -> jax.Array:
    array = real_array(name, value)
    # What is no JAX array yet by itself: in a compiled function it becomes a traced one.
    is_plain = isinstance(value, int | float | np.generic | np.ndarray)
    check_sharpness(name, value if is_plain else array)
    return array


@jax.custom_jvp
def _ste_sign(x: jax.Array) -> jax.Array:
    return sign(x)


@jax.custom_jvp
def _clipped_ste_sign(x: jax.Array) -> jax.Array:
    return sign(x)


@jax.custom_jvp
def _approx_sign(x: jax.Array) -> jax.Array:
    return sign(x)


@jax.custom_jvp
def _swish_sign(x: jax.Array, beta: jax.typing.ArrayLike) -> jax.Array:
    return sign(x)


@jax.custom_jvp
def _tanh_sign(x: jax.Array, sharpness: jax.typing.ArrayLike) -> jax.Array:
    return sign(x)


def _define_gradient(f: Any, derivative: Callable[..., jax.Array]) -> None:
    """Gives f(x, *constants) the gradient derivative(x, *constants) in x, and none otherwise."""

    def jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
        x, *constants = jnp.asarray(primals[0]), *map(lax.stop_gradient, primals[1:])
        # By f, not by sign: whoever differentiates again finds the same pseudo-gradient.
        return f(x, *constants), derivative(x, *constants).astype(x.dtype) * tangents[0]

    f.defjvp(jvp)


def _clipped_ste(x: jax.Array) -> jax.Array:
    return jnp.where(jnp.isnan(x), x, (jnp.abs(x) <= 1).astype(x.dtype))


def _swish(x: jax.Array, beta: jax.typing.ArrayLike) -> jax.Array:
    z, decay, beta = _decay(x, beta)
    # 1 + cosh z = (1 + decay)^2 / (2 decay), but cosh would overflow.
    return beta * (2 - z * (1 - decay) / (1 + decay)) * 2 * decay / jnp.square(1 + decay)


def _tanh(x: jax.Array, sharpness: jax.typing.ArrayLike) -> jax.Array:
    _, decay, twice = _decay(x, 2 * jnp.asarray(sharpness))
    # 1 - tanh^2, but that would cancel.
    return jnp.maximum(twice / 2, 1) * 4 * decay / jnp.square(1 + decay)


def _decay(x: jax.Array, sharpness: jax.typing.ArrayLike) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sharpness times |x|, exp of minus that, and the sharpness, in float32 at least."""
    dtype = accurate_dtype(x)
    sharpness = jnp.asarray(sharpness, dtype)
    z = jnp.minimum(sharpness * jnp.abs(x.astype(dtype)), 1000)  # exp(-1000) is 0, inf * 0 NaN
    return z, jnp.exp(-z), sharpness


_ste_sign.defjvp(lambda primals, tangents: (_ste_sign(*primals), *tangents))
_define_gradient(_clipped_ste_sign, _clipped_ste)
_define_gradient(_approx_sign, lambda x: jnp.maximum(2 - 2 * jnp.abs(x), 0))
_define_gradient(_swish_sign, _swish)
_define_gradient(_tanh_sign, _tanh)
