"""The modules of a Flax NNX model, in the order in which they were assigned."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen, nnx

Path = tuple[str | int, ...]
_ARRAYS = jax.Array | np.ndarray | jax.ShapeDtypeStruct


def check_is_nnx(model: object, function: str, remedy: str) -> None:
    """Raises TypeError unless `model` is an NNX module.

    Args:
      model: what a user gave.
      function: public name of the function it was given to.
      remedy: what the owner of a linen network can do instead.
    """
    if isinstance(model, nnx.Module):
        return
    if isinstance(model, linen.Module):
        got = f"a linen module ({type(model).__name__}), which names its layers when it is called"
    elif isinstance(model, type):
        got = f"the class {model.__name__}; give an object of it"
        remedy = f"For example {model.__name__}(rngs=nnx.Rngs(0))."
    elif isinstance(model, Mapping):
        got, remedy = "a tree of parameters", "Give the module that they belong to."
    else:
        got, remedy = f"{type(model).__name__}", "Give the module itself."
    raise TypeError(f"{function} takes a Flax NNX module, but got {got}. {remedy}")


def walk(node: Any, path: Path = (), seen: set[int] | None = None) -> Iterator[tuple[Path, Any]]:
    """Modules, Variables and arrays in none with their paths, parents first, as assigned.

    Flax itself sorts by name. What is held in several places comes once, where it comes first.

    Args:
      node: a module, a Variable, an array, or a list, tuple or dict of such.
      path: where it is.
      seen: identities of what came before.
    """
    seen = set() if seen is None else seen
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, nnx.Module | nnx.Variable | _ARRAYS):
        yield path, node
    for key, child in _children(node):
        if isinstance(child, nnx.Pytree | nnx.Variable | list | tuple | dict | _ARRAYS):
            yield from walk(child, (*path, key), seen)


def modules(model: nnx.Module) -> list[tuple[Path, nnx.Module]]:
    """The modules among what `walk` gives."""
    return [(path, node) for path, node in walk(model) if isinstance(node, nnx.Module)]


def _children(node: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(node, list | tuple):
        yield from enumerate(node)
    elif isinstance(node, dict):
        yield from node.items()
    elif isinstance(node, nnx.Pytree):
        attributes = vars(node)
        # A model that has been split and merged, as by nnx.eval_shape, has its attributes sorted;
        # this table of them is still in the order of assignment.
        first = [name for name in getattr(node, "_pytree__nodes", ()) if name in attributes]
        for name in dict.fromkeys([*first, *attributes]):
            if not name.startswith("_pytree__"):
                is_index = isinstance(node, nnx.List) and name.isdigit()
                yield int(name) if is_index else name, attributes[name]
