"""Which leaves of a parameter tree are latent weights, and how a transform reaches them."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ovsw_jax.fitting import (
    canonical,
    check_average,
    check_entry,
    check_fits,
    check_gradient,
    lacks_gradient,
    made_with_another_mask,
)
from ovsw_jax.precision import accurate_dtype

LATENT_KEY = "latent_kernel"

Mask = Any | Callable[[Any], Any]


def latent_mask(params: Any) -> Any:
    """Marks the latent weights of binarised layers.

    Args:
      params: pytree of parameters, as `nnx.state(model, nnx.Param)` or linen's
        `variables["params"]` give it.

    Returns:
      Pytree of bool with the structure of `params`: True where the path has a key `latent_kernel`.

    >>> latent_mask({"conv": {"latent_kernel": 1.0, "bias": 2.0}})
    {'conv': {'bias': False, 'latent_kernel': True}}

    Source: ours; the authors' code marks layers instead of parameters.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: LATENT_KEY in keys_of(path), params)


def keys_of(path: Sequence[Any]) -> list[str]:
    """The keys of a tree path as text; an nnx.Variable's own `.value` is no part of a name."""
    keys = [str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path]
    return keys[:-1] if len(keys) > 1 and _is_variable_value(path[-1]) else keys


def _is_variable_value(key: Any) -> bool:
    return isinstance(key, jax.tree_util.GetAttrKey) and key.name == "value"


def layer_name(path: Sequence[Any]) -> str:
    """Name of the layer that owns the leaf at `path`: the keys before `latent_kernel`, or all."""
    keys = keys_of(path)
    if LATENT_KEY in keys[1:]:
        keys = keys[: keys.index(LATENT_KEY, 1)]
    return "/".join(keys)


def mean(x: jax.Array) -> jax.Array:
    """Mean over all elements as a float32 scalar; 0 if there are none."""
    return (jnp.sum(x, dtype=accurate_dtype(x)) / max(x.size, 1)).astype(jnp.float32)


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """The leaves of a tree with the names of their layers."""
    return [(layer_name(path), x) for path, x in jax.tree_util.tree_leaves_with_path(tree)]


def leaves_like(treedef: Any, tree: Any, what: str) -> list[Any]:
    """What `tree` has at the leaves of the params, whose structure is `treedef`."""
    try:
        leaves: list[Any] = treedef.flatten_up_to(tree)
    except ValueError as error:
        raise ValueError(
            f"{what} and params have different tree structures: {error}. Pass the params "
            "that the optimizer state was initialised with, and gradients of those params."
        ) from error
    return leaves


def all_gradients(updates: Any, params: Any) -> list[Any]:
    """Of an optimizer of all `params`: their gradients in leaf order; see also `lacks_gradient`.

    Raises:
      ValueError: if the trees have other structures, or a gradient another shape than its weights.
      TypeError: if a gradient is no floating-point array.
    """
    gradients = leaves_like(jax.tree.structure(params), updates, "gradients")
    for i, (name, weight) in enumerate(named_leaves(params)):
        if not lacks_gradient(gradients[i]):
            gradients[i] = canonical(gradients[i])
            check_gradient(name, gradients[i], weight)
    return gradients


