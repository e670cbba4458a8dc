"""Weights from PyTorch: state dicts as NumPy arrays, by a table of names. PyTorch isn't needed."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from ovsw_jax.hyperparams import FLOAT32_MAX
from ovsw_jax.models.cifar_resnet import CifarResNet18, CifarResNet20, SmallResNet
from ovsw_jax.models.resnet import ResNet
from ovsw_jax.models.vgg_small import VGGSmall

_LEAVES = {
    "kernel": "weight",
    "latent_kernel": "weight",
    "scale": "weight",
    "negative_slope": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
_KERNELS = ("kernel", "latent_kernel")
# Their kernels have axes that PyTorch orders, packs or mirrors otherwise.
_OTHERWISE = (nnx.ConvTranspose, nnx.LinearGeneral, nnx.Einsum)
_NAMED = 4  # so many names are listed in an error


class Unmatched(NamedTuple):
    """What one side has and the other has not, by PyTorch's names.

    Attributes:
      missing: parameters and batch statistics of the network that the state dict lacks.
      unexpected: entries of the state dict that the network lacks.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class TorchNames:
    """What PyTorch calls the parts of a network.

    Without a table a name is the path in the Flax network, joined by dots, where the last part is
    PyTorch's: `weight` for a kernel, a batch norm's scale or a PReLU's slope, `bias`,
    `running_mean` and `running_var`.

    Attributes:
      renamed: our name -> theirs, of a module or parameter, or of successive ones joined by dots.
        It holds wherever our name occurs in a path; the longest one holds first.
      flattened: our name of a linear layer that sees a flattened image -> the (channels, height,
        width) of that image. PyTorch flattens channels first, Flax last.
      ignored: last parts of the names of entries that hold no weights.

    Raises:
      ValueError: if a name or shape can't be one.
      TypeError: if the tables are no mappings.

    Example:
      >>> import ovsw_jax as ovsw
      >>> names = ovsw.models.TorchNames({"stem": "features.0"}, flattened={"head": (64, 4, 4)})
      >>> names.of(("stem", "kernel")), names.of(("blocks", 1, "bn", "var"))
      ('features.0.weight', 'blocks.1.bn.running_var')

    Source: layers and their arrays as PyTorch documents them (Conv2d, Linear, BatchNorm2d, PReLU).
    """

    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    flattened: Mapping[str, tuple[int, int, int]] = dataclasses.field(default_factory=dict)
    ignored: tuple[str, ...] = ("num_batches_tracked",)

    def __post_init__(self) -> None:
        """Checks the tables."""
        for field in ("renamed", "flattened"):
            if not isinstance(getattr(self, field), Mapping):
                raise TypeError(
                    f"{field}={getattr(self, field)!r} is no mapping: give a dict whose keys are "
                    "names in the Flax network, joined by dots."
                )
        for ours, theirs in self.renamed.items():
            if not all(isinstance(name, str) and name for name in (ours, theirs)):
                raise ValueError(
                    f"renamed holds {ours!r}: {theirs!r}: both must be names, joined by dots, such "
                    "as 'shortcut.conv': 'downsample.0'."
                )
        for name, image in self.flattened.items():
            sizes = image if isinstance(image, tuple | list) else ()
            if len(sizes) != 3 or not all(isinstance(n, int) and n > 0 for n in sizes):
                raise ValueError(
                    f"flattened holds {name!r}: {image!r}: it must be (channels, height, width) of "
                    "the image that is flattened, three positive integers."
                )
        ignored = self.ignored
        if not isinstance(ignored, tuple | list) or not all(isinstance(n, str) for n in ignored):
            raise TypeError(f"ignored={ignored!r} must be a tuple of last parts of names.")

    def of(self, path: tuple[Any, ...]) -> str:
        """PyTorch's name of the parameter or batch statistic at a path of the Flax network."""
        left, found = [str(part) for part in path], []
        while left:
            runs = (left[:length] for length in range(len(left), 0, -1))
            run = next((r for r in runs if ".".join(r) in self.renamed), None)
            if run is not None:
                found.append(self.renamed[".".join(run)])
            else:
                run = left[:1]
                found.append(_LEAVES.get(run[0], run[0]) if len(left) == 1 else run[0])
            left = left[len(run) :]
        return ".".join(found)


