"""One layer's kernel within an array that may be a stack of them, as `nnx.vmap` makes it."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Kernel(NamedTuple):
    """What a layer says of its kernel.

    Attributes:
      shape: of one layer's kernel, without axes of a stack.
      filter_axes: those of its axes that make up one filter, counted from 0.
    """

    shape: tuple[int, ...]
    filter_axes: tuple[int, ...]


class KernelAxes(NamedTuple):
    """Axes of an array that holds one kernel or a stack of them.

    Attributes:
      filter: axes that make up one filter.
      layer: axes that make up one layer's kernel, all but those of the stack.
    """

    filter: tuple[int, ...]
    layer: tuple[int, ...]


def conventional(shape: tuple[int, ...]) -> Kernel | None:
    """What a kernel (in, out) or HWIO is without asking; None for other numbers of axes."""
    return Kernel(shape, tuple(range(len(shape) - 1))) if len(shape) in (2, 4) else None


def of_einsum(layer: Any, shape: tuple[int, ...], name: str) -> Kernel:
    """A kernel of `Einsum`: its axes that are not in the output are summed over.

    Raises:
      ValueError: if the layer doesn't say the sum, or nothing is summed.
    """
    operands, _, output = (layer.einsum_str or "").replace(" ", "").partition("->")
    letters = operands.rpartition(",")[2]
    axes = tuple(i for i, letter in enumerate(letters) if letter not in output)
    if len(letters) != len(shape) or "." in letters or not axes:
        raise ValueError(unknown(name, layer, shape))
    return Kernel(shape, axes)


def said_by_attribute(layer: Any, shape: Sequence[int] | None, name: str) -> Kernel | None:
    """What a user's layer says by its attribute `filter_axes`; None if it has none.

    Args:
      layer: a module of Flax.
      shape: of one layer's kernel; None if the layer doesn't say.
      name: of the kernel, its path, for errors.

    Raises:
      ValueError: if the attribute is no tuple of axes of a kernel of that shape.
    """
    axes = getattr(layer, "filter_axes", None)
    if axes is None or callable(axes):
        return None
    if shape is None:
        raise ValueError(
            f"the layer of {_of(name, layer)} has filter_axes={axes!r} and no kernel_shape, so a "
            "stack of kernels can't be told from one. Set kernel_shape to the shape of one "
            "layer's kernel."
        )
    if not _are_integers(shape):
        raise ValueError(
            f"the layer of {_of(name, layer)} has kernel_shape={shape!r}, which must be a tuple of "
            "integers: the shape of one layer's kernel."
        )
    exist = _are_integers(axes) and all(-len(shape) <= a < len(shape) for a in axes)
    if not exist or not axes or len({a % len(shape) for a in axes}) < len(axes):
        raise ValueError(
            f"the layer of {_of(name, layer)} has filter_axes={axes!r}, which must be a tuple of "
            f"axes of a kernel of shape {tuple(shape)}, each once: those over which the norm of "
            "one filter is taken."
        )
    return Kernel(tuple(shape), tuple(sorted(int(a) % len(shape) for a in axes)))


def in_stack(
    kernel: Kernel,
    shape: tuple[int, ...],
    stacked: int | Sequence[int] | None,
    name: str,
    layer: Any,
) -> KernelAxes:
    """Finds the axes of one kernel among those of an array.

    Args:
      kernel: what its layer says.
      shape: of the array.
      stacked: axes of the array along which layers are stacked, for shapes that don't tell.
      name: of the kernel, its path, for errors.
      layer: that holds it, for errors.

    Raises:
      ValueError: if the array is no stack of such kernels, or the shape doesn't tell along which
        axes they are stacked, and `stacked` doesn't either.
    """
    places = [
        kept
        for kept in itertools.combinations(range(len(shape)), len(kernel.shape))
        if tuple(shape[i] for i in kept) == kernel.shape
    ]
    if not places:
        raise ValueError(
            f"{_of(name, layer)} have shape {shape}, which is no stack of kernels of shape "
            f"{kernel.shape}, as the layer says it has. Give it one of that shape, and stack "
            "layers by nnx.vmap or linen.vmap."
        )
    # An axis of size 1 makes no difference to a norm, wherever it is.
    if len({tuple(i for i in kept if shape[i] > 1) for kept in places}) > 1:
        given = _counted(stacked, len(shape))
        rest = [tuple(i for i in range(len(shape)) if i not in kept) for kept in places]
        first = min(rest)
        if given not in rest:
            raise ValueError(
                f"{_of(name, layer)} have shape {shape}, which may be kernels of "
                f"shape {kernel.shape} stacked along {' or '.join(map(_axis, sorted(rest)))}"
                + (f", but stacked={stacked!r}. " if given else ": the shape doesn't tell. ")
                + f"Give stacked={first[0] if len(first) == 1 else first} if they are stacked in "
                "front, as nnx.vmap does by default, or the axes where they are; an NNX network "
                "says it by an attribute stacked_axes."
            )
        places = [places[rest.index(given)]]
    kept = places[0]
    return KernelAxes(tuple(kept[a] for a in kernel.filter_axes), kept)


def check_stacked(stacked: int | Sequence[int] | None) -> None:
    """Raises TypeError unless `stacked` is None, an integer or a tuple of integers."""
    given = stacked if isinstance(stacked, Sequence) else (stacked,)
    if stacked is not None and not _are_integers(given):
        raise TypeError(
            f"stacked={stacked!r} must be an axis or a tuple of axes along which layers are "
            "stacked, such as 0, or None."
        )


def unknown(name: str, layer: Any, shape: tuple[int, ...]) -> str:
    """What to say of a layer that doesn't say what its filters are."""
    return (
        f"{_of(name, layer)} have shape {shape}, and the layer doesn't say which axes make up one "
        "filter. Give the layer two attributes: kernel_shape, the shape of one layer's kernel, and "
        "filter_axes, a tuple of those of its axes over which the norm of one filter is taken, "
        "such as (0,) for (in, heads, out). What has no filters must not be selected by mask=."
    )


def _are_integers(values: Any) -> bool:
    """Whether a value is a sequence of integers, of Python or NumPy."""
    return isinstance(values, Sequence) and all(
        isinstance(v, int | np.integer) and not isinstance(v, bool) for v in values
    )


def _counted(stacked: int | Sequence[int] | None, ndim: int) -> tuple[int, ...] | None:
    if stacked is None:
        return None
    given = stacked if isinstance(stacked, Sequence) else (stacked,)
    return tuple(sorted(a % ndim if -ndim <= a < ndim else a for a in given))


def _axis(axes: tuple[int, ...]) -> str:
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {axes}"


def _of(name: str, layer: Any) -> str:
    return f"latent weights at {name!r} ({type(layer).__name__})"
