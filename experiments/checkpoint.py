"""Where a training stands, in a file: an interrupted sweep goes on from its last epoch."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization

Snapshot = dict[str, np.ndarray]


def snapshot(state: Any) -> Snapshot:
    """A copy in host memory of a pytree of arrays and random keys."""
    return {str(i): np.array(_plain(x)) for i, x in enumerate(jax.tree.leaves(state))}


def save(path: Path, leaves: Snapshot, about: dict[str, Any]) -> None:
    """Writes a snapshot with a JSON description, whole or not at all."""
    content = {"about": json.dumps(about), "leaves": leaves}
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_bytes(serialization.msgpack_serialize(content))
    unfinished.replace(path)


def read_about(path: Path) -> dict[str, Any] | None:
    """The description; None if there is no file.

    Raises:
      ValueError: if the file can't be read.
    """
    if not path.exists():
        return None
    try:
        return dict(json.loads(_read(path)["about"]))
    except Exception as error:  # msgpack raises many kinds
        raise ValueError(
            f"checkpoint {path} is damaged ({type(error).__name__}: {error}). Put back a copy, or "
            "remove it: the members that were in training then begin anew."
        ) from error


def restore(path: Path, like: Any) -> Any:
    """The saved pytree.

    Args:
      path: a file written by `save`.
      like: a pytree of the same structure, shapes and dtypes; each leaf goes where it is there.

    Raises:
      ValueError: if the file holds other shapes or dtypes.
    """
    saved = _read(path)["leaves"]
    leaves, treedef = jax.tree.flatten(like)
    arrays = [saved.get(str(i)) for i in range(len(leaves))]
    for array, leaf in zip(arrays, map(_plain, leaves), strict=True):
        if array is None or (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
            raise ValueError(
                f"checkpoint {path} does not fit this training: it was written by other code. "
                "Remove it; the epochs since the last finished member are then trained again."
            )
    placed = [_as_placed(array, leaf) for array, leaf in zip(arrays, leaves, strict=True)]
    return jax.tree.unflatten(treedef, placed)


def _read(path: Path) -> Any:
    return serialization.msgpack_restore(path.read_bytes())


def _plain(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _as_placed(array: np.ndarray, leaf: jax.Array) -> jax.Array:
    if _is_key(leaf):
        return jax.device_put(jax.random.wrap_key_data(jnp.asarray(array)), leaf.sharding)
    return jax.device_put(array, leaf.sharding)


def _is_key(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