_SKIPS = {"shortcut.conv": "downsample.0", "shortcut.bn": "downsample.1"}
# The authors' code keeps its flip state beside each weight.
_AUTHORS = ("num_batches_tracked", "tracker", "weight_prev")
# The names of the authors' code; those of torchvision's ResNets are the same.
NAMES: Mapping[type[nnx.Module], TorchNames] = {
    CifarResNet20: TorchNames(ignored=_AUTHORS),
    CifarResNet18: TorchNames(ignored=_AUTHORS),
    SmallResNet: TorchNames(ignored=_AUTHORS),
    ResNet: TorchNames(_SKIPS, ignored=_AUTHORS),
    VGGSmall: TorchNames({"prelu": "nonlinear5"}, {"fc": (512, 4, 4)}, _AUTHORS),
}


def load_torch(
    model: nnx.Module,
    state_dict: Mapping[str, Any],
    names: TorchNames | None = None,
    *,
    strict: bool = True,
) -> Unmatched:
    """Sets parameters and batch statistics to those of a PyTorch network of the same layers.

    Kernels are transposed to Flax's layout, and numbers converted to the network's dtypes. Nothing
    is set if anything is wrong.

    Args:
      model: the network, also one made under `nnx.eval_shape`. It is changed in place.
      state_dict: PyTorch's name -> array, in PyTorch's layout: `{k: v.numpy() for k, v in
        torch_model.state_dict().items()}`.
      names: the table of names; None is that of a network of `ovsw.models`.
      strict: whether a name that only one side has is an error. Shapes must agree either way.

    Returns:
      The names that only one side has: none if `strict`.

    Raises:
      ValueError: if names or shapes don't fit, an entry holds NaN or numbers beyond float32, or no
        table is known.
      TypeError: if an argument or an entry is of the wrong type.

    Example:
      >>> import ovsw_jax as ovsw
      >>> from flax import nnx
      >>> model = ovsw.models.SmallResNet(10, widths=(4,), rngs=nnx.Rngs(0))
      >>> state_dict = ovsw.models.torch_state_dict(model)  # in practice, of a PyTorch network
      >>> ovsw.models.load_torch(model, state_dict)
      Unmatched(missing=(), unexpected=())

    Source: layers and their arrays as PyTorch documents them (Conv2d, Linear, BatchNorm2d, PReLU).
    """
    if not isinstance(state_dict, Mapping) or not all(isinstance(k, str) for k in state_dict):
        raise TypeError(
            f"state_dict is a {type(state_dict).__name__}, and must map PyTorch's names to arrays: "
            "{k: v.numpy() for k, v in torch_model.state_dict().items()}."
        )
    names = _names_of(model, names)
    entries = list(_entries(model, names))
    given = {n: x for n, x in state_dict.items() if n.rpartition(".")[2] not in names.ignored}
    wanted = {entry.name for entry in entries if not entry.otherwise}
    unmatched = Unmatched(
        tuple(entry.name for entry in entries if entry.otherwise or entry.name not in given),
        tuple(name for name in given if name not in wanted),
    )
    if strict and any(unmatched):
        raise ValueError(_unmatched_message(model, unmatched, entries))
    taken = [entry for entry in entries if entry.name not in unmatched.missing]
    arrays = {entry.path: entry.to_flax(_array(entry.name, given[entry.name])) for entry in taken}
    variables = {entry.path: entry.variable for entry in taken}
    found = {
        path: variable.replace(jnp.asarray(arrays[path], variable.dtype))
        for path, variable in variables.items()
    }
    nnx.update(model, nnx.from_flat_state(found))
    return unmatched


