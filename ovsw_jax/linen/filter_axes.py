"""Axes of one filter, and of one layer, in the latent kernels of a Flax linen network."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
from flax import linen, nnx, traverse_util

from ovsw_jax.graph.call import call_with
from ovsw_jax.latent import Mask, selected
from ovsw_jax.linen.dense_general import BinaryDenseGeneral
from ovsw_jax.linen.layers import BinaryConv, BinaryDense
from ovsw_jax.stacks import (
    Kernel,
    KernelAxes,
    check_stacked,
    conventional,
    in_stack,
    of_einsum,
    said_by_attribute,
    unknown,
)

Path = tuple[str, ...]


def filter_axes(
    module: linen.Module,
    *args: Any,
    mask: Mask | None = None,
    stacked: int | Sequence[int] | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """Asks the layers of a network which axes of their latent kernels make up one filter.

    As `ovsw.filter_axes`, with an input: a linen module has layers in a call alone. The call is
    traced, and nothing is computed. Within `linen.vmap` and `linen.scan` a layer sees its own
    kernel, and what the array has more is a stack.

    Known are the layers of `ovsw.linen`, and `linen.Dense`, `linen.DenseGeneral`, `linen.Einsum`,
    `linen.Conv` and `linen.ConvTranspose`. A layer of your own says it by an attribute
    `filter_axes`, a tuple of axes of its kernel. Without it a kernel of two axes is taken as
    (in, out), and one of four as HWIO.

    Args:
      module: the network.
      *args: inputs of its call: each an array, a `jax.ShapeDtypeStruct`, a tree of these, or the
        shape of a float32 array.
      mask: which parameters are latent weights, as of the transforms; None for `ovsw.latent_mask`.
      stacked: as of `ovsw.filter_axes`; `variable_axes` of `linen.vmap`.
      **kwargs: handed to the call, such as `train=True`; what it calls `mask` or `stacked` is
        given by position.

    Returns:
      A dict like `variables["params"]` with a tuple of axes at each latent kernel, and nothing
      else.

    Raises:
      TypeError: if `module` is no linen module, or `stacked` no axis.
      ValueError: if there is no input; if a layer doesn't say what its filters are, its kernel is
        no stack of what it says, or the shape doesn't tell along which axis it is stacked; or if
        no weights are latent.

    Example:
      >>> import ovsw_jax as ovsw
      >>> from flax import linen
      >>> each = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
      >>> members = linen.vmap(ovsw.linen.BinaryDense, **each)(16, train=True)
      >>> ovsw.linen.filter_axes(members, (4, 2, 8))
      {'latent_kernel': (1,)}

    Source: ours; a filter is that of Eq. 14 of OvSW (Xiang et al., ECCV 2024).
    """
    found = _asked("filter_axes", module, args, kwargs, mask, stacked)
    return traverse_util.unflatten_dict({path: axes.filter for path, axes in found.items()})


def layer_axes(
    module: linen.Module,
    *args: Any,
    mask: Mask | None = None,
    stacked: int | Sequence[int] | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """As `filter_axes`, the axes that make up one layer, for `axes` of `ovsw.lars_sgd`.

    Args:
      module: as of `filter_axes`.
      *args: as of `filter_axes`.
      mask: as of `filter_axes`.
      stacked: as of `filter_axes`.
      **kwargs: as of `filter_axes`.

    Returns:
      As `filter_axes`.

    Raises:
      TypeError, ValueError: as `filter_axes`.

    Example:
      >>> import ovsw_jax as ovsw
      >>> ovsw.linen.layer_axes(ovsw.linen.BinaryDense(16, train=True), (4, 8))
      {'latent_kernel': (0, 1)}

    Source: ours.
    """
    found = _asked("layer_axes", module, args, kwargs, mask, stacked)
    return traverse_util.unflatten_dict({path: axes.layer for path, axes in found.items()})


def _asked(
    function: str, module: linen.Module, args: Any, kwargs: Any, mask: Mask | None, stacked: Any
) -> dict[Path, KernelAxes]:
    if not isinstance(module, linen.Module):
        remedy = f" Call ovsw.{function}(model)." if isinstance(module, nnx.Module) else ""
        raise TypeError(
            f"ovsw.linen.{function} takes a linen module, but got {type(module).__name__}.{remedy}"
        )
    check_stacked(stacked)
    call = call_with(args, kwargs)
    layers: dict[Path, tuple[Any, tuple[int, ...]]] = {}

    def look(method: Any, args: Any, kwargs: Any, context: Any) -> Any:
        result = method(*args, **kwargs)
        layer = context.module
        if layer.scope is not None:
            for name, x in linen.meta.unbox(dict(layer.variables.get("params", {}))).items():
                if hasattr(x, "shape"):
                    layers[(*layer.path, name)] = layer, tuple(x.shape)
        return result

    def made(key: jax.Array, arrays: list[jax.Array]) -> Any:
        return call.of(partial(module.init, key), arrays)

    with linen.intercept_methods(look):
        variables = jax.eval_shape(made, jax.random.key(0), list(call.abstract.values()))
    params = linen.meta.unbox(variables).get("params", {})
    flat = {
        tuple(key.key for key in path): tuple(x.shape)
        for path, x in jax.tree_util.tree_leaves_with_path(params)
    }
    chosen = [path for path, flag in zip(flat, selected(params, mask), strict=True) if flag]
    if not chosen:
        raise ValueError(
            f"{type(module).__name__} has no latent weights among its {len(flat)} parameters. Put "
            "a binary layer into it, such as ovsw.linen.BinaryConv, or give mask= a function of "
            "the parameters."
        )
    found = {}
    for path in chosen:
        layer, own = layers.get(path, (module, flat[path]))
        name = "/".join(path)
        kernel = _kernel(layer, path[-1], own, name) or conventional(own)
        if kernel is None:
            raise ValueError(unknown(name, layer, flat[path]))
        found[path] = in_stack(kernel, flat[path], stacked, name, layer)
    return found


def _kernel(layer: Any, name: str, shape: tuple[int, ...], place: str) -> Kernel | None:
    """What a layer says of its kernel; None if it says nothing."""
    if said := said_by_attribute(layer, shape, place):
        return said
    if name not in ("kernel", "latent_kernel"):
        return None
    last = len(shape) - 1
    match layer:
        case BinaryConv() | BinaryDense() | linen.Dense() | linen.Conv():
            return Kernel(shape, tuple(range(last)))
        case linen.ConvTranspose():
            output = last - 1 if layer.transpose_kernel else last
            return Kernel(shape, tuple(a for a in range(last + 1) if a != output))
        case linen.Einsum():
            return of_einsum(layer, shape, place)
        case BinaryDenseGeneral():
            outputs = _count(layer.features)
            return Kernel(shape, tuple(range(last + 1 - outputs)))
        case linen.DenseGeneral():
            batch, outputs = (_count(x) for x in (layer.batch_dims, layer.features))
            return Kernel(shape, tuple(range(batch, last + 1 - outputs)))
    return None


def _count(entries: Any) -> int:
    return len(entries) if isinstance(entries, Sequence) else 1
