"""How a training is laid out on devices: by member, or by the batch of each member.

Both give the same trainings, except for rounding. If batches are divided, the devices may belong to
several processes; every process then runs the same program. Shapes in place of arrays are placed as
shapes: of what is only compiled, for devices that may be absent.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

LARGE = 2**16  # weights of a kernel that is worth dividing

Tree = TypeVar("Tree")


class MembersApart:
    """Members on different devices of this process, as many on each; all data on every device."""

    def __init__(self, devices: Sequence[jax.Device]):
        self._mesh = Mesh(np.array(devices), ("members",), axis_types=(AxisType.Auto,))

    def members(self, tree: Tree) -> Tree:
        """Places arrays that have a leading axis of members."""
        return _put_on_process(tree, NamedSharding(self._mesh, P("members")))

    def shared(self, tree: Tree) -> Tree:
        """Places arrays that all members share, whole on every device."""
        return _put_on_process(tree, NamedSharding(self._mesh, P()))

    def images(self, tree: Tree) -> Tree:
        """Places arrays with a leading axis of all training images: here whole on every device."""
        return self.shared(tree)

    def batch(self, tree: Tree) -> Tree:
        """Places this process's rows of a streamed batch: here the step does."""
        return tree

    def rows(self, batch: int) -> slice:
        """This process's rows of a streamed batch: here all."""
        return slice(0, batch)

    def spread(self, tree: Tree) -> Tree:
        """Divides the images of a batch, inside a compiled function: here not."""
        return tree

    def gathered(self, tree: Tree) -> Tree:
        """Parameters to compute with, inside a compiled function: here all are on each device."""
        return tree

    def compiled(
        self, function: Callable[..., Any], axes: str, donate: tuple[int, ...] = ()
    ) -> Any:
        """`function` of one member for all; `axes` has m for arguments of each member, else a."""
        together = _vmapped(function, axes)
        if self._mesh.size == 1:  # JAX's search for NaN never ends in a shard_map
            return jax.jit(together, donate_argnums=donate)
        mapped = jax.shard_map(
            together,
            mesh=self._mesh,
            in_specs=tuple(P("members") if a == "m" else P() for a in axes),
            out_specs=P("members"),
            check_vma=False,  # nothing passes between members; else a scan must mark its carry
        )
        return jax.jit(mapped, donate_argnums=donate)

    def on_host(self, tree: Tree) -> Tree:
        """NumPy arrays, in every process."""
        return jax.device_get(tree)


@dataclass(frozen=True)
class Grid:
    """Where arrays lie on devices that divide a batch, and large kernels.

    Every device computes with images of its own and with whole kernels: those that are kept in
    parts are gathered for it. Kernels are small beside activations, which never move.

    Attributes:
      mesh: of the devices, with the axes `data` and `model`.
      fsdp: whether kernels are kept in parts over `data`, too.
    """

    mesh: Mesh
    fsdp: bool = False

    @classmethod
    def of(cls, devices: Sequence[jax.Device], model_devices: int, fsdp: bool = False) -> "Grid":
        """Neighbours divide kernels among them, in groups of `model_devices`."""
        mesh = Mesh(
            np.array(devices).reshape(-1, model_devices),
            ("data", "model"),
            axis_types=(AxisType.Auto,) * 2,
        )
        return cls(mesh, fsdp)

    @property
    def whole(self) -> NamedSharding:
        """On every device."""
        return NamedSharding(self.mesh, P())

    @property
    def batch(self) -> NamedSharding:
        """Of images and labels: divided over all devices."""
        return NamedSharding(self.mesh, P(("data", "model")))

    def kept(self, shape: tuple[int, ...], leading: int = 0) -> NamedSharding:
        """Of an array between steps, by shape alone: flip state lies as its weight does.

        A kernel of `LARGE` or more weights is divided by filters over `model`, if evenly. With
        `fsdp` also over `data`: by filters, where rules need no sums over devices, else by inputs.

        Args:
          shape: (..., inputs, filters) of a kernel.
          leading: axes before those that are never divided.
        """
        inner = shape[leading:]
        entries: list[Any] = [None] * len(shape)
        if len(inner) > 1 and math.prod(inner) >= LARGE:
            data, model = self.mesh.shape["data"], self.mesh.shape["model"]
            inputs, filters = inner[-2:]
            if filters % model == 0:
                entries[-1] = "model"
            if self.fsdp and filters % (data * model) == 0:
                entries[-1] = ("model", "data")
            elif self.fsdp and inputs % data == 0:
                entries[-2] = "data"
        return NamedSharding(self.mesh, P(*entries))

    def gathered(self, tree: Tree) -> Tree:
        """Parameters to compute with, inside a compiled function: whole on every device."""
        return jax.lax.with_sharding_constraint(tree, self.whole)


