"""PyTorch's parameter names and layouts, as the reference data uses them, for Flax NNX states."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

_BATCH_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
_REAL_VALUED = ("conv1", "linear", "fc")  # at the top of a network; every other kernel is latent


def path_of(name: str) -> tuple[str | int, ...]:
    """`layer1.0.conv1.weight` -> `("layer1", 0, "conv1", "latent_kernel")`.

    Names within a lone block begin with a dot: `.conv1.weight` -> `("conv1", "latent_kernel")`.
    """
    *modules, leaf = name.split(".")
    if modules[-1].startswith("bn") or modules[-2:] == ["shortcut", "1"]:
        leaf = _BATCH_NORM[leaf]
    elif leaf == "weight":
        leaf = "kernel" if ".".join(modules) in _REAL_VALUED else "latent_kernel"
    return (*(int(m) if m.isdigit() else m for m in modules if m), leaf)


def to_flax(array: np.ndarray) -> np.ndarray:
    """OIHW to HWIO, (out, in) to (in, out); vectors as they are. In float64."""
    array = np.asarray(array, np.float64)
    return np.transpose(array, (2, 3, 1, 0)) if array.ndim == 4 else array.T


def load_state(state: nnx.State, arrays: dict[str, np.ndarray], dtype=np.float64) -> nnx.State:
    """`state` with the leaves that `arrays` names replaced; every name must exist."""
    flat = dict(nnx.to_flat_state(state))
    for name, array in arrays.items():
        variable = flat[path_of(name)]
        new = jnp.asarray(to_flax(array), dtype)
        assert new.shape == variable[...].shape, name
        flat[path_of(name)] = variable.replace(new)
    return nnx.from_flat_state(flat)


def leaf(state: nnx.State, name: str) -> np.ndarray:
    """The array called `name`."""
    return np.asarray(dict(nnx.to_flat_state(state))[path_of(name)][...])
