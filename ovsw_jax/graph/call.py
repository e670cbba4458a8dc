"""What a model is called with: arrays, which can be traced, and everything else."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Call(NamedTuple):
    """Arguments of a call, with the arrays separated from the rest.

    Attributes:
      arrays: by their place, such as `0`, `1/image` or `mask`; a `jax.ShapeDtypeStruct` where only
        shape and dtype are known.
      rest: all leaves of the arguments, with `_ARRAY` in place of each array.
      structure: of positional and keyword arguments.
    """

    arrays: dict[str, Any]
    rest: tuple[Any, ...]
    structure: Any

    def of(self, function: Any, arrays: Iterable[Any]) -> Any:
        """Calls `function` with `arrays` in place of its own, in the same order."""
        given = iter(arrays)
        leaves = [next(given) if leaf is _ARRAY else leaf for leaf in self.rest]
        args, kwargs = jax.tree.unflatten(self.structure, leaves)
        return function(*args, **kwargs)

    @property
    def flags(self) -> dict[str, Any]:
        """Keyword arguments without an array."""
        _, kwargs = jax.tree.unflatten(self.structure, self.rest)
        return {k: v for k, v in kwargs.items() if all(x is not _ARRAY for x in jax.tree.leaves(v))}

    @property
    def abstract(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape of each array, and the dtype that it has in JAX."""
        return {
            name: jax.ShapeDtypeStruct(x.shape, _canonical(x.dtype))
            for name, x in self.arrays.items()
        }


_ARRAY = object()


def call_with(args: Sequence[Any], kwargs: Mapping[str, Any], dtype: Any = jnp.float32) -> Call:
    """Makes a call of arguments, of which some may be given by shape alone.

    Args:
      args: positional arguments. Each is a shape, which stands for one array, or a tree of arrays
        and `jax.ShapeDtypeStruct`s alone.
      kwargs: keyword arguments. Arrays and `jax.ShapeDtypeStruct`s in them are arrays of the call;
        everything else is passed on unchanged.
      dtype: of arrays that are given by shape.

    Raises:
      ValueError: if a positional argument is neither, or there is no array at all.
    """
    filled = tuple(_filled(argument, dtype) for argument in args), dict(kwargs)
    leaves, structure = jax.tree_util.tree_flatten_with_path(filled)
    arrays = {
        jax.tree_util.keystr(path[1:], simple=True, separator="/"): leaf
        for path, leaf in leaves
        if _is_array(leaf)
    }
    if not arrays:
        raise ValueError(
            "there is no input: give the input_shape of a whole batch, such as "
            "(1, 32, 32, 3), or arrays or jax.ShapeDtypeStructs as the model takes them."
        )
    return Call(arrays, tuple(_ARRAY if _is_array(x) else x for _, x in leaves), structure)


def _filled(argument: Any, dtype: Any) -> Any:
    leaves = jax.tree.leaves(argument)
    if leaves and all(map(_is_array, leaves)):
        return argument
    if isinstance(argument, Iterable) and not isinstance(argument, str | Mapping):
        sizes = tuple(argument)
        counts = [isinstance(n, int | np.integer) and not isinstance(n, bool) for n in sizes]
        if sizes and all(counts) and all(n >= 1 for n in sizes):
            return jax.ShapeDtypeStruct(tuple(map(int, sizes)), dtype)
    raise ValueError(
        f"input_shape={argument!r} must be a sequence of positive integers, the batch axis first: "
        "for one colour image of 32x32 pixels, (1, 32, 32, 3). Inputs of another form are given as "
        "arrays or jax.ShapeDtypeStructs in lists and dicts, and flags by their names."
    )


def _is_array(x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


def _canonical(dtype: Any) -> Any:
    is_key = jnp.issubdtype(dtype, jax.dtypes.extended)
    return dtype if is_key else jax.dtypes.canonicalize_dtype(dtype)
