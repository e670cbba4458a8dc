"""Which axes of a latent kernel are reduced together: those of one filter, or of one layer.

A transform sees arrays alone, and an array doesn't tell a convolution from a stack of layers. So
axes are given: one tuple for all kernels, or a tree with a tuple for each.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from ovsw_jax.fitting import is_masked
from ovsw_jax.latent import LatentLeaves, is_function, keys_of

Axes = Sequence[int] | Any | Callable[[Any], Any]


def check_axes(axes: Axes | None) -> None:
    """Raises TypeError unless `axes` is None, a tuple of integers, a tree of them or a function."""
    if not is_function(axes):
        _entries(axes)


def axes_of_kernels(
    axes: Axes | None, params: Any, latent: LatentLeaves
) -> list[tuple[int, ...]] | None:
    """The axes of each latent kernel, in leaf order and counted from 0; None if none are given.

    A tree is matched by the keys of its paths, so it need not have the containers of `params`:
    `nnx.Optimizer` passes a `State` of Variables at one time and one of arrays at another.

    Args:
      axes: a tuple of integers for all kernels; a tree of such tuples, structured like `params` or
        like their upper levels, without what isn't latent; or a function from `params` to either.
      params: pytree of parameters.
      latent: its latent leaves.

    Raises:
      TypeError: if the tree holds anything but tuples of integers.
      ValueError: if a kernel has no entry, an entry no parameters, or the axes of an entry are
        none, don't exist, or are named twice.
    """
    if axes is None:
        return None
    given: Any = axes
    entries = _entries(given(params) if is_function(given) else given)
    if not latent.indices:  # optax.tree_utils.tree_map_params calls init so
        return []
    _check_surplus(entries, params)
    found = []
    for path, name, weight in zip(latent.paths, latent.names, latent.weights, strict=True):
        above = [path[:n] for n in range(len(path) + 1) if path[:n] in entries]
        if not above:
            raise ValueError(
                f"axes has no entry for the latent weights of {name!r} with shape {weight.shape}, "
                f"at {_place(path)}; it has entries at {_places(entries)}. Give every latent "
                "kernel its own, as ovsw.filter_axes(model) does, or one tuple for all."
            )
        found.append(_checked(entries[above[0]], name, weight))
    return found


def warn_if_unclear(latent: LatentLeaves) -> None:
    """Warns of kernels for which "all axes but the last" is a guess: those of 3, 5 or more axes."""
    unclear = [
        f"{name!r} {weight.shape}"
        for name, weight in zip(latent.names, latent.weights, strict=True)
        if weight.ndim > 2 and weight.ndim != 4
    ]
    if unclear:
        warnings.warn(
            "all axes but the last are taken as one filter of the latent weights of "
            f"{', '.join(unclear)}. That is right for convolutions of one or three spatial axes, "
            "and wrong for layers stacked by nnx.vmap and for attention. Pass "
            "axes=ovsw.filter_axes(model), which asks the layers, or the axes themselves, such as "
            "axes=(0, 1).",
            UserWarning,
            stacklevel=3,
        )


def _entries(axes: Any) -> dict[tuple[str, ...], Sequence[int]]:
    """The tuples of a tree by the keys of their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(axes, is_leaf=_is_entry)
    for _, entry in leaves:
        if not _is_entry(entry):
            raise TypeError(
                f"axes={axes!r} must be a sequence of integers, such as (0, 1, 2), a pytree of "
                f"such sequences, a function from params to one, or None; it holds {entry!r}. "
                "optax.inject_hyperparams calls a function as a schedule unless it is told "
                'otherwise: static_args=("axes",).'
            )
    return {tuple(keys_of(path)): entry for path, entry in leaves}


def _is_entry(x: Any) -> bool:
    is_container = hasattr(x, "_fields") or isinstance(x, str | bytes)
    return isinstance(x, Sequence) and not is_container and all(map(_is_integer, x))


def _is_integer(x: Any) -> bool:
    return isinstance(x, int | np.integer) and not isinstance(x, bool)


def _check_surplus(entries: dict[tuple[str, ...], Sequence[int]], params: Any) -> None:
    """Raises ValueError at an entry for no parameters."""
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=_is_hole)
    paths = [tuple(keys_of(path)) for path, _ in leaves]
    known = {path[:n] for path in paths for n in range(len(path) + 1)}
    holes = {path for path, (_, leaf) in zip(paths, leaves, strict=True) if _is_hole(leaf)}
    for path, entry in entries.items():
        in_hole = any(path[:n] in holes for n in range(len(path)))
        if entry and path not in known and not in_hole:  # () may be an empty part of the params
            raise ValueError(
                f"axes has an entry {tuple(entry)} at {_place(path)}, where there are no params; "
                f"they are at {_places(paths)}. Structure it like the params, as "
                "ovsw.filter_axes(model) is like nnx.state(model, nnx.Param)."
            )


def _is_hole(x: Any) -> bool:
    """Whether `optax.masked` or a filter has taken away the params that were there."""
    return x is None or is_masked(x)


def _checked(entry: Sequence[int], name: str, weight: jax.Array) -> tuple[int, ...]:
    given, ndim = tuple(map(int, entry)), weight.ndim
    what = f"axes={given} do not fit the latent weights of {name!r} with shape {weight.shape}:"
    remedy = (
        "Give each kernel its own by a tree, as ovsw.filter_axes(model) makes it, or use axes=None "
        "(all but the last)."
    )
    for axis in given:
        if not -ndim <= axis < ndim:
            raise ValueError(f"{what} axis {axis} does not exist. {remedy}")
    axes = tuple(axis % ndim for axis in given)
    if len(set(axes)) < len(axes):
        raise ValueError(f"{what} an axis is named twice. {remedy}")
    if not axes:
        raise ValueError(
            f"{what} a filter has at least one axis, or every weight would be one. {remedy}"
        )
    return axes


def _places(paths: Iterable[tuple[str, ...]]) -> str:
    places = list(map(_place, paths))
    return ", ".join(places[:5]) + ", ..." * (len(places) > 5) if places else "none"


def _place(path: tuple[str, ...]) -> str:
    return repr("/".join(path)) if path else "the top"
