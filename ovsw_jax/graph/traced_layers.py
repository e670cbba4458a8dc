"""A program of a Flax NNX model in which each operation tells the layer that it belongs to."""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from ovsw_jax.graph.call import Call

_MARK = re.compile(r"ovsw_layer\[(\d+)\]")
_OUTPUT = re.compile(r"ovsw_layer\[(\d+)\] output\[(\d+)\]")
_NUMBER = "_ovsw_layer"
_INHERITED = {*dir(nnx.Module), *dir(nnx.List), *dir(nnx.Dict)}


def traced(model: nnx.Module, layers: Sequence[nnx.Module], call: Call) -> Any:
    """The jaxpr of a call of `model`, whose scopes and names `layer_of` and `output_of` can read.

    Args:
      model: a network of the caller's own: it is marked, so it must be a copy.
      layers: the modules in it that are told apart.
      call: what the model is called with.
    """
    for number, layer in enumerate(layers):
        setattr(layer, _NUMBER, number)
        # The class of these objects alone changes: other threads use the original as ever. The
        # number is a static attribute, which goes with a module through nnx.vmap and nnx.scan.
        object.__setattr__(layer, "__class__", _marked_class(type(layer)))
    graph, state = nnx.split(model, graph=True)

    def forward(state: Any, arrays: dict[str, jax.Array]) -> list[Any]:
        leaves = jax.tree.leaves(call.of(nnx.merge(graph, state), arrays))
        return [leaf for leaf in leaves if isinstance(leaf, jax.Array)]

    return jax.make_jaxpr(forward)(jax.tree.map(_abstract, state), call.abstract).jaxpr


def layer_of(scope: str) -> int | None:
    """Number of the innermost layer in the name of a scope."""
    numbers = _MARK.findall(scope)
    return int(numbers[-1]) if numbers else None


def output_of(operation: Any) -> tuple[int, int] | None:
    """Number of the layer that an operation gives an output of, and which of its outputs."""
    found = operation.primitive.name == "name" and _OUTPUT.fullmatch(operation.params["name"])
    return (int(found[1]), int(found[2])) if found else None


@functools.cache
def _marked_class(cls: type[nnx.Module]) -> type[nnx.Module]:
    """A subclass whose public methods run in a scope that names the layer."""
    methods: dict[str, Any] = {}
    for name in dir(cls):
        public = not name.startswith("_") and name not in _INHERITED
        if (name == "__call__" or public) and _is_method(cls, name):
            methods[name] = _in_scope(cls, name)
    methods |= {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    make: Any = type(cls)
    marked: type[nnx.Module] = (
        make(cls.__name__, (cls,), methods)
        if cls._pytree__is_pytree
        else make(cls.__name__, (cls,), methods, pytree=False)
    )
    return marked


def _is_method(cls: type, name: str) -> bool:
    held = next(vars(c)[name] for c in cls.__mro__ if name in vars(c))
    return callable(held) and not isinstance(held, staticmethod | classmethod | type)


def _in_scope(cls: type[nnx.Module], name: str) -> Callable[..., Any]:
    def method(self: nnx.Module, *args: Any, **kwargs: Any) -> Any:
        mark = f"ovsw_layer[{getattr(self, _NUMBER)}]"
        with jax.named_scope(mark):
            result = getattr(super(_marked_class(cls), self), name)(*args, **kwargs)
            return _named(result, mark) if name == "__call__" else result

    functools.update_wrapper(method, getattr(cls, name))
    return method


def _named(result: Any, mark: str) -> Any:
    """The same result, its arrays passed through operations that give them the layer's name."""
    leaves, treedef = jax.tree.flatten(result)
    arrays = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]
    for number, i in enumerate(arrays):
        leaves[i] = checkpoint_name(leaves[i], f"{mark} output[{number}]")
    return jax.tree.unflatten(treedef, leaves)


def _abstract(x: Any) -> Any:
    return jax.ShapeDtypeStruct(x.shape, x.dtype) if hasattr(x, "shape") else x
