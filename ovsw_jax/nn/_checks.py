"""Checks of arguments: arrays, dtypes, counts, channels of an input, and the signs of a layer."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from ovsw_jax.hyperparams import check_flag
from ovsw_jax.nn.sign_kinds import carries_factor, keeps_flips


def real_array(name: str, x: Any) -> jax.Array:
    """`x` as a JAX array.

    Args:
      name: of the argument, for the error.
      x: an array of JAX or NumPy, a number, or what holds an array, such as an `nnx.Variable`.

    Raises:
      TypeError: if it is none of these, or not real.
    """
    if isinstance(x, jax.Array) and _is_real(x.dtype):
        return x
    array = None
    if isinstance(x, jax.Array | np.ndarray | np.generic | int | float) or _holds_array(x):
        try:
            with np.errstate(over="ignore"):
                array = jnp.asarray(x)
        except (TypeError, ValueError, OverflowError):
            pass
    if array is None or not _is_real(array.dtype):
        raise TypeError(
            f"{name}={_described(x)} is no real array: give one of JAX or NumPy, or a number."
        )
    return array


def floating_array(name: str, x: Any) -> jax.Array:
    """As `real_array`, of a floating-point type."""
    array = real_array(name, x)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"{name} has dtype {array.dtype}; it must be a real floating-point array. Convert it, "
            "e.g. to float32."
        )
    return array


def check_floating_dtype(**dtypes: Any) -> None:
    """Raises TypeError unless every argument is a real floating-point dtype, or None."""
    for name, dtype in dtypes.items():
        if dtype is not None and not jnp.issubdtype(as_dtype(name, dtype), jnp.floating):
            raise TypeError(
                f"{name}={dtype!r} can't hold what a network computes: use float32, bfloat16 or "
                "another real floating-point type."
            )


def as_dtype(name: str, dtype: Any) -> np.dtype[Any]:
    """The dtype that an argument names; TypeError if it is none."""
    try:
        return jnp.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"{name}={dtype!r} is no dtype, such as jnp.float32.") from error


def is_count(value: object) -> bool:
    """Whether a value is a positive integer, of Python or NumPy."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return False
    return bool(value > 0)


def check_counts(**counts: object) -> None:
    """Raises ValueError unless every argument is a positive integer."""
    for name, value in counts.items():
        if not is_count(value):
            raise ValueError(f"{name}={value!r} must be a positive integer.")


def channels(x: jax.Array) -> int:
    """How many channels an input has, before there is a parameter for each.

    Raises:
      ValueError: if it has no axis of channels.
      TypeError: if it is no real floating-point array.
    """
    shape = floating_array("input", x).shape
    if not shape:
        raise ValueError("input of shape () has no channels: they are its last axis.")
    return shape[-1]


def check_channels(x: jax.Array, parameter: jax.Array) -> jax.Array:
    """The input as an array whose last axis holds as many channels as `parameter`.

    Raises:
      ValueError: if it does not.
      TypeError: if it is not of a real floating-point type, which the result would have.
    """
    x = floating_array("input", x)
    if x.shape[-1:] != parameter.shape[-1:]:
        raise ValueError(
            f"input of shape {x.shape} does not fit {parameter.shape[-1]} channels: its last axis "
            f"must have size {parameter.shape[-1]} (channels last)."
        )
    return x


def check_signs(
    input_sign: object,
    kernel_sign: object,
    scale: object,
    *,
    normalize_input: bool,
    threshold: type[nnx.Module] | type[linen.Module],
) -> None:
    """Checks the signs of a layer, by themselves and together.

    Args:
      input_sign: the layer's argument of that name.
      kernel_sign: the same.
      scale: the same.
      normalize_input: whether it divides its input in training.
      threshold: the `LearnedThresholdSign` of the layer's own kind, NNX or linen.

    Raises:
      ValueError: if one can't be called or has parameters that the layer can't train, nothing is
        binary, or training and evaluation or sign and factor don't go together.
      TypeError: if `normalize_input` is no bool.
    """
    check_flag("normalize_input", normalize_input)
    if input_sign is None and kernel_sign is None:
        raise ValueError(
            "input_sign=None and kernel_sign=None leave nothing binary: give one of them a sign, "
            "or use Flax's own real-valued layer."
        )
    _check_input_sign(input_sign, threshold)
    _check_kernel_sign(kernel_sign)
    for name, sign in (("input_sign", input_sign), ("kernel_sign", kernel_sign)):
        _check_that_flax_sees(name, sign, threshold)
    if isinstance(input_sign, threshold) and normalize_input:
        raise ValueError(
            "normalize_input=True divides the input by its deviation in training only, so a "
            "LearnedThresholdSign would compare other numbers in evaluation: pass "
            "normalize_input=False with it."
        )
    if carries_factor(kernel_sign) and scale is not None:
        raise ValueError(
            f"scale={scale!r} would be a second factor: a kernel_sign that carries the magnitude "
            "of each filter is one already. Pass scale=None with it."
        )


