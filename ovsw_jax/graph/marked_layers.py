"""A copy of a Flax NNX model whose layers leave marks in the program that is traced from it.

Each public method of a layer runs in a scope that names the layer. Each array that `__call__` takes
or returns is passed to an operation whose result is unused, which names layer, call and array. So
is each number that an observer computes in the call, where `vmap` and `scan` show one layer alone.

NNX has no hook around calls, as linen has in `intercept_methods`. And `nnx.scan`, `vmap`, `remat`,
`cond` and `jit` split modules and build new ones of the same class, so that only a class and static
attributes reach the call. `nnx.tabulate` and `nnx.capture` replace methods of the user's classes
meanwhile: other threads see that, and methods that `nnx.jit` has traced before don't. Here the
layers of the copy are of subclasses, and no class or object of the user changes. The one thing that
a model can notice is that `type(layer) is nnx.Conv` is false while `isinstance` is true.
"""

import functools
import inspect
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from ovsw_jax.graph.module_tree import Model, Path, shallow_copy, with_modules

_SCOPE = re.compile(r"ovsw_layer\[(\d+)\]")
_MARK = re.compile(r"ovsw_layer\[(\d+)\] call\[(\d+)\] (input|output)\[(.*)\]", re.DOTALL)
_OBSERVED = re.compile(r"ovsw_layer\[(\d+)\] call\[(\d+)\] observed\[(.*)\]", re.DOTALL)
_CALLS = itertools.count()
# Attributes that hold the number of a layer, and the observer. They have Flax's own prefix, since
# `nnx.bridge.ToNNX` takes all other attributes for collections of its linen module.
_NUMBER, _OBSERVER = "_pytree__ovsw_layer", "_pytree__ovsw_observer"
# Their methods are no part of a layer's computation.
_OF_FLAX = {*nnx.Module.__mro__, *nnx.List.__mro__, *nnx.Dict.__mro__}


class Mark(NamedTuple):
    """What is known of an array that a layer takes or returns.

    Fields:
      layer: number of the layer.
      call: number of the call, by which calls of one layer in one program differ.
      is_input: whether the layer takes the array; else it returns it.
      name: of the array in arguments or result.
    """

    layer: int
    call: int
    is_input: bool
    name: str


class Observation(NamedTuple):
    """Which number an observer computed.

    Fields:
      layer: number of the layer.
      call: number of the call.
      name: of the number.
    """

    layer: int
    call: int
    name: str


# Called as observe(layer, args, kwargs, result) after each call of a layer; returns scalars by
# name. It is a static attribute of the layers, so it must be hashable.
Observer = Callable[[Any, Sequence[Any], Mapping[str, Any], Any], Mapping[str, jax.Array]]


def marked_copy(
    model: Model, layers: Mapping[Path, nnx.Module], observer: Observer | None = None
) -> Model:
    """A copy of a model that shares its Variables, with `layers` marked and numbered in order."""
    marked = {
        path: shallow_copy(
            layer, _marked_class(type(layer)), **{_NUMBER: number, _OBSERVER: observer}
        )
        for number, (path, layer) in enumerate(layers.items())
    }
    return with_modules(model, marked)


def marked_call(layer: int, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Calls a function in a scope that names a layer, and marks arguments and result."""
    mark = f"ovsw_layer[{layer}] call[{next(_CALLS)}]"
    with layer_scope(layer):
        _mark(f"{mark} input", args, kwargs)
        result = function(*args, **kwargs)
        _mark(f"{mark} output", result)
    return result


def mark_observed(layer: int, values: Mapping[str, jax.Array]) -> None:
    """Marks what an observer computed in one call of a layer."""
    call = next(_CALLS)
    for name, value in values.items():
        checkpoint_name(value, f"ovsw_layer[{layer}] call[{call}] observed[{name}]")


def layer_scope(layer: int) -> AbstractContextManager[None]:
    """A scope whose operations belong to a layer, except those in the scope of another in it."""
    return jax.named_scope(f"ovsw_layer[{layer}]")


def layer_of(scope: str) -> int | None:
    """Number of the innermost layer in the name of a scope."""
    numbers = _SCOPE.findall(scope)
    return int(numbers[-1]) if numbers else None


def mark_of(operation: Any) -> Mark | None:
    """The mark that an operation is, if it is one."""
    found = operation.primitive.name == "name" and _MARK.fullmatch(operation.params["name"])
    return Mark(int(found[1]), int(found[2]), found[3] == "input", found[4]) if found else None


def observation_of(operation: Any) -> Observation | None:
    """The observation that an operation marks, if it marks one."""
    found = operation.primitive.name == "name" and _OBSERVED.fullmatch(operation.params["name"])
    return Observation(int(found[1]), int(found[2]), found[3]) if found else None


class _Marked:
    """Base of all marked classes."""

    def __init_subclass__(cls) -> None:
        # NNX's own, not that of the user's class, which may keep a list of its subclasses.
        of_nnx: Any = nnx.Module.__init_subclass__
        of_nnx.__func__(cls, pytree=vars(cls)["_pytree__is_pytree"])


@functools.cache  # NNX registers each class with JAX, which keeps it for ever
def _marked_class(cls: type[nnx.Module]) -> type[nnx.Module]:
    """A subclass whose public methods run in a scope that names the layer."""
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    make: Any = type(cls)
    marked: type[nnx.Module] = make(
        cls.__name__, (_Marked, cls), names | {"_pytree__is_pytree": cls._pytree__is_pytree}
    )
    for name in dir(cls):
        if (name == "__call__" or not name.startswith("_")) and _is_method(cls, name):
            setattr(marked, name, _in_scope(marked, name))
    return marked


def _is_method(cls: type, name: str) -> bool:
    owner = next((c for c in cls.__mro__ if name in vars(c)), object)
    held = inspect.getattr_static(cls, name)
    is_other = isinstance(held, staticmethod | classmethod | type)
    return owner not in _OF_FLAX and callable(held) and not is_other


def _in_scope(marked: type[Any], name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        original = getattr(super(marked, self), name)
        number = vars(self).get(_NUMBER)
        if number is None:  # of an object that is made while tracing
            return original(*args, **kwargs)
        if name == "__call__":
            result = marked_call(number, original, *args, **kwargs)
            if (observer := vars(self).get(_OBSERVER)) is not None:
                mark_observed(number, observer(self, args, kwargs, result))
            return result
        with layer_scope(number):
            return original(*args, **kwargs)

    return functools.update_wrapper(method, getattr(marked, name))


def _mark(what: str, *values: Any) -> None:
    """Marks each array in the values, without changing or copying them."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(values, is_leaf=_is_of_nnx)
    for path, leaf in leaves:
        array = leaf.get_raw_value() if isinstance(leaf, nnx.Variable) else leaf
        if isinstance(array, jax.Array):
            name = jax.tree_util.keystr(path[1:], simple=True, separator="/")
            checkpoint_name(array, f"{what}[{name}]")


def _is_of_nnx(x: Any) -> bool:
    return isinstance(x, nnx.Pytree | nnx.Variable)
