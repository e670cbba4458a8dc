"""What layers know of a sign: that it gives +1 and -1 alone, carries a factor, or keeps flips.

Functions and classes enter these sets where they are defined. They are no attributes: a subclass
inherits those, and `functools.wraps` copies them to a function that may give other values.
"""

import functools
import inspect
import types
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import jax

Sign = Callable[[jax.Array], jax.Array]

_Kind = TypeVar("_Kind", bound=Callable[..., Any])

_TWO_VALUED: weakref.WeakSet[Callable[..., Any]] = weakref.WeakSet()
_DELEGATING: weakref.WeakSet[Callable[..., Any]] = weakref.WeakSet()
_CARRYING_FACTOR: weakref.WeakSet[Callable[..., Any]] = weakref.WeakSet()
_KEEPING_FLIPS: weakref.WeakSet[Callable[..., Any]] = weakref.WeakSet()


def two_valued(function: _Kind) -> _Kind:
    """Marks a function whose results are +1 and -1 alone, whatever its arguments."""
    _TWO_VALUED.add(function)
    return function


def delegates_to_sign(kind: _Kind) -> _Kind:
    """Marks a function, or a class of modules, whose results are those of its `sign`."""
    _DELEGATING.add(kind)
    return kind


def with_factor(function: _Kind) -> _Kind:
    """Marks a sign of kernels that multiplies each filter by a factor."""
    _CARRYING_FACTOR.add(function)
    return function


def keeping_flips(kind: _Kind) -> _Kind:
    """Marks a class of signs whose state moves no sign: flips are those of the latent weight."""
    _KEEPING_FLIPS.add(kind)
    return kind


def is_two_valued(sign: object) -> bool:
    """Whether a sign is known to give +1 and -1 alone, so that a layer may treat it as bits.

    Those of `sign_with_gradient` are, also behind `functools.partial`, and those that pass on the
    results of one of them: `standardized_sign`, `LearnedThresholdSign`. Another function of the
    user's is not known to be: it may give 0 at 0.

    >>> from ovsw_jax.nn import tanh_sign
    >>> is_two_valued(functools.partial(tanh_sign, sharpness=2.0)), is_two_valued(lambda x: x)
    (True, False)
    """
    function: Any = sign
    keywords: dict[str, Any] = {}
    while isinstance(function, functools.partial):
        function, keywords = function.func, function.keywords | keywords
    if isinstance(function, types.FunctionType):
        if function in _DELEGATING:
            default = inspect.signature(function).parameters["sign"].default
            return is_two_valued(keywords.get("sign", default))
        return function in _TWO_VALUED
    # Of the class itself: a subclass may do something else.
    return type(function) in _DELEGATING and is_two_valued(getattr(function, "sign", None))


def is_scale_free(sign: object) -> bool:
    """Whether a sign is known to give the same for x and for x / c, whatever the positive c.

    >>> from ovsw_jax.nn import tanh_sign
    >>> is_scale_free(tanh_sign), is_scale_free(lambda x: tanh_sign(x - 1))
    (True, False)
    """
    if isinstance(sign, functools.partial):
        return is_scale_free(sign.func)
    if isinstance(sign, types.FunctionType):
        return sign in _TWO_VALUED
    return type(sign) in _KEEPING_FLIPS and is_scale_free(getattr(sign, "sign", None))


def carries_factor(kernel_sign: object) -> bool:
    """Whether a sign of kernels multiplies each filter by a factor, which inference must store."""
    if isinstance(kernel_sign, functools.partial):
        return carries_factor(kernel_sign.func)
    return isinstance(kernel_sign, types.FunctionType) and kernel_sign in _CARRYING_FACTOR


def keeps_flips(kind: type, *, inherited: bool = False) -> bool:
    """Whether a class was marked by `keeping_flips`, or with `inherited` one of its bases."""
    return any(k in _KEEPING_FLIPS for k in (kind.__mro__ if inherited else (kind,)))