def torch_state_dict(model: nnx.Module, names: TorchNames | None = None) -> dict[str, np.ndarray]:
    """Parameters and batch statistics as a PyTorch network of the same layers names them.

    The inverse of `load_torch`. Its keys show what a table of names makes of a network.

    Args:
      model: the network.
      names: the table of names; None is that of a network of `ovsw.models`.

    Returns:
      PyTorch's name -> array, in PyTorch's layout. Kernels whose layout `load_torch` doesn't know
      are left out.

    Raises:
      ValueError: if no table is known, or the table gives two arrays one name.
      TypeError: if an argument is of the wrong type.

    Example:
      >>> import ovsw_jax as ovsw
      >>> from flax import nnx
      >>> model = ovsw.models.SmallResNet(10, widths=(4,), rngs=nnx.Rngs(0))
      >>> ovsw.models.torch_state_dict(model)["layer1.0.conv1.weight"].shape
      (4, 4, 3, 3)

    Source: layers and their arrays as PyTorch documents them (Conv2d, Linear, BatchNorm2d, PReLU).
    """
    entries = _entries(model, _names_of(model, names))
    return {e.name: e.to_torch(np.asarray(e.variable[...])) for e in entries if not e.otherwise}


def to_flax(array: np.ndarray, image: tuple[int, int, int] | None = None) -> np.ndarray:
    """A kernel from OIHW to HWIO, from (out, in) to (in, out); a vector as it is.

    Args:
      array: in PyTorch's layout.
      image: (channels, height, width) if the inputs of a linear layer are a flattened image.
    """
    if image is not None:
        array = np.moveaxis(array.reshape(-1, *image), 1, -1).reshape(array.shape)
    return array if array.ndim < 2 else np.moveaxis(array, (0, 1), (-1, -2))


def to_torch(array: np.ndarray, image: tuple[int, int, int] | None = None) -> np.ndarray:
    """The inverse of `to_flax`."""
    array = array if array.ndim < 2 else np.moveaxis(array, (-1, -2), (0, 1))
    if image is not None:
        channels, height, width = image
        flat = array.reshape(-1, height, width, channels)
        array = np.moveaxis(flat, -1, 1).reshape(array.shape)
    return array


class _Entry(NamedTuple):
    """A parameter or batch statistic.

    Attributes:
      path: in the Flax network.
      variable: what holds it.
      name: PyTorch's.
      image: (channels, height, width) if it is the kernel of a layer that sees a flattened image.
      otherwise: kind of its layer if the layout of its kernel is not known here.
    """

    path: tuple[Any, ...]
    variable: nnx.Variable[Any]
    name: str
    image: tuple[int, int, int] | None
    otherwise: str | None

    @property
    def is_kernel(self) -> bool:
        return self.path[-1] in _KERNELS

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """The array in PyTorch's layout."""
        return to_torch(array, self.image) if self.is_kernel else array

    def to_flax(self, array: np.ndarray) -> np.ndarray:
        """The array in Flax's layout, from PyTorch's.

        Raises:
          ValueError: if the shape is not that of the network.
        """
        shape = self.variable.shape
        if len(shape) == 1 and max(array.shape, default=0) == array.size:
            array = array.reshape(-1)  # a vector may be stored as (1, channels, 1, 1)
        wanted = self._shape_there(shape)
        if array.shape != wanted:
            raise ValueError(
                f"state_dict has {self.name} of shape {array.shape}, and the network needs "
                f"{wanted} (its {'/'.join(map(str, self.path))} is {shape}): make the network with "
                "the same sizes. For a head of other classes, remove the entries of the old one "
                "from state_dict, and give strict=False."
            )
        return to_flax(array, self.image) if self.is_kernel else array

    def _shape_there(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[-1], shape[-2], *shape[:-2]) if self.is_kernel else shape