def _check_input_sign(sign: Any, threshold: type[nnx.Module] | type[linen.Module]) -> None:
    example = _example(threshold, sign)
    if isinstance(_made_by(sign), type):
        raise ValueError(
            f"input_sign={_made_by(sign).__name__} is a class: make an object of it, as in "
            f"{example}."
        )
    if sign is not None and not callable(sign):
        raise ValueError(
            f"input_sign={sign!r} is no function: use one such as ovsw.nn.approx_sign, a module "
            f"such as {example}, or None for real activations."
        )


def _check_kernel_sign(sign: Any) -> None:
    kind = _made_by(sign) if isinstance(_made_by(sign), type) else type(sign)
    if keeps_flips(kind) and not isinstance(sign, kind):
        raise ValueError(f"kernel_sign={kind.__name__} is a class: make an object of it.")
    if issubclass(kind, nnx.Module | linen.Module) and not keeps_flips(kind):
        raise ValueError(
            f"kernel_sign={kind.__name__} is a module: ovsw.sad counts flips of sign(W), so the "
            "sign of a latent weight can't depend on other parameters. Use a function such as "
            "ovsw.nn.ste_sign, or a SharpeningSign."
        )
    if sign is not None and (kind is sign or not callable(sign)):
        raise ValueError(
            f"kernel_sign={sign!r} is no function: use one such as ovsw.nn.ste_sign, or None for "
            "real weights."
        )


def _check_that_flax_sees(
    name: str, sign: Any, threshold: type[nnx.Module] | type[linen.Module]
) -> None:
    if issubclass(threshold, nnx.Module):
        foreign: type = linen.Module
        kinds = "linen, not NNX"
    else:
        foreign = nnx.Module
        kinds = "NNX, not linen"
    if isinstance(sign, foreign):
        raise ValueError(
            f"{name} is a {type(sign).__name__} of Flax {kinds}, whose parameters this layer "
            f"could not train: give it one of its own kind, {_example(threshold, sign)}."
        )
    inside = (*sign.args, *sign.keywords.values()) if isinstance(sign, functools.partial) else ()
    for value in inside:
        if isinstance(value, nnx.Module | linen.Module | nnx.Variable):
            raise ValueError(
                f"{name} has a {type(value).__name__} inside a functools.partial, where Flax does "
                "not see it: what it holds would be a constant of the compiled step. Give the "
                f"layer a module itself, for a sharpness that grows {_sharpening(threshold)}."
            )


def _example(threshold: type[nnx.Module] | type[linen.Module], sign: object) -> str:
    """How to make the module of the layer's own kind that does what `sign` was to do."""
    made = _made_by(sign)
    # Of both SharpeningSigns, whose classes can't be imported here, and their subclasses.
    if keeps_flips(made if isinstance(made, type) else type(made), inherited=True):
        return _sharpening(threshold)
    if issubclass(threshold, nnx.Module):
        return "ovsw.nn.LearnedThresholdSign(in_features, rngs=rngs)"
    return "ovsw.linen.LearnedThresholdSign()"


def _sharpening(threshold: type[nnx.Module] | type[linen.Module]) -> str:
    package = "nn" if issubclass(threshold, nnx.Module) else "linen"
    return f"ovsw.{package}.SharpeningSign()"


def _made_by(sign: Any) -> Any:
    """A class or function, out of the `partial` that may be around it."""
    return sign.func if isinstance(sign, functools.partial) else sign


def _is_real(dtype: Any) -> bool:
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def _holds_array(x: Any) -> bool:
    return hasattr(type(x), "__jax_array__")


def _described(x: Any) -> str:
    return f"an array of {x.dtype}" if isinstance(x, jax.Array | np.ndarray) else repr(x)