class LatentLeaves:
    """The latent leaves of one parameter tree, in leaf order.

    A transform takes the same leaves out of several trees as lists, works on the lists, and puts
    the results back: into a full tree (updates), or into one with `optax.MaskedNode` at every
    other leaf (state), so that what lies outside the mask costs nothing.
    """

    def __init__(self, params: Any, mask: Mask | None):
        """Finds the leaves that `mask` selects.

        Args:
          params: pytree of parameters.
          mask: None for `latent_mask`; else a pytree of bools, a prefix of `params` at least, or
            a function from params to one. A callable pytree of bools (a model) is no function.

        Raises:
          ValueError: if the mask doesn't fit `params`, or selects no leaf of it.
          TypeError: if the mask holds anything but bools, or a selected leaf is not a real
            floating-point array.
        """
        paths_and_leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
        self.treedef: Any = treedef
        mask = latent_mask if mask is None else mask
        self.indices = [i for i, flag in enumerate(selected(params, mask)) if flag]
        self.paths = [tuple(keys_of(paths_and_leaves[i][0])) for i in self.indices]
        self.names = [layer_name(paths_and_leaves[i][0]) for i in self.indices]
        self.weights = [
            _array(name, paths_and_leaves[i][1])
            for i, name in zip(self.indices, self.names, strict=True)
        ]
        # A tree without any leaf is what optax.tree_utils.tree_map_params hands to init.
        if paths_and_leaves and not self.indices:
            names = (layer_name(path) for path, _ in paths_and_leaves)
            raise ValueError(_nothing_selected(names) + _if_injected(mask))
        for name, weight in zip(self.names, self.weights, strict=True):
            if not jnp.issubdtype(weight.dtype, jnp.floating):
                raise TypeError(
                    f"latent weights of {name!r} have dtype {weight.dtype}; the sign of a latent "
                    "weight is trained through a real floating-point array. Store them as "
                    "float32 (or bfloat16), or leave this parameter out of the mask."
                )

    def take(self, tree: Any, what: str) -> list[Any]:
        """The selected leaves of a `tree` that is structured like the parameters."""
        leaves = leaves_like(self.treedef, tree, what)
        return [leaves[i] for i in self.indices]

    def gradients(self, updates: Any) -> list[jax.Array]:
        """The selected leaves of `updates`, checked to have the shapes of their weights."""
        taken = self.take(updates, "gradients")
        for i, (name, gradient) in enumerate(zip(self.names, taken, strict=True)):
            if lacks_gradient(gradient):
                raise TypeError(
                    f"gradient of {name!r} is {_kind_of_none(gradient)}; every latent weight needs "
                    "one. Take gradients of all params, or leave this one out of the mask."
                )
            taken[i] = canonical(gradient)
            check_gradient(name, taken[i], self.weights[i])
            if jnp.iscomplexobj(taken[i]):
                raise TypeError(
                    f"gradient of {name!r} has dtype {taken[i].dtype}; it must be real, as its "
                    "latent weights are."
                )
        return taken

    def state(self, tree: Any, what: str) -> list[jax.Array]:
        """The selected leaves of a state with an entry a weight, as `only` gives one."""
        taken: list[jax.Array] = self.take(tree, what)
        for name, entry, weight in zip(self.names, taken, self.weights, strict=True):
            check_entry(name, entry, weight, what)
        self.check_only(tree, what)
        return taken

    def averages(self, tree: Any, what: str) -> list[jax.Array]:
        """As `state`, checked to be of a dtype that can average gradients."""
        taken = self.state(tree, what)
        for name, entry, weight in zip(self.names, taken, self.weights, strict=True):
            check_average(name, entry, weight, what)
        return taken

    def check_only(self, tree: Any, what: str) -> None:
        """Raises ValueError unless `tree` has an entry for each of these leaves and no other.

        Args:
          tree: what `only` or `only_scalars` gave when the state was made.
          what: it is, for the error.
        """
        entries = [name for name, _ in named_leaves(tree)]
        if entries != self.names:
            lacking, surplus = set(self.names) - set(entries), set(entries) - set(self.names)
            raise ValueError(made_with_another_mask(what, lacking, surplus))

    def check_fits(self, **hyperparameters: Any) -> None:
        """Raises ValueError where one is an array that would change the shape of an update."""
        check_fits(zip(self.names, self.weights, strict=True), **hyperparameters)

    def put(self, tree: Any, values: Iterable[Any]) -> Any:
        """`tree` with its selected leaves replaced by `values`."""
        leaves = self.treedef.flatten_up_to(tree)
        for i, value in zip(self.indices, values, strict=True):
            leaves[i] = value
        return self.treedef.unflatten(leaves)

    def only(self, values: Iterable[Any]) -> Any:
        """A tree of `values` at the selected leaves and `optax.MaskedNode` at the others."""
        leaves: list[Any] = [optax.MaskedNode()] * self.treedef.num_leaves
        for i, value in zip(self.indices, values, strict=True):
            leaves[i] = value
        return self.treedef.unflatten(leaves)

    def only_scalars(self, values: Iterable[jax.Array]) -> Any:
        """As `only`, of a scalar for each weight.

        They are in no `nnx.Variable`: what that says, such as how it is sharded, is of the weight.
        """
        return jax.tree.map(
            lambda x: x.get_value() if _is_variable(x) else x,
            self.only(values),
            is_leaf=_is_variable,
        )


def _kind_of_none(gradient: Any) -> str:
    return str(getattr(gradient, "dtype", type(gradient).__name__.removesuffix("Type")))


def _array(name: str, leaf: Any) -> jax.Array:
    try:
        with np.errstate(over="ignore"):  # of float64 in float32
            return jnp.asarray(leaf)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(
            f"latent weights of {name!r} are {leaf!r}, which is no array. Pass the params "
            "themselves, or leave this one out of the mask."
        ) from error


def _is_variable(node: Any) -> bool:
    return hasattr(node, "get_metadata")


def is_function(mask: Any) -> bool:
    """Whether a mask is a function of the params, and no callable pytree of bools.

    A model is callable, and so is the mask that `jax.tree.map` makes of it: as for `optax.masked`,
    the leaves decide. A partial function is a pytree of its arguments, but a function.
    """
    leaves = jax.tree.leaves(mask)
    return callable(mask) and (isinstance(mask, functools.partial) or all(map(callable, leaves)))


def _if_injected(mask: Any) -> str:
    """The remedy, in case a single value is what a function said of Optax's update count."""
    if callable(mask) or not jax.tree_util.all_leaves([mask]):
        return ""
    return (
        " If you gave a function: optax.inject_hyperparams calls it with the update count, as a "
        'schedule. Say that it is none: optax.inject_hyperparams(..., static_args=("mask",)).'
    )


def selected(params: Any, mask: Mask | None) -> list[bool]:
    """The mask, as `LatentLeaves` takes it, as one bool for each leaf of `params`."""
    if mask is None:
        mask = latent_mask
    remedy = _if_injected(mask)
    given = mask(params) if is_function(mask) else mask
    try:
        flags = jax.tree.leaves(jax.tree.broadcast(given, params))
    except ValueError as error:
        raise ValueError(
            f"mask does not fit the params: {error}. Give a pytree of bools with the structure of "
            "the params or of their upper levels, or a function that makes one from the params: "
            "nnx.Optimizer passes params without modules and Variables, which a function adapts to."
        ) from error
    for flag in flags:
        if not isinstance(flag, bool | np.bool_):
            raise TypeError(
                f"mask holds {flag!r}, which is no bool. Give True at each latent weight and False "
                "elsewhere, or a function from params to such a pytree." + remedy
            )
    return flags


def _nothing_selected(names: Iterable[str]) -> str:
    listed = list(names)
    shown = ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "")
    return (
        f"the mask selects none of the {len(listed)} parameters ({shown}), so the transform would "
        f"do nothing. Name the latent weights of binarised layers `{LATENT_KEY}` "
        "(ovsw.nn.BinaryConv does), or pass mask= a pytree of bools or a function of the params. "
        "A mask on Variable types selects nothing under nnx.Optimizer, which strips Variables."
    )
