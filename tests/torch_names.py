"""PyTorch's parameter names and layouts, as the reference data uses them, for Flax NNX states."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx

Path = tuple[str | int, ...]

_MODULES = {"downsample.0": "shortcut.conv", "downsample.1": "shortcut.bn", "nonlinear5": "prelu"}
_LEAVES = {
    "weight": ("kernel", "latent_kernel", "scale", "negative_slope"),
    "bias": ("bias",),
    "running_mean": ("mean",),
    "running_var": ("var",),
}


def path_of(name: str, leaves: Mapping[Path, object]) -> Path:
    """The path among `leaves` of what PyTorch calls `name`.

    `layer1.0.conv1.weight` is `("layer1", 0, "conv1", "latent_kernel")` where that exists. Names
    within a lone block begin with a dot.
    """
    modules, _, leaf = name.rpartition(".")
    for theirs, ours in _MODULES.items():
        modules = modules.replace(theirs, ours)
    owner = tuple(int(m) if m.isdigit() else m for m in modules.split(".") if m)
    (path,) = [(*owner, kind) for kind in _LEAVES[leaf] if (*owner, kind) in leaves]
    return path


def to_flax(array: np.ndarray, image: tuple[int, int, int] | None = None) -> np.ndarray:
    """OIHW to HWIO, (out, in) to (in, out); vectors as they are. In float64.

    Args:
      array: in PyTorch's layout.
      image: (channels, height, width) if the inputs of a linear layer are a flattened image.
    """
    array = np.asarray(array, np.float64)
    if image is not None:
        array = np.moveaxis(array.reshape(-1, *image), 1, -1).reshape(array.shape)
    return np.transpose(array, (2, 3, 1, 0)) if array.ndim == 4 else array.T


def to_torch(array: np.ndarray, image: tuple[int, int, int] | None = None) -> np.ndarray:
    """The inverse of `to_flax`."""
    array = np.transpose(array, (3, 2, 0, 1)) if array.ndim == 4 else array.T
    if image is not None:
        channels, height, width = image
        flat = array.reshape(-1, height, width, channels)
        array = np.moveaxis(flat, -1, 1).reshape(array.shape)
    return array


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
