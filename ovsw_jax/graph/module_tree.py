"""The modules of a Flax NNX model, in the order in which they were assigned, and copies of them."""

import copy
import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

import jax
import numpy as np
from flax import linen, nnx

Path = tuple[str | int, ...]
Model = TypeVar("Model", bound=nnx.Module)
_T = TypeVar("_T")
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


class ByIdentity(Generic[_T]):
    """A mapping whose keys are objects, compared by identity.

    A dict can't do this: a module that is a dataclass is unhashable, and is equal to another one
    with the same fields.
    """

    def __init__(self) -> None:
        """Starts empty."""
        # With the object itself: when one is deleted, another can get its id.
        self._entries: dict[int, tuple[Any, _T]] = {}

    def __setitem__(self, key: Any, value: _T) -> None:
        self._entries[id(key)] = key, value

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of an object, or `default`."""
        return self._entries.get(id(key), (key, default))[1]

    def items(self) -> list[tuple[Any, _T]]:
        """Objects and their values, in the order in which they were added."""
        return list(self._entries.values())


def places(model: nnx.Module) -> ByIdentity[list[Path]]:
    """All paths of each NNX object, Variable, and array in no Variable.

    Parents come first, and attributes in the order of assignment, where Flax sorts by name. An
    object has a path for each attribute or entry that holds it; the paths of what it holds itself
    continue the first of these.
    """
    found: ByIdentity[list[Path]] = ByIdentity()

    def visit(path: Path, node: Any) -> None:
        if isinstance(node, nnx.Pytree | nnx.Variable | _ARRAYS):
            known = found.get(node)
            if known is not None:
                known.append(path)
                return
            found[node] = [path]
            if not isinstance(node, nnx.Pytree):
                return
        for key, child in _children(node):
            visit((*path, key), child)

    visit((), model)
    return found


def check_seen(model: nnx.Module, function: str) -> None:
    """Raises ValueError if an attribute holds a module where Flax doesn't see it.

    A method of a module, as in `self.act = self.layer.act`, or a `functools.partial` with one is a
    static attribute. It always calls the module that it was made with, so a copy of the model
    computes with the old one. `nnx.jit` and `nnx.grad` call such copies too.

    Args:
      model: what a user gave.
      function: public name of the function it was given to.
    """
    for path, node in modules(model):
        for name in _attributes(node):
            for value in jax.tree.leaves(vars(node)[name], is_leaf=_is_of_nnx):
                if (hidden := _hidden(value)) is None:
                    continue
                place = "/".join(map(str, (*path, name)))
                raise ValueError(
                    f"{place!r} of the model is a function that holds a {type(hidden).__name__}, "
                    f"which Flax doesn't see in there: the copy that {function} or nnx.grad makes "
                    "would still call the old one. Call the module in a method instead."
                )


def _hidden(value: Any) -> nnx.Module | None:
    """The module that a method is of, or that a partial function was given."""
    if isinstance(value, functools.partial):
        held = [value.func, *value.args, *value.keywords.values()]
        found = [x if isinstance(x, nnx.Module) else _hidden(x) for x in held]
        return next((x for x in found if x is not None), None)
    owner = getattr(value, "__self__", None) if isinstance(value, types.MethodType) else None
    return owner if isinstance(owner, nnx.Module) else None


def _is_of_nnx(value: Any) -> bool:
    return isinstance(value, nnx.Pytree | nnx.Variable)


def walk(model: nnx.Module) -> Iterator[tuple[Path, Any]]:
    """Modules, Variables, and arrays in no Variable, each once with its first path."""
    for node, paths in places(model).items():
        if isinstance(node, nnx.Module | nnx.Variable | _ARRAYS):
            yield paths[0], node


def modules(model: nnx.Module) -> list[tuple[Path, nnx.Module]]:
    """The modules of a model, each once with its first path."""
    return [(path, node) for path, node in walk(model) if isinstance(node, nnx.Module)]


def at(model: nnx.Module, path: Path) -> Any:
    """The module, Variable, array or container at a path of a model."""
    node: Any = model
    for key in path:
        node = dict(_children(node))[key]
    return node


def with_modules(model: Model, others: Mapping[Path, nnx.Module]) -> Model:
    """A copy of a model in which some modules are replaced, at all paths where it holds them.

    The other modules are copied. Variables and arrays are not: model and copy share them.

    Args:
      model: it does not change.
      others: the new modules, by a path of the module that each replaces. If they hold modules of
        the model, they get the copies of these.
    """
    copies: ByIdentity[Any] = ByIdentity()
    for node, _ in places(model).items():
        if isinstance(node, nnx.Pytree):
            copies[node] = shallow_copy(node)
    for path, other in others.items():
        copies[at(model, path)] = other

    def copied(value: Any) -> Any:
        if _is_of_nnx(value):
            return copies.get(value, value)
        held = [child for _, child in _children(value)]
        new = [copied(child) for child in held]
        same = all(a is b for a, b in zip(held, new, strict=True))
        return value if same else _with_children(value, new)

    for _, node in copies.items():
        vars(node).update({name: copied(vars(node)[name]) for name in _attributes(node)})
    return copies.get(model)


def shallow_copy(node: nnx.Pytree, cls: type | None = None, **attributes: Any) -> Any:
    """An object with the same attributes, and those given, of the same class or of `cls`."""
    new: Any = object.__new__(cls or type(node))
    vars(new).update(vars(node), **attributes)
    return new


def _children(node: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(node, nnx.Pytree):
        for name in _attributes(node):
            is_index = isinstance(node, nnx.List) and name.isdigit()
            yield int(name) if is_index else name, vars(node)[name]
    elif isinstance(node, dict):  # as it is ordered, where JAX would sort
        yield from node.items()
    else:
        entries, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
        yield from ((_key(path[0]), child) for path, child in entries if path)


def _with_children(container: Any, children: list[Any]) -> Any:
    """A container of the same kind with other entries: a dict, or another that JAX knows."""
    if isinstance(container, dict):
        new = copy.copy(container)
        new.update(zip(container, children, strict=True))
        return new
    structure = jax.tree.structure(container, is_leaf=lambda x: x is not container)
    return jax.tree.unflatten(structure, children)


def _key(entry: Any) -> str | int:
    """The index, key or name in an entry of a path of JAX."""
    return next(getattr(entry, name) for name in ("idx", "key", "name") if hasattr(entry, name))


def _attributes(node: nnx.Pytree) -> list[str]:
    held = vars(node)
    # Splitting and merging a model, as nnx.eval_shape does, sorts its attributes; this table of
    # them keeps the order of assignment.
    first = [name for name in getattr(node, "_pytree__nodes", ()) if name in held]
    return [name for name in dict.fromkeys([*first, *held]) if not name.startswith("_pytree__")]
