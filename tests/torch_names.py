"""PyTorch's names and layouts, by the library's table, for states of networks and blocks."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx

from ovsw_jax.models import torch_weights
from ovsw_jax.models.torch_weights import NAMES, TorchNames, to_torch

__all__ = ["TABLE", "leaf", "load_state", "path_of", "to_flax", "to_torch"]

Path = tuple[str | int, ...]

# Of all networks at once; no two rename the same part.
TABLE = TorchNames({ours: theirs for n in NAMES.values() for ours, theirs in n.renamed.items()})


def path_of(name: str, leaves: Mapping[Path, object]) -> Path:
    """The path among `leaves` of what PyTorch calls `name`.

    `layer1.0.conv1.weight` is `("layer1", 0, "conv1", "latent_kernel")` where that exists.
    """
    (path,) = [path for path in leaves if TABLE.of(path) == name]
    return path


def to_flax(array: np.ndarray) -> np.ndarray:
    """OIHW to HWIO, (out, in) to (in, out); vectors as they are. In float64."""
    return torch_weights.to_flax(np.asarray(array, np.float64))


def load_state(state: nnx.State, arrays: Mapping[str, np.ndarray], dtype=np.float64) -> nnx.State:
    """`state` with the leaves that `arrays` names (in Flax's layout) replaced; all must exist."""
    flat = dict(nnx.to_flat_state(state))
    for name, array in arrays.items():
        path = path_of(name, flat)
        assert array.shape == flat[path].shape, name
        flat[path] = flat[path].replace(jnp.asarray(array, dtype))
    return nnx.from_flat_state(flat)


def leaf(state: nnx.State, name: str) -> np.ndarray:
    """The array called `name`, in Flax's layout."""
    flat = dict(nnx.to_flat_state(state))
    return np.asarray(flat[path_of(name, flat)][...])
