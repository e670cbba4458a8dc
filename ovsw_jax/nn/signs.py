"""One sign, several gradients.

The derivative of a sign is zero almost everywhere, so `sign_with_gradient` puts a pseudo-gradient
in its place. All its signs give the same +1 and -1 in the forward pass. sign(0) = sign(-0.0) = +1,
since a binary weight is one bit; a subnormal is 0 where XLA takes it for zero, as on CPUs. NaN
gives -1, and its pseudo-gradient is NaN, unless that is the same for all x.

Higher derivatives are those of the pseudo-gradient: the derivative of ste_sign(w)^2 is
2 ste_sign(w), the second one 2.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from jax import lax

from ovsw_jax.hyperparams import check_sharpness
from ovsw_jax.nn._checks import real_array
from ovsw_jax.nn.sign_kinds import is_two_valued, two_valued
from ovsw_jax.precision import accurate_dtype

_Arguments = ParamSpec("_Arguments")


@two_valued
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


def sign_with_gradient(
    derivative: Callable[_Arguments, jax.typing.ArrayLike],
    *,
    check: Callable[..., object] | None = None,
) -> Callable[_Arguments, jax.Array]:
    """Makes a sign from the function that takes the place of its derivative.

    Used as a decorator: the sign has the name, the parameters and the docstring of the function,
    whose body is the pseudo-gradient. A layer knows that its results are +1 and -1 and nothing
    else, and counts their bits on CPUs; it does not know that of a function of any other kind. Make
    each sign once: what is compiled with one is compiled again with another.

    Args:
      derivative: function of x and of any constants, giving the slope at each element of `x`: a
        real array of the shape of `x`, or one Python or NumPy number, the same everywhere. What it
        gives for NaN is the gradient there: NaN shows where training broke.
      check: function of the constants, by keyword, to raise for bad ones; called each time the
        sign is. It gets a number or NumPy array as it is, others as JAX arrays, maybe traced.

    Returns:
      Function of x, any real array, and the constants: +1 where x >= 0, else -1, in the shape and
      dtype of `x`. The slope is rounded to that dtype. Constants are real numbers or arrays. They
      may be traced, and get no gradient.

    Raises:
      TypeError: if `derivative` or `check` is no function, or `derivative` is a sign itself or
        takes `*args` or `**kwargs`; from the sign, if an argument is no real array, or once
        differentiated if the slope is not.
      ValueError: from the sign once differentiated, if the slope has another shape than `x`.

    >>> @sign_with_gradient
    ... def window_sign(x, width=1.0):
    ...     return jnp.where(jnp.isnan(x), x, jnp.abs(x) <= width)
    >>> window_sign(jnp.array([-3.0, 0.0])).tolist()
    [-1.0, 1.0]
    >>> jax.grad(window_sign)(1.5).item(), jax.grad(window_sign)(1.5, 2.0).item()
    (0.0, 1.0)

    Source: ours; the idea of a pseudo-gradient is that of Bengio et al. 2013.
    """
    signature = _signature(derivative)
    if check is not None and not callable(check):
        raise TypeError(f"check={check!r} is no function: give one of the constants, or None.")
    name = getattr(derivative, "__name__", type(derivative).__name__)

    def forward(x: jax.Array, *constants: jax.Array) -> jax.Array:
        return sign(x)

    forward.__name__ = name  # in jaxprs and profiles
    signed = jax.custom_jvp(forward)

    @signed.defjvp
    def jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
        x, *constants = jnp.asarray(primals[0]), *map(lax.stop_gradient, primals[1:])
        # Not by `sign`: whoever differentiates again finds the same pseudo-gradient.
        y = signed(x, *constants)
        arguments = inspect.BoundArguments(
            signature, dict(zip(signature.parameters, (x, *constants), strict=True))
        )
        slope = derivative(*arguments.args, **arguments.kwargs)
        return y, _times_slope(tangents[0], slope, x, name)

    @functools.wraps(derivative)
    def sign_of_x(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> jax.Array:
        try:
            arguments = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}() {error}") from None
        arguments.apply_defaults()
        arrays = {n: real_array(n, value) for n, value in arguments.arguments.items()}
        if check is not None:
            check(**_constants_to_check(arguments.arguments, arrays))
        return signed(*arrays.values())

    sign_of_x.__signature__ = signature.replace(return_annotation=jax.Array)  # type: ignore[attr-defined]
    return two_valued(sign_of_x)


def _signature(derivative: Any) -> inspect.Signature:
    """The parameters of a derivative; TypeError unless it is a function with a name for each."""
    if not callable(derivative) or isinstance(derivative, type | nnx.Module | linen.Module):
        raise TypeError(
            f"derivative={derivative!r} is no function: give one of x that takes the place of the "
            "sign's derivative, such as lambda x: jnp.maximum(2 - 2 * jnp.abs(x), 0)."
        )
    if is_two_valued(derivative):
        raise TypeError(
            f"derivative={derivative!r} is a sign already: use it as it is, or give the function "
            "that takes the place of its derivative."
        )
    try:
        signature = inspect.signature(derivative)
    except ValueError as error:  # of a builtin
        raise TypeError(
            f"derivative={derivative!r} has no known parameters: call it in a function of x."
        ) from error
    kinds = [p.kind for p in signature.parameters.values()]
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    by_name = (*by_position, inspect.Parameter.KEYWORD_ONLY)
    if not kinds or kinds[0] not in by_position or any(kind not in by_name for kind in kinds):
        raise TypeError(
            f"derivative={derivative!r} takes {signature}: it must take x by position, and each "
            "constant by a name. Write them out, as in (x, width=1.0)."
        )
    return signature


def _constants_to_check(values: dict[str, Any], arrays: dict[str, jax.Array]) -> dict[str, Any]:
    """All arguments but x. Numbers stay as they are: in a compiled function arrays are traced."""
    plain = int | float | np.generic | np.ndarray
    known = {n: value if isinstance(value, plain) else arrays[n] for n, value in values.items()}
    return dict(list(known.items())[1:])


def _times_slope(tangent: jax.Array, slope: Any, x: jax.Array, name: str) -> jax.Array:
    """The tangent times what a derivative gave, once that is known to be a slope for each x."""
    is_number = isinstance(slope, int | float | np.generic)
    if is_number and slope == 1:
        return tangent
    try:
        array = real_array("slope", slope)
    except TypeError as error:
        raise TypeError(
            f"the derivative of {name} gave {slope!r}, which is no real array: let it return one "
            f"of the shape of x, {x.shape}, or one number."
        ) from error
    if array.shape != x.shape and not is_number:
        raise ValueError(
            f"the derivative of {name} gave shape {array.shape} for x of shape {x.shape}: let it "
            "return one slope for each element of x, or one Python number for all of them."
        )
    return array.astype(x.dtype) * tangent


@sign_with_gradient
def ste_sign(x: jax.Array) -> jax.typing.ArrayLike:
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
    return 1


@sign_with_gradient
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
    return jnp.where(jnp.isnan(x), x, (jnp.abs(x) <= 1).astype(x.dtype))


@sign_with_gradient
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
    return jnp.maximum(2 - 2 * jnp.abs(x), 0)


def _check_sharpness(**sharpness: object) -> None:
    for name, value in sharpness.items():
        check_sharpness(name, value)


@functools.partial(sign_with_gradient, check=_check_sharpness)
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
    z, decay, beta = _decay(x, beta)
    # 1 + cosh z = (1 + decay)^2 / (2 decay), but cosh would overflow.
    return beta * (2 - z * (1 - decay) / (1 + decay)) * 2 * decay / jnp.square(1 + decay)


@functools.partial(sign_with_gradient, check=_check_sharpness)
def tanh_sign(x: jax.Array, sharpness: jax.typing.ArrayLike = 1.0) -> jax.Array:
    r"""Sign with the gradient of a tanh, which sharpens as training proceeds.

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
    _, decay, twice = _decay(x, 2 * jnp.asarray(sharpness))
    # 1 - tanh^2, but that would cancel.
    return jnp.maximum(twice / 2, 1) * 4 * decay / jnp.square(1 + decay)


def _decay(x: jax.Array, sharpness: jax.typing.ArrayLike) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sharpness times |x|, exp of minus that, and the sharpness, in float32 at least."""
    dtype = accurate_dtype(x)
    sharpness = jnp.asarray(sharpness, dtype)
    z = jnp.minimum(sharpness * jnp.abs(x.astype(dtype)), 1000)  # exp(-1000) is 0, inf * 0 NaN
    return z, jnp.exp(-z), sharpness
