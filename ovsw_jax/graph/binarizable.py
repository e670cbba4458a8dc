"""Whether a binary layer can replace an ordinary one, and if not, why and what to do."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from ovsw_jax.graph.module_tree import Path, modules


def check_layers(
    model: nnx.Module, selected: Sequence[tuple[Path, Any]], options: Mapping[str, Any]
) -> None:
    """Raises ValueError for the first layer that no binary layer can replace.

    Args:
      model: the whole network.
      selected: paths and layers, each an `nnx.Conv`, `nnx.Linear` or `nnx.LinearGeneral`.
      options: of the binary layers.
    """
    for path, reason in obstacles(model, selected, options).items():
        raise ValueError(unlike(path, dict(selected)[path], reason))


def obstacles(
    model: nnx.Module, selected: Sequence[tuple[Path, Any]], options: Mapping[str, Any]
) -> dict[Path, str]:
    """Why layers can't be replaced, by their paths; arguments as of `check_layers`."""
    chosen = {path for path, _ in selected}
    reasons = {
        path: _own_obstacle(layer)
        or _without_precision(layer, options)
        or _held_elsewhere(model, layer, chosen)
        for path, layer in selected
    }
    return {path: reason for path, reason in reasons.items() if reason}


def unlike(path: Path, layer: nnx.Module, reason: str) -> str:
    """The error message about one layer."""
    name = "/".join(map(str, path)) or "the model"
    return (
        f"{name} ({type(layer).__name__}) can't be made binary: {reason} Or keep it real: give "
        f"where=, a function of path and layer that is False for {path!r}."
    )


_OWN_ARITHMETIC = (
    "conv_general_dilated",
    "dot_general",
    "dot_general_cls",
    "promote_dtype",
    "preferred_element_type",
)


def _own_obstacle(layer: Any) -> str | None:
    """What a layer has that binary layers don't, with a remedy."""
    kinds = (nnx.Conv, nnx.Linear, nnx.LinearGeneral)
    kind: Any = next(kind for kind in kinds if isinstance(layer, kind))
    if type(layer).__call__ is not kind.__call__:
        return (
            f"{type(layer).__name__} has a __call__ of its own, which would be lost. Use a binary "
            "layer in it by hand."
        )
    for name in _OWN_ARITHMETIC:
        default = inspect.signature(kind.__init__).parameters.get(name)
        if default is not None and getattr(layer, name) is not default.default:
            return f"it has its own {name}, which binary layers don't take. Remove it."
    if isinstance(layer, nnx.Conv):
        if layer.mask is not None:
            return (
                "it has a mask, and a masked weight is 0, which no sign is. Train it without one."
            )
        if any(n != 1 for n in _entries(layer.input_dilation)):
            return (
                f"input_dilation={layer.input_dilation!r} puts zeros between the inputs, which no "
                "sign is. Resize the input before the layer."
            )
    if isinstance(layer, nnx.LinearGeneral) and layer.batch_axis:
        return (
            f"batch_axis={dict(layer.batch_axis)} gives each entry of that axis a kernel of its "
            "own. Use an ovsw.nn.BinaryLinearGeneral under nnx.vmap."
        )
    kernel = layer.kernel.get_value()
    shape = _kernel_shape(layer)
    if kernel.shape != shape:
        return (
            f"its kernel has shape {kernel.shape} instead of {shape}: it is stacked, as nnx.vmap "
            "does. Binarise before stacking, in the function that nnx.vmap maps."
        )
    if not jnp.issubdtype(kernel.dtype, jnp.floating):
        return f"its kernel has dtype {kernel.dtype}. Make it a real floating-point one."
    return None


def _kernel_shape(layer: Any) -> tuple[int, ...]:
    if isinstance(layer, nnx.Conv):
        return tuple(layer.kernel_shape)
    if isinstance(layer, nnx.LinearGeneral):
        return (*layer.in_features, *layer.out_features)
    return layer.in_features, layer.out_features


def _entries(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, Sequence) else (value,)


def _without_precision(layer: Any, options: Mapping[str, Any]) -> str | None:
    real = [name for name in ("input_sign", "kernel_sign") if options.get(name, "") is None]
    if layer.precision is None or not real:
        return None
    return (
        f"precision={layer.precision} matters for real operands ({real[0]}=None), and binary "
        "layers don't take it. Remove it."
    )


def _held_elsewhere(model: nnx.Module, layer: Any, chosen: set[Path]) -> str | None:
    """Which other layer uses the kernel, and would not know its new meaning or name."""
    for path, other in modules(model):
        name = "/".join(map(str, path)) or "the model"
        wrapped = getattr(other, "layer_instance", None)
        if isinstance(other, nnx.WeightNorm | nnx.SpectralNorm) and wrapped is layer:
            return f"{name} ({type(other).__name__}) normalises its kernel. Remove it."
        holds = any(value is layer.kernel for value in vars(other).values())
        if holds and path not in chosen:
            return f"{name} ({type(other).__name__}) shares its kernel. Give it one of its own."
    return None
