"""What a binary layer takes for its signs, and what it says of anything else."""

import functools
from typing import Any

from flax import linen, nnx

from ovsw_jax.nn.filter_signs import carries_factor


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
      input_sign: what the layer was given for it.
      kernel_sign: the same.
      scale: its factor.
      normalize_input: whether it divides its input in training.
      threshold: the `LearnedThresholdSign` of the layer's own kind, NNX or linen.

    Raises:
      ValueError: if one can't be called or has parameters that the layer can't train, nothing is
        binary, or training and evaluation or sign and factor don't go together.
    """
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
    keeps_flips = vars(kind).get("keeps_flips")
    if keeps_flips and not isinstance(sign, kind):
        raise ValueError(f"kernel_sign={kind.__name__} is a class: make an object of it.")
    if issubclass(kind, nnx.Module | linen.Module) and not keeps_flips:
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
    if getattr(made if isinstance(made, type) else type(made), "keeps_flips", False):
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
