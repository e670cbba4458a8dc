"""Devices that are absent, opened by their compilers: TPU slices and H100s.

A compiler is an ordinary package that runs anywhere. What it needs to know of the device comes from
the package itself (TPUs) or from a file beside this one (`h100.txtpb`).
"""

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
from jax.experimental import topologies

Platform = Literal["tpu", "cuda"]


@dataclass(frozen=True)
class Chip:
    """What is known of a kind of device without having one.

    Attributes:
      platform: of its compiler.
      memory: bytes of a device.
      clock: cycles a second, by which estimated cycles become seconds; None where the compiler
        estimates no cycles.
      example: a target of this kind.
    """

    platform: Platform
    memory: int
    clock: float | None
    example: str


# Memory: "HBM capacity per chip" in Google's pages of the TPU versions; the H100's is of the SXM
# form. Google publishes no clocks. These are its peak in bfloat16 over what its matrix units do in
# a cycle, two operations a product: v5e 197 Tflop/s by 4 units of 128 x 128, v5p 459 Tflop/s by
# two cores with 4 such units each. That of v6e is not confirmed: by 918 Tflop/s and 2 units of 256
# x 256 it would be 3.5 GHz, but libtpu's estimate for a product of two 8192 x 8192 matrices is
# 369,000 operations a cycle, where these units do 262,000. With two products a cycle and unit it
# is 1.75 GHz.
CHIPS: dict[str, Chip] = {
    "v5e": Chip("tpu", 16 * 10**9, 1.5e9, "v5e:2x2"),
    "v5p": Chip("tpu", 95 * 10**9, 1.75e9, "v5p:2x2x1"),
    "v6e": Chip("tpu", 32 * 10**9, 1.75e9, "v6e:2x2"),
    "h100": Chip("cuda", 80 * 10**9, None, "h100:8"),
}

# What each compiler is; versions are pinned by benchmarks/accelerators/environments.sh.
_PACKAGES: dict[Platform, tuple[str, str]] = {
    "tpu": ("libtpu", 'pip install "jax[tpu]"'),
    "cuda": (
        "jax_plugins.xla_cuda12",
        "pip install jax-cuda12-plugin jax-cuda12-pjrt nvidia-cuda-nvcc-cu12",
    ),
}

# Without these libtpu asks the network which machine it is on, or refuses to be loaded while
# another process has it.
_LIBTPU_VARIABLES = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# There is no device to try kernels on.
_OPTIONS: dict[Platform, dict[str, int]] = {"tpu": {}, "cuda": {"xla_gpu_autotune_level": 0}}


@dataclass(frozen=True)
class Target:
    """Devices to compile for.

    Attributes:
      name: as it was asked for, such as "v5e:2x2".
      platform: of the compiler, "tpu" or "cuda".
      devices: all of them; nothing runs there, but shardings can name them.
      memory: bytes of one device.
      clock: cycles a second; None: the compiler estimates no cycles.
    """

    name: str
    platform: Platform
    devices: tuple[jax.Device, ...]
    memory: int
    clock: float | None

    @property
    def compiler_options(self) -> dict[str, int]:
        """For `jax.stages.Lowered.compile`."""
        return _OPTIONS[self.platform]


def platform_of(name: str) -> Platform:
    """Platform of a target's compiler.

    Raises:
      ValueError: if the target is unknown.

    >>> platform_of("v5e:16x16"), platform_of("h100")
    ('tpu', 'cuda')
    """
    return _parse(name)[0].platform


def open_target(name: str) -> Target:
    """Opens devices that are absent.

    Args:
      name: a TPU slice as "v5e:2x2", "v5p:4x4x4" or "v6e:16x16", or "h100" for one H100, "h100:8"
        for eight of one process.

    Raises:
      ValueError: if the target is unknown.
      ModuleNotFoundError: if its compiler is not installed.
    """
    chip, layout = _parse(name)
    _check_installed(name, chip.platform)
    if not os.environ.get("JAX_PLATFORMS"):
        # Else JAX would look for the plugin's devices when it starts; has no effect after that.
        jax.config.update("jax_platforms", "cpu")
    devices = _open_tpu(name) if chip.platform == "tpu" else _open_h100(layout)
    return Target(name, chip.platform, tuple(devices), chip.memory, chip.clock)


def _parse(name: str) -> tuple[Chip, str]:
    """The kind of device and what follows its name."""
    kind, _, layout = name.partition(":")
    chip = CHIPS.get(kind)
    shape = r"\d+(x\d+)+" if chip and chip.platform == "tpu" else r"([1-9]\d*)?"
    if chip is None or not re.fullmatch(shape, layout) or name.endswith(":"):
        examples = ", ".join(known.example for known in CHIPS.values())
        raise ValueError(
            f"target {name!r} is unknown: use a TPU slice of the kinds v5e, v5p and v6e with its "
            f"shape, or h100 with a number of devices, such as {examples}."
        )
    return chip, layout


def _check_installed(name: str, platform: Platform) -> None:
    package, command = _PACKAGES[platform]
    try:
        found = importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of the package that it is in
        found = False
    if not found:
        raise ModuleNotFoundError(
            f"target {name!r} needs its compiler, the package {package}, which is not installed "
            f"here: {command}. It needs no device. benchmarks/accelerators/environments.sh makes "
            "environments that have it."
        )


def _open_tpu(name: str) -> list[jax.Device]:
    for variable, value in _LIBTPU_VARIABLES.items():
        os.environ.setdefault(variable, value)
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"libtpu has no slice {name!r}: {error}") from error


def _open_h100(count: str) -> list[jax.Device]:
    description = Path(__file__).with_name("h100.txtpb").read_text(encoding="utf-8")
    return topologies.get_topology_desc(
        platform="cuda", topology_name="", target_config=description, topology=f"1x1x{count or 1}"
    ).devices