class BatchApart:
    """Images of a batch on different devices, of any number of processes.

    Large kernels, and optimizer state of the same shape, are kept in parts: by filters over
    `model_devices` devices, with `fsdp` over all. All else is whole on every device. Batch norm is
    that of the whole batch.

    Raises:
      ValueError: if the devices or the batch can't be divided so.
    """

    def __init__(
        self, devices: Sequence[jax.Device], model_devices: int, batch: int, fsdp: bool = False
    ):
        count, local = len(devices), len(devices) // processes_of(devices)
        if local % model_devices:
            raise ValueError(
                f"model_devices={model_devices} does not divide the {local} devices of a process: "
                "give another --model-devices."
            )
        if batch % count:
            raise ValueError(
                f"batch_size={batch} can't be divided over {count} devices: give a --batch-size "
                f"that is a multiple of {count}."
            )
        self._grid = Grid.of(devices, model_devices, fsdp)
        self._replicate = jax.jit(lambda tree: tree, out_shardings=self._grid.whole)

    def members(self, tree: Tree) -> Tree:
        return jax.tree.map(lambda x: _put(x, self._grid.kept(x.shape, leading=1)), tree)

    def shared(self, tree: Tree) -> Tree:
        return jax.tree.map(lambda x: _put(x, self._grid.whole), tree)

    def images(self, tree: Tree) -> Tree:
        """Divides them over all devices; zeros fill up the last one."""
        size, sharding = self._grid.mesh.size, self._grid.batch
        return jax.tree.map(lambda x: _put(_padded(x, -len(x) % size), sharding), tree)

    def batch(self, tree: Tree) -> Tree:
        return jax.tree.map(lambda x: _put_rows(x, self._grid.batch), tree)

    def rows(self, batch: int) -> slice:
        size = batch // jax.process_count()
        return slice(jax.process_index() * size, (jax.process_index() + 1) * size)

    def spread(self, tree: Tree) -> Tree:
        """Divides them over all devices if they can be divided evenly."""
        constrain, grid = jax.lax.with_sharding_constraint, self._grid
        return jax.tree.map(
            lambda x: x if len(x) % grid.mesh.size else constrain(x, grid.batch), tree
        )

    def gathered(self, tree: Tree) -> Tree:
        """Parameters to compute with, inside a compiled function: whole on every device."""
        return self._grid.gathered(tree)

    def compiled(
        self, function: Callable[..., Any], axes: str, donate: tuple[int, ...] = ()
    ) -> Any:
        together = _vmapped(function, axes)

        def placed(*arguments: Any) -> Any:
            return jax.tree.map(
                lambda x: jax.lax.with_sharding_constraint(x, self._grid.kept(x.shape, leading=1)),
                together(*arguments),
            )

        return jax.jit(placed, donate_argnums=donate)

    def on_host(self, tree: Tree) -> Tree:
        return jax.device_get(self._replicate(tree))


Layout = MembersApart | BatchApart


def _vmapped(function: Callable[..., Any], axes: str) -> Callable[..., Any]:
    return jax.vmap(function, tuple(0 if a == "m" else None for a in axes))


def processes_of(devices: Sequence[jax.Device]) -> int:
    """Number of processes that the devices belong to."""
    return len({device.process_index for device in devices})


def _put_on_process(tree: Tree, sharding: NamedSharding) -> Tree:
    """Puts arrays on devices of this process."""
    return jax.tree.map(
        lambda x: _shape(x, sharding) if _is_shape(x) else jax.device_put(x, sharding), tree
    )


def _put(x: Any, sharding: NamedSharding) -> Any:
    """Puts on each device its part of `x`, which every process has."""
    if _is_shape(x):
        return _shape(x, sharding)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        plain = _put(jax.random.key_data(x), sharding)
        return jax.jit(jax.random.wrap_key_data, out_shardings=sharding)(plain)
    array = np.asarray(x)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _put_rows(x: Any, sharding: NamedSharding) -> Any:
    """Puts this process's rows on its devices; a shape is that of all rows."""
    if _is_shape(x):
        return _shape(x, sharding)
    return jax.make_array_from_process_local_data(sharding, x)


def _padded(x: Any, fill: int) -> Any:
    if _is_shape(x):
        return jax.ShapeDtypeStruct((len(x) + fill, *x.shape[1:]), x.dtype)
    return np.concatenate([x, np.zeros((fill, *x.shape[1:]), x.dtype)]) if fill else x


def _is_shape(x: Any) -> bool:
    return isinstance(x, jax.ShapeDtypeStruct)


def _shape(x: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
