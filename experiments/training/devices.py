"""Where the members of a sweep train, and how many at once."""

import os
from collections.abc import Iterable, Sequence

import jax

from experiments.config import Config
from experiments.training.sharding import BatchApart, Layout, MembersApart
from experiments.training.step import Steps

USABLE = 0.8  # of a device's memory: the rest is for evaluation and fragmentation


def one_device_a_core() -> None:
    """Makes a JAX device of every CPU core, with one thread each.

    Small networks gain little from two cores on one operation, and `vmap` over weights makes
    grouped convolutions, which XLA's CPU backend does slowly: members side by side are faster
    (docs/results/costs.md). Does nothing where devices are set already or a backend has started.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" in flags or "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    try:
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    except RuntimeError:  # too late
        return
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()


def members_that_fit(steps: Steps, varying: Iterable[str], devices: Sequence[jax.Device]) -> int:
    """Members to train in one step: one a device on CPU, as many as memory holds elsewhere."""
    if devices[0].platform == "cpu":
        return len(devices)
    limit = (devices[0].memory_stats() or {}).get("bytes_limit", 0)
    return len(devices) * members_in(limit, steps.bytes_a_member(varying))


def members_in(memory: int, bytes_a_member: int) -> int:
    """Members that a device with so many bytes of memory holds; at least one."""
    return max(1, int(USABLE * memory / bytes_a_member))


def layout_for(config: Config, members: int, devices: Sequence[jax.Device] | None = None) -> Layout:
    """How `members` that train together lie on the devices; None is all that there are.

    Raises:
      ValueError: if the devices can't be divided as the config says.
    """
    devices = jax.devices() if devices is None else devices
    if config.spread == "batch":
        return BatchApart(devices, config.model_devices, config.batch_size, fsdp=config.fsdp)
    return MembersApart(devices_for(members, devices))


def devices_for(members: int, devices: Sequence[jax.Device]) -> Sequence[jax.Device]:
    """As many devices as take the same number of members each.

    >>> len(devices_for(6, range(4))), len(devices_for(5, range(4)))
    (3, 1)
    """
    return devices[: max(d for d in range(1, len(devices) + 1) if members % d == 0)]
