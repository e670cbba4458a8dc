"""How a training is laid out on devices: by member, or by the batch of each member.

Both give the same trainings, except for rounding. If batches are divided, the devices may belong to
several processes; every process then runs the same program.
"""

from collections.abc import Callable, Sequence
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
        return jax.device_put(tree, NamedSharding(self._mesh, P("members")))

    def shared(self, tree: Tree) -> Tree:
        """Places arrays that all members share, whole on every device."""
        return jax.device_put(tree, NamedSharding(self._mesh, P()))

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


class BatchApart:
    """Images of a batch on different devices, of any number of processes.

    The mesh axes are `data` and `model`. Kernels of `LARGE` or more weights whose filters can be
    divided evenly, and optimizer state of the same shape, are divided by filters over
    `model_devices`; all else is whole on every device. Batch norm is that of the whole batch.

    Raises:
      ValueError: if the devices or the batch can't be divided so.
    """

    def __init__(self, devices: Sequence[jax.Device], model_devices: int, batch: int):
        count, local = len(devices), len(devices) // jax.process_count()
        if local % model_devices:
            raise ValueError(
                f"model_devices={model_devices} does not divide the {local} devices of a process: "
                "give another --model-devices."
            )
        if batch % (count // model_devices):
            raise ValueError(
                f"batch_size={batch} can't be divided over {count // model_devices} devices "
                f"({count}, model_devices={model_devices}): give another --batch-size."
            )
        grid = np.array(devices).reshape(-1, model_devices)
        self._mesh = Mesh(grid, ("data", "model"), axis_types=(AxisType.Auto,) * 2)
        self._whole = NamedSharding(self._mesh, P())
        self._replicate = jax.jit(lambda tree: tree, out_shardings=self._whole)

    def members(self, tree: Tree) -> Tree:
        return jax.tree.map(lambda x: _put(x, self._sharding(x)), tree)

    def shared(self, tree: Tree) -> Tree:
        return jax.tree.map(lambda x: _put(x, self._whole), tree)

    def images(self, tree: Tree) -> Tree:
        """Divides them over all devices; zeros fill up the last one."""

        def put(x: np.ndarray) -> jax.Array:
            fill = -len(x) % self._mesh.size
            padded = np.concatenate([x, np.zeros((fill, *x.shape[1:]), x.dtype)]) if fill else x
            return _put(padded, NamedSharding(self._mesh, P(("data", "model"))))

        return jax.tree.map(put, tree)

    def batch(self, tree: Tree) -> Tree:
        sharding = NamedSharding(self._mesh, P("data"))
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)

    def rows(self, batch: int) -> slice:
        size = batch // jax.process_count()
        return slice(jax.process_index() * size, (jax.process_index() + 1) * size)

    def spread(self, tree: Tree) -> Tree:
        """Divides them over `data` if they can be divided evenly."""
        data = self._mesh.shape["data"]
        sharding = NamedSharding(self._mesh, P("data"))
        return jax.tree.map(
            lambda x: x if len(x) % data else jax.lax.with_sharding_constraint(x, sharding), tree
        )

    def compiled(
        self, function: Callable[..., Any], axes: str, donate: tuple[int, ...] = ()
    ) -> Any:
        together = _vmapped(function, axes)

        def placed(*arguments: Any) -> Any:
            return jax.tree.map(
                lambda x: jax.lax.with_sharding_constraint(x, self._sharding(x)),
                together(*arguments),
            )

        return jax.jit(placed, donate_argnums=donate)

    def on_host(self, tree: Tree) -> Tree:
        return jax.device_get(self._replicate(tree))

    def _sharding(self, x: jax.Array) -> NamedSharding:
        """By shape alone, (members, ..., inputs, filters): flip state is placed like its weight."""
        divided = x.ndim > 2 and x.size // len(x) >= LARGE
        if divided and x.shape[-1] % self._mesh.shape["model"] == 0:
            return NamedSharding(self._mesh, P(*[None] * (x.ndim - 1), "model"))
        return self._whole


Layout = MembersApart | BatchApart


def _vmapped(function: Callable[..., Any], axes: str) -> Callable[..., Any]:
    return jax.vmap(function, tuple(0 if a == "m" else None for a in axes))


def _put(x: Any, sharding: NamedSharding) -> jax.Array:
    """Puts on each device its part of `x`, which every process has."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        plain = _put(jax.random.key_data(x), sharding)
        return jax.jit(jax.random.wrap_key_data, out_shardings=sharding)(plain)
    array = np.asarray(x)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
