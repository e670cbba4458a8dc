"""Axes of one filter, and of one layer, in the latent kernels of a Flax NNX network."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from flax import nnx, traverse_util

from ovsw_jax.graph.module_tree import check_is_nnx
from ovsw_jax.latent import Mask, selected
from ovsw_jax.nn.layers import BinaryConv, BinaryDense
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

Path = tuple[Any, ...]
Tree = dict[Any, Any]


def filter_axes(
    model: nnx.Module,
    *,
    mask: Mask | None = None,
    wrt: Any = nnx.Param,
    stacked: int | Sequence[int] | None = None,
) -> Tree:
    """Asks the layers of a network which axes of their latent kernels make up one filter.

    An array doesn't tell: (4, 8, 16) may be a 1-D convolution, four dense layers stacked by
    `nnx.vmap` for `nnx.scan`, or a projection to eight heads of attention. The layer knows the
    shape of its kernel, and what the array has more is a stack. The result is for `axes` of
    `ovsw.scale_by_ags` and `ovsw.ovsw_sgd`.

    Known are `BinaryConv` and `BinaryDense`, and `nnx.Linear`, `nnx.LinearGeneral`, `nnx.Einsum`,
    `nnx.Conv` and `nnx.ConvTranspose` with what is made of them, such as `nnx.MultiHeadAttention`;
    one filter is what one output feature is computed from. A layer of your own says it by two
    attributes: `kernel_shape`, the shape of one layer's kernel, and `filter_axes`, a tuple of its
    axes. Without them a kernel of two axes is taken as (in, out) and one of four as HWIO, so a
    layer of your own whose kernel becomes one of these by stacking must have them.

    Args:
      model: the network; may be abstract, as `nnx.eval_shape` makes it.
      mask: which parameters are latent weights, as of the transforms; None for `ovsw.latent_mask`.
      wrt: which Variables the optimizer is for, as of `nnx.Optimizer`.
      stacked: axis, or axes, along which layers are stacked, for kernels whose shape doesn't tell:
        `out_axes` of `nnx.vmap`. Of four stacked layers with kernels (4, 4), any axis may be it.
        None: what the attribute `stacked_axes` of `model` says, if it has one.

    Returns:
      A dict like `nnx.to_pure_dict(nnx.state(model, wrt))` with a tuple of axes at each latent
      kernel, and nothing else.

    Raises:
      TypeError: if `model` is no NNX module, or `stacked` no axis.
      ValueError: if a layer doesn't say what its filters are, its kernel is no stack of what it
        says, or the shape doesn't tell along which axis it is stacked; or if no weights are latent.

    Example:
      >>> import ovsw_jax as ovsw
      >>> from flax import nnx
      >>> stack = nnx.vmap(lambda rngs: ovsw.nn.BinaryDense(8, 16, rngs=rngs))
      >>> model = nnx.Dict(layers=stack(nnx.Rngs(0).split(4)))
      >>> ovsw.filter_axes(model)
      {'layers': {'latent_kernel': (1,)}}
      >>> tx = ovsw.ovsw_sgd(0.1, axes=ovsw.filter_axes(model))
      >>> optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    Source: ours; a filter is that of Eq. 14 of OvSW (Xiang et al., ECCV 2024).
    """
    found = _asked("filter_axes", model, mask, wrt, stacked)
    return traverse_util.unflatten_dict({path: axes.filter for path, axes in found.items()})


def layer_axes(
    model: nnx.Module,
    *,
    mask: Mask | None = None,
    wrt: Any = nnx.Param,
    stacked: int | Sequence[int] | None = None,
) -> Tree:
    """As `filter_axes`, the axes that make up one layer: all but those of a stack.

    It is for `axes` of `ovsw.lars_sgd`, which has one rate for each layer.

    Args:
      model: as of `filter_axes`.
      mask: as of `filter_axes`.
      wrt: as of `filter_axes`.
      stacked: as of `filter_axes`.

    Returns:
      As `filter_axes`.

    Raises:
      TypeError, ValueError: as `filter_axes`.

    Example:
      >>> import ovsw_jax as ovsw
      >>> from flax import nnx
      >>> stack = nnx.vmap(lambda rngs: ovsw.nn.BinaryDense(8, 16, rngs=rngs))
      >>> ovsw.layer_axes(nnx.Dict(layers=stack(nnx.Rngs(0).split(4))))
      {'layers': {'latent_kernel': (1, 2)}}

    Source: ours.
    """
    found = _asked("layer_axes", model, mask, wrt, stacked)
    return traverse_util.unflatten_dict({path: axes.layer for path, axes in found.items()})


def _asked(
    function: str, model: nnx.Module, mask: Mask | None, wrt: Any, stacked: Any
) -> dict[Path, KernelAxes]:
    check_is_nnx(
        model,
        f"ovsw.{function}",
        f"Call ovsw.linen.{function}(module, x) with an input x, or its shape.",
    )
    stacked = getattr(model, "stacked_axes", None) if stacked is None else stacked
    check_stacked(stacked)
    state = nnx.state(model, wrt, graph=True)
    variables = dict(nnx.to_flat_state(state))
    params = nnx.to_pure_dict(state)
    paths = [
        tuple(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    chosen = [path for path, flag in zip(paths, selected(params, mask), strict=True) if flag]
    if not chosen:
        raise ValueError(
            f"{type(model).__name__} has no latent weights among its {len(paths)} parameters. Put "
            "a binary layer into it, such as ovsw.nn.BinaryConv, or give mask= a function of the "
            "parameters."
        )
    holders = defaultdict(list)
    for path, layer, attribute, variable in _held(model):
        holders[id(variable)].append((path, layer, attribute))
    return {path: _agreed(path, variables[path], holders, stacked) for path in chosen}


def _held(model: nnx.Module) -> Iterator[tuple[Path, nnx.Pytree, str, nnx.Variable[Any]]]:
    """Every Variable once for each object that holds it, with the object and the attribute."""
    for path, node in nnx.iter_graph(model, graph=True):
        for attribute, value in vars(node).items() if isinstance(node, nnx.Pytree) else ():
            if not attribute.startswith("_pytree__"):
                for leaf in jax.tree.leaves(value, is_leaf=_is_node):
                    if isinstance(leaf, nnx.Variable):
                        yield path, node, attribute, leaf


def _is_node(x: Any) -> bool:
    return isinstance(x, nnx.Variable | nnx.Pytree)


def _agreed(path: Path, variable: Any, holders: Any, stacked: Any) -> KernelAxes:
    """What all layers that hold a kernel say of it."""
    shape = tuple(variable.get_value().shape)
    said = {}
    for place, layer, attribute in holders[id(variable)]:
        name = "/".join(map(str, (*place, attribute)))
        kernel = _kernel(layer, attribute, name) or conventional(shape)
        if kernel is None:
            raise ValueError(unknown(name, layer, shape))
        said[name] = in_stack(kernel, shape, stacked, name, layer)
    if len(set(said.values())) > 1:
        different = ", ".join(f"{axes.filter} by {name}" for name, axes in said.items())
        raise ValueError(
            f"layers share the latent weights at {'/'.join(map(str, path))!r} and take other axes "
            f"of them as one filter: {different}. Give each layer weights of its own."
        )
    return next(iter(said.values()))


def _kernel(layer: Any, attribute: str, name: str) -> Kernel | None:
    """What a layer says of its kernel; None if it says nothing."""
    if said := said_by_attribute(layer, getattr(layer, "kernel_shape", None), name):
        return said
    if attribute not in ("kernel", "latent_kernel"):
        return None
    match layer:
        case BinaryConv():
            groups = layer.window.feature_group_count
            size = layer.window.kernel_size
            return _flat((*size, layer.in_features // groups, layer.out_features))
        case BinaryDense() | nnx.Linear():
            return _flat((layer.in_features, layer.out_features))
        case nnx.Conv():
            return _flat(tuple(layer.kernel_shape))
        case nnx.ConvTranspose():
            kernel = _flat(tuple(layer.kernel_shape))
            last = len(kernel.shape) - 1
            transposed = (*kernel.filter_axes[:-1], last)
            return Kernel(kernel.shape, transposed) if layer.transpose_kernel else kernel
        case nnx.Einsum():
            return of_einsum(layer, tuple(layer.kernel_shape), name)
        case nnx.LinearGeneral():
            batch = tuple(layer.batch_axis.values())
            inputs = range(len(batch), len(batch) + len(layer.in_features))
            return Kernel((*batch, *layer.in_features, *layer.out_features), tuple(inputs))
    return None


def _flat(shape: tuple[int, ...]) -> Kernel:
    return Kernel(shape, tuple(range(len(shape) - 1)))