def _entries(model: nnx.Module, names: TorchNames) -> Iterator[_Entry]:
    """All parameters and batch statistics."""
    modules = dict(nnx.iter_modules(model))
    state = nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))
    paths: dict[str, tuple[Any, ...]] = {}
    used = set()
    for path, variable in nnx.to_flat_state(state):
        name, owner = names.of(path), ".".join(map(str, path[:-1]))
        if name in paths:
            raise ValueError(
                f"names calls both {'/'.join(map(str, paths[name]))} and "
                f"{'/'.join(map(str, path))} {name!r}: each needs a name of its own in renamed."
            )
        paths[name] = path
        layer, is_kernel = modules.get(path[:-1]), path[-1] in _KERNELS
        image = names.flattened.get(owner) if is_kernel else None
        if image is not None:
            used.add(owner)
            _check_flattened(owner, image, variable.shape)
        stacked_otherwise = is_kernel and isinstance(layer, _OTHERWISE)
        otherwise = type(layer).__name__ if stacked_otherwise else None
        yield _Entry(path, variable, name, image, otherwise)
    if lost := [owner for owner in names.flattened if owner not in used]:
        raise ValueError(
            f"flattened holds {lost[0]!r}, and the network has no kernel there: give the path of a "
            "linear layer, joined by dots."
        )


def _check_flattened(owner: str, image: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or shape[0] != np.prod(image):
        raise ValueError(
            f"flattened holds {owner!r}: {tuple(image)}, {np.prod(image)} numbers, and the kernel "
            f"there is {shape}: (inputs, outputs) must have as many inputs."
        )


def _names_of(model: nnx.Module, names: TorchNames | None) -> TorchNames:
    if not isinstance(model, nnx.Module):
        raise TypeError(f"model is {model!r}, and must be an NNX module.")
    if names is not None and not isinstance(names, TorchNames):
        raise TypeError(f"names={names!r} is no ovsw.models.TorchNames: make one, or give None.")
    if names is None:
        names = next((NAMES[kind] for kind in type(model).__mro__ if kind in NAMES), None)
    if names is None:
        raise ValueError(
            f"the names of a {type(model).__name__} in PyTorch are not known: give names="
            "ovsw.models.TorchNames(...), a table of those that differ, or TorchNames() if none do."
        )
    return names


def _array(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except Exception as error:  # of a tensor that is on a device, or needs a gradient
        raise TypeError(
            f"state_dict has {name} that is no array ({error}): give NumPy arrays, as "
            "tensor.detach().cpu().numpy() makes them."
        ) from error
    if not any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer)):
        raise TypeError(
            f"state_dict has {name} of dtype {array.dtype}, which holds no real numbers: give "
            "NumPy arrays, as tensor.detach().cpu().numpy() makes them."
        )
    if jnp.issubdtype(array.dtype, jnp.floating):
        numbers = np.abs(array.astype(np.float64))
        if not np.all(numbers <= FLOAT32_MAX):
            kind = "NaN" if np.isnan(numbers).any() else "numbers beyond float32"
            raise ValueError(
                f"state_dict has {name} that holds {kind}: that training went wrong, or the file "
                "is damaged. Give other weights."
            )
    if name.endswith("running_var") and (array < 0).any():
        raise ValueError(
            f"state_dict has {name} that holds negative variances: the file is damaged, or the "
            "entry is another one. Give other weights."
        )
    return array


def _unmatched_message(model: nnx.Module, found: Unmatched, entries: list[_Entry]) -> str:
    parts = [
        f"the {side} {_listed(names)}"
        for side, names in (
            ("network lacks", found.unexpected),
            ("state_dict lacks", found.missing),
        )
        if names
    ]
    message = f"names of {type(model).__name__} and state_dict differ: {'; '.join(parts)}. "
    other = [entry for entry in entries if entry.otherwise]
    if prefix := _prefix(found):
        return f"{message}Every name of it begins with {prefix!r}: remove that from each."
    if other:
        return (
            f"{message}{other[0].name} is of an nnx.{other[0].otherwise}, whose kernel PyTorch "
            "lays out in another way: give strict=False, and set it yourself."
        )
    return (
        f"{message}Name what differs in names=ovsw.models.TorchNames(...), or give strict=False to "
        "load the rest; torch_state_dict(model) shows the network's names."
    )


def _prefix(found: Unmatched) -> str:
    """What stands before every name of the state dict and not of the network: `module.`."""
    for name in found.unexpected:
        if found.missing and name.endswith(f".{found.missing[0]}"):
            prefix = name.removesuffix(found.missing[0])
            if {n.removeprefix(prefix) for n in found.unexpected} >= set(found.missing):
                return prefix
    return ""


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
