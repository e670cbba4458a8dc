"""What the benchmarks share: interleaved repeats, ratios within a repeat, tables and files.

Ways to do a thing are measured in turns (A B C A B C ...), so that a drift of the machine meets
all alike, and compared within a turn: a table shows the median of such ratios, and their spread.
"""

import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

QUARTILES = (0.25, 0.75)
RANGE = (0.0, 1.0)
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")
# Variables of the environment that change speed.
_VARIABLES = ("XLA_FLAGS", "LD_PRELOAD", "OMP_NUM_THREADS", "TF_NUM_INTEROP_THREADS")


def interleaved(ways: Mapping[str, Callable[[], T]], repeats: int) -> dict[str, list[T]]:
    """Calls every way in turn, `repeats` times.

    Args:
      ways: what measures, by name.
      repeats: how many times, at least 1.

    Returns:
      By name, what each way returned, in order.

    Raises:
      ValueError: if `repeats` is less than 1.

    >>> interleaved({"A": lambda: 1, "B": lambda: 2}, 3)
    {'A': [1, 1, 1], 'B': [2, 2, 2]}
    """
    check_positive(repeats=repeats)
    measured: dict[str, list[T]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, measure in ways.items():
            measured[name].append(measure())
    return measured


def ratios(
    measured: Mapping[str, Sequence[float]],
    name: str,
    base: str,
    ends: tuple[float, float] = QUARTILES,
) -> tuple[float, float, float]:
    """Lower end, median and upper end of the ratios of `name` to `base` within a repeat.

    >>> ratios({"A": [1.0, 2.0, 4.0], "B": [2.0, 2.0, 2.0]}, "A", "B")
    (0.75, 1.0, 1.5)
    """
    within = np.divide(measured[name], measured[base])
    low, median, high = np.quantile(within, [ends[0], 0.5, ends[1]])
    return float(low), float(median), float(high)


def spread(
    measured: Mapping[str, Sequence[float]],
    name: str,
    base: str,
    ends: tuple[float, float] = QUARTILES,
) -> str:
    """The ratios as text.

    >>> spread({"A": [1.0, 2.0, 4.0], "B": [2.0, 2.0, 2.0]}, "A", "B")
    '1.00 (0.75 to 1.50)'
    """
    low, median, high = ratios(measured, name, base, ends)
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def median(values: Sequence[float]) -> float:
    """Median of the values."""
    return float(np.median(values))


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a Markdown table, row by row; the first column is of names, the others of numbers."""
    print(f"| {' | '.join(heads)} |")
    print("| --- |" + " ---: |" * (len(heads) - 1))
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def environment() -> dict[str, Any]:
    """What a measurement depends on beside the code: device, cores, versions, variables.

    Nothing that names a machine or a place on it.
    """
    import jax

    return {
        "device": jax.devices()[0].device_kind,
        "processor": _processor(),
        "cores": cores(),
        "python": platform.python_version(),
        "versions": {name: v for name in _PACKAGES if (v := _version(name)) is not None},
        "variables": {
            name: re.sub(r"[^\s=:]*/", "", value)  # files without their folders
            for name, value in os.environ.items()
            if name in _VARIABLES or name.startswith(("JAX_", "MALLOC_", "TCMALLOC_"))
        },
    }


def describe(found: Mapping[str, Any]) -> str:
    """An environment in a line, for above a table."""
    versions = ", ".join(
        f"{name} {found['versions'][name]}"
        for name in ("jax", "torch")
        if name in found["versions"]
    )
    return f"{found['device']} ({found['processor']}), {found['cores']} cores, {versions}"


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def write_json(file: Path | None, **written: Any) -> None:
    """Writes what was measured, with the environment, unless `file` is None."""
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"environment": environment(), **written}, indent=2)
    file.write_text(text + "\n", encoding="utf-8")


def check_positive(**counts: int) -> None:
    """Raises ValueError unless all are at least 1."""
    for name, count in counts.items():
        if count < 1:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} {count} measures nothing: it must be at least 1.")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's model where the system tells it, else its architecture."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return found[1] if found else platform.machine()
