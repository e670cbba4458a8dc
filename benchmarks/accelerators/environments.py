"""The Python environments that have the compilers, which `environments.sh` makes."""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from experiments.accelerators import Platform

PROJECT = Path(__file__).parents[2]
_SCRIPT = Path(__file__).with_name("environments.sh")


def make(platforms: Iterable[Platform]) -> None:
    """Makes the environments of these compilers, unless they are there."""
    variables = {"PYTHON": sys.executable, **os.environ}
    subprocess.run([str(_SCRIPT), *platforms], check=True, env=variables)


def python_of(platform: Platform) -> Path:
    """Where an environment's Python is, or would be."""
    folder = os.environ.get("OVSW_ACCELERATORS")
    return (Path(folder) if folder else PROJECT / ".accelerators") / platform / "bin" / "python"


def lines_of(platform: Platform, arguments: Sequence[str]) -> Iterator[str]:
    """What the Python of an environment prints, line by line, with the checkout on its path.

    Raises:
      RuntimeError: if it fails; what it said has gone to stderr.
    """
    kept = {name: v for name, v in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    # The third silences the plugin, which says at length that there is no driver.
    settings = {"PYTHONPATH": str(PROJECT), "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [str(python_of(platform)), *arguments]
    with subprocess.Popen(
        command, env=kept | settings, cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield from process.stdout
    if process.returncode:
        name = " ".join(arguments[:2])
        raise RuntimeError(f"python {name} ended with exit code {process.returncode}; see above.")
