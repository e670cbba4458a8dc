"""Trained weights as files: the start of another training, or its teacher.

RUN/weights/OPTIMIZER-seedSEED.npz holds an array per parameter and batch statistic, named by its
path: `params/layer1/0/conv1/latent_kernel`, `statistics/bn1/mean`; and `data/classes`,
`data/image_shape`, `data/mean` and `data/std` of the images. NumPy reads it without pickle.

A sweep writes those of its first seed to RUN/weights/points, and keeps the best of each optimizer.
"""

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from experiments.config.config_file import read_config
from experiments.data import Dataset, StreamedDataset
from experiments.run.atomic_files import write_arrays, writing
from experiments.sweep.arms import planned_points
from experiments.sweep.grid import Value
from experiments.sweep.members import Member

FOLDER = "weights"
_LATENT, _REAL = "latent_kernel", "kernel"
_POINTS = "points"
_DATA = "data/"
_POINT = f"{_DATA}point"
# Kinds of NumPy dtypes, of arrays with one axis.
_DATA_KINDS = {"classes": "U", "image_shape": "iu", "mean": "f", "std": "f"}


class Data(NamedTuple):
    """The data set that weights were trained on: its classes, and how images were given."""

    classes: tuple[str, ...]
    image_shape: tuple[int, ...]  # (height, width, channels)
    mean: np.ndarray  # (channels,), of pixels on the scale 0..1
    std: np.ndarray


def data_for(dataset: Dataset | StreamedDataset) -> Data:
    """The same for a loaded data set."""
    return Data(dataset.classes, dataset.image_shape, dataset.mean, dataset.std)


def file_of(run: Path, optimizer: str, seed: int) -> Path:
    """The file with the weights of one training."""
    return run / FOLDER / f"{optimizer}-seed{seed}.npz"


def file_of_point(run: Path, member: Member) -> Path:
    """The file with the weights of one point of a sweep, until the best ones are known."""
    point = "".join(f"-{name}={value}" for name, value in member.point.items())
    return run / FOLDER / _POINTS / f"{member.optimizer}{point}-seed{member.seed}.npz"


def keep_point(run: Path, member: Member) -> None:
    """Makes the weights of a point, if they are there, those of its optimizer and seed.

    Raises:
      WriteError: if they can't be moved.
    """
    there, here = file_of_point(run, member), file_of(run, member.optimizer, member.seed)
    if there.is_file():
        with writing(here, run):
            there.replace(here)


def remove_points(run: Path) -> None:
    """Removes the weights of points that were not kept."""
    folder = run / FOLDER / _POINTS
    with writing(folder, run):
        shutil.rmtree(folder, ignore_errors=True)


def save(
    path: Path, state: tuple[Any, Any], data: Data, point: Mapping[str, Value] | None = None
) -> None:
    """Writes parameters and batch statistics of one training, whole or not at all; no keys.

    `point` is what a sweep gave it.
    """
    run = next(parent for parent in path.parents if parent.name == FOLDER).parent
    with writing(path.parent, run):
        path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: storable(x) for name, x in _named_leaves(*state).items()}
    arrays |= {f"{_DATA}{field}": np.asarray(x) for field, x in data._asdict().items()}
    if point:
        arrays[_POINT] = np.array([f"{name}={value}" for name, value in point.items()])
    write_arrays(path, run, arrays)


def point_of(path: Path) -> dict[str, str]:
    """What a sweep gave to the training whose weights are in a file, as texts; {} without a sweep.

    Raises:
      ValueError: if the file can't be read.
    """
    texts = _read(path).get(_POINT, np.array([], np.str_))
    pairs = (str(text).partition("=") for text in texts.ravel())
    return {name: value for name, _, value in pairs}


def storable(x: jax.typing.ArrayLike) -> np.ndarray:
    """The same numbers in a dtype that NumPy's files know: bfloat16 and its like in float32."""
    array = np.asarray(x)
    return array if _is_storable(array.dtype) else array.astype(np.float32)


def _is_storable(dtype: Any) -> bool:
    return np.dtype(dtype).kind != "V" or not jnp.issubdtype(dtype, jnp.floating)


def find(run: Path, optimizer: str, seed: int) -> Path:
    """The weights of an earlier run from which a training with `optimizer` and `seed` starts.

    They are those of the same optimizer and seed; if the run lacks either, those of its first.

    Raises:
      ValueError: if `run` is no run folder, or keeps no such weights.
    """
    config = config_of(run)
    optimizers, seeds = optimizers_of(config) or [""], config.get("seeds") or [0]
    optimizer = optimizer if optimizer in optimizers else optimizers[0]
    seed = seed if seed in seeds else seeds[0]
    if config.get("grids") and not file_of(run, optimizer, seed).is_file():
        seed = seeds[0]  # the only one of which a sweep keeps weights
    return kept(run, optimizer, seed)


def optimizers_of(config: Mapping[str, Any]) -> list[str]:
    """Keys of the optimizers that a config.json plans, in its order."""
    return list(dict.fromkeys(name for name, _ in planned_points(config)))


def kept(run: Path, optimizer: str, seed: int) -> Path:
    """The weights of exactly this training.

    Raises:
      ValueError: if the run keeps none of it.
    """
    path = file_of(run, optimizer, seed)
    if path.parent != run / FOLDER or not path.is_file():  # names may be of a strange config.json
        there = ", ".join(sorted(p.name for p in (run / FOLDER).glob("[!.]*.npz"))) or "none"
        raise ValueError(
            f"{run} holds no trained weights {path.relative_to(run)} (there are: {there}): a run "
            "writes them when a training comes to its end. A sweep of several settings keeps those "
            "of each optimizer's best one, of its first seed, when it comes to its own end. Let it "
            "finish, or name another run or training."
        )
    return path


