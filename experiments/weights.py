"""Trained weights as files: where another training starts, or what its teacher knows.

RUN/weights/OPTIMIZER-seedSEED.npz holds an array a parameter and batch statistic, named by its
path: `params/layer1/0/conv1/latent_kernel`, `statistics/bn1/mean`. NumPy reads it without pickle.
"""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

FOLDER = "weights"
_LATENT, _REAL = "latent_kernel", "kernel"


def file_of(run: Path, optimizer: str, seed: int) -> Path:
    """Where a run keeps the weights of one training."""
    return run / FOLDER / f"{optimizer}-seed{seed}.npz"


def save(path: Path, params: Any, statistics: Any) -> None:
    """Writes the weights of one training, whole or not at all; random keys are left out."""
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    np.savez(unfinished, **_named(params, statistics))  # type: ignore[arg-type]
    unfinished.replace(path)


def find(run: Path, optimizer: str, seed: int) -> Path:
    """The weights that a training with `optimizer` and `seed` takes of an earlier run.

    Those of the same optimizer and seed; where the run has not that optimizer or seed, of the
    first that it has.

    Raises:
      ValueError: if `run` is no run folder, or keeps no such weights.
    """
    config = config_of(run)
    optimizers, seeds = config.get("optimizers") or [""], config.get("seeds") or [0]
    path = file_of(
        run,
        optimizer if optimizer in optimizers else optimizers[0],
        seed if seed in seeds else seeds[0],
    )
    if not path.is_file():
        raise ValueError(
            f"{run} holds no trained weights {FOLDER}/{path.name}: a run writes them when a "
            "training comes to its end, and a sweep of several settings keeps none. Let it finish, "
            "or name another run."
        )
    return path


def config_of(run: Path) -> dict[str, Any]:
    """The config.json of a run folder.

    Raises:
      ValueError: if `run` is no run folder.
    """
    try:
        return dict(json.loads((run / "config.json").read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{run} is no run folder ({error}): give a folder that python -m experiments.train "
            "wrote."
        ) from error


def load(path: Path, params: Any, statistics: Any) -> tuple[Any, Any]:
    """Trained weights in the place of a network's own.

    Real weights become latent weights where the network's are, and latent ones real: so a network
    with binary activations is the start of one whose weights are binary too.

    Args:
      path: file written by `save`.
      params: parameters of the network, or their shapes.
      statistics: its batch statistics, or their shapes; random keys among them stay.

    Returns:
      The two pytrees with the trained arrays in them.

    Raises:
      ValueError: if the file can't be read, or names or shapes differ from the network's.
    """
    try:
        # Opened here, since NumPy leaves a file open that it can't read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = {_common_name(name): array for name, array in arrays.items()}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"trained weights {path} can't be read: {error}") from error
    wanted = {_common_name(name): x for name, x in _named_leaves(params, statistics).items()}
    _check_same(path, found, wanted)

    def trained(prefix: str, tree: Any) -> Any:
        flat = traverse_util.flatten_dict(tree)
        for key, leaf in flat.items():
            if not _is_key(leaf):
                flat[key] = jnp.asarray(found[_common_name(_name(prefix, key))])
        return traverse_util.unflatten_dict(flat)

    return trained("params", params), trained("statistics", statistics)


def _check_same(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    different = [
        f"{name} is {_shape(found, name)} there and {_shape(wanted, name)} in the network"
        for name in {**wanted, **found}
        if _shape(found, name) != _shape(wanted, name)
    ]
    if different:
        more = f", and {len(different) - 3} more" if len(different) > 3 else ""
        raise ValueError(
            f"trained weights {path} do not fit the network: {'; '.join(different[:3])}{more}. "
            "Train both with the same network, classes and image shape."
        )


def _shape(arrays: Mapping[str, Any], name: str) -> str:
    return str(arrays[name].shape) if name in arrays else "missing"


def _named(params: Any, statistics: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(x) for name, x in _named_leaves(params, statistics).items()}


def _named_leaves(params: Any, statistics: Any) -> dict[str, Any]:
    return {
        _name(prefix, key): leaf
        for prefix, tree in (("params", params), ("statistics", statistics))
        for key, leaf in traverse_util.flatten_dict(tree).items()
        if not _is_key(leaf)
    }


def _name(prefix: str, key: tuple[Any, ...]) -> str:
    return "/".join(map(str, (prefix, *key)))


def _common_name(name: str) -> str:
    head, _, last = name.rpartition("/")
    return f"{head}/{_REAL}" if last == _LATENT else name


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