def config_of(run: Path) -> dict[str, Any]:
    """The config.json of a run folder.

    Raises:
      ValueError: if `run` is no run folder.
    """
    try:
        config = read_config(run / "config.json")
        if not isinstance(config.get("seeds") or [], list):
            raise ValueError("its seeds are no list")
        return config
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{run} is no run folder ({error}): give a folder that python -m experiments.train "
            "wrote."
        ) from error


def load(path: Path, params: Any, statistics: Any, head: Collection[str] = ()) -> tuple[Any, Any]:
    """Parameters and batch statistics of a network, replaced by trained ones.

    Real weights become latent weights where the network has latent ones, and latent weights become
    real: a network with binary activations can be the start of one whose weights are binary too.

    Args:
      path: file written by `save`.
      params: parameters of the network, or their shapes.
      statistics: batch statistics, or their shapes; random keys among them stay.
      head: paths of arrays, `params/fc/kernel`, that stay as they are: those of other classes.

    Raises:
      ValueError: if the file can't be read, does not fit the network, or holds NaN.
    """
    kept = {_common_name(name) for name in head}
    found = {_common_name(n): x for n, x in _read(path).items() if not n.startswith(_DATA)}
    wanted = {_common_name(name): x for name, x in _named_leaves(params, statistics).items()}
    found, wanted = ({n: x for n, x in of.items() if n not in kept} for of in (found, wanted))
    _check_same(path, found, wanted)

    def trained(prefix: str, tree: Any) -> Any:
        flat = traverse_util.flatten_dict(tree)
        for key, leaf in flat.items():
            name = _common_name(_name(prefix, key))
            if not _is_key(leaf) and name not in kept:
                array = found[name]
                # As it is in the file, in float64 too, but for what files don't know.
                flat[key] = jnp.asarray(array, None if _is_storable(leaf.dtype) else leaf.dtype)
        return traverse_util.unflatten_dict(flat)

    return trained("params", params), trained("statistics", statistics)


def data_of(path: Path) -> Data:
    """What the weights in a file were trained on.

    Raises:
      ValueError: if the file can't be read, or does not say.
    """
    arrays = _read(path)
    if missing := [f for f in Data._fields if f"{_DATA}{f}" not in arrays]:
        raise ValueError(
            f"trained weights {path} lack {_DATA}{missing[0]}: they are of no run of this version. "
            "Train again."
        )
    for field, kinds in _DATA_KINDS.items():
        found = arrays[f"{_DATA}{field}"]
        if found.ndim != 1 or found.dtype.kind not in kinds:
            raise ValueError(
                f"trained weights {path} hold {_DATA}{field} of type {found.dtype} and shape "
                f"{found.shape}: no run writes that. Train again."
            )
    return Data(
        tuple(map(str, arrays[f"{_DATA}classes"])),
        tuple(map(int, arrays[f"{_DATA}image_shape"])),
        arrays[f"{_DATA}mean"],
        arrays[f"{_DATA}std"],
    )


def check_same_data(run: Path, there: Data, here: Data) -> None:
    """Raises ValueError unless both have the same classes and image shape."""
    if there.image_shape != here.image_shape:
        raise ValueError(
            f"{run} was trained on images of {there.image_shape}, these are {here.image_shape}: "
            "train both on images of one shape."
        )
    if there.classes != here.classes:
        pairs = zip(there.classes, here.classes, strict=False)
        first = next((f": {a} there is {b} here" for a, b in pairs if a != b), "")
        raise ValueError(
            f"{run} was trained on other classes ({len(there.classes)} there, "
            f"{len(here.classes)} here{first}): train both on the same, in the same order."
        )


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        # Opened here, since NumPy leaves a file open that it can't read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds
        raise ValueError(f"trained weights {path} can't be read: {error}") from error


def _check_same(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    different = [
        f"{name} is {_shape(found, name)} there and {_shape(wanted, name)} in the network"
        for name in {**wanted, **found}
        if _shape(found, name) != _shape(wanted, name)
    ]
    different += [
        f"{name} is {x.dtype} there and {wanted[name].dtype} in the network"
        for name, x in found.items()
        if name in wanted and _kind(x.dtype) != _kind(wanted[name].dtype)
    ]
    if different:
        more = f", and {len(different) - 3} more" if len(different) > 3 else ""
        raise ValueError(
            f"trained weights {path} do not fit the network: {'; '.join(different[:3])}{more}. "
            f"They are of network {_network_of(path)}: use the same network, on images with as "
            "many channels."
        )
    if wrong := [name for name, x in found.items() if x.dtype.kind == "f" and np.isnan(x).any()]:
        raise ValueError(
            f"trained weights {path} hold NaN, in {', '.join(wrong[:3])}: that training went "
            "wrong. Train again, or name another run or training."
        )


def _network_of(path: Path) -> str:
    """The network of the run that a file of weights is in, as its config says."""
    try:
        return repr(config_of(path.parent.parent).get("network", "unknown"))
    except ValueError:
        return "unknown"


def _kind(dtype: Any) -> str:
    """The kind of numbers that a dtype holds: numbers of one kind can stand for each other."""
    kinds = {"floating": jnp.floating, "integer": jnp.integer, "bool": jnp.bool_}
    return next((name for name, kind in kinds.items() if jnp.issubdtype(dtype, kind)), str(dtype))


def _shape(arrays: Mapping[str, Any], name: str) -> str:
    return str(arrays[name].shape) if name in arrays else "missing"


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
