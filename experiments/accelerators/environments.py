"""The Python environments that have the compilers.

`benchmarks/accelerators/environments.sh` makes them.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from experiments.accelerators.targets import Platform

PROJECT = Path(__file__).parents[2]
_SCRIPT = PROJECT / "benchmarks" / "accelerators" / "environments.sh"


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
      RuntimeError: as `lines_by`.
    """
    yield from lines_by(python_of(platform), arguments)


def lines_by(python: Path, arguments: Sequence[str], folder: Path = PROJECT) -> Iterator[str]:
    """The same of any Python, which ends when this does.

    Compilers say much of themselves on stderr; it is shown only if the program fails.

    Args:
      python: the program.
      arguments: of it.
      folder: where it runs.

    Raises:
      RuntimeError: if it fails; what it said has gone to stderr.
    """
    with tempfile.TemporaryFile() as said:
        try:
            yield from _lines_by(python, arguments, folder, said)
        except RuntimeError:
            said.seek(0)
            sys.stderr.write(said.read().decode(errors="replace"))
            raise


def _lines_by(
    python: Path, arguments: Sequence[str], folder: Path, stderr: IO[bytes]
) -> Iterator[str]:
    kept = {name: v for name, v in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    path = os.pathsep.join(filter(None, (str(PROJECT), kept.get("PYTHONPATH"))))
    # The third silences the plugin, which says at length that there is no driver.
    settings = {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with subprocess.Popen(
        [str(python), *arguments],
        env=kept | settings,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield from process.stdout
        except BaseException:  # Ctrl-C, or nobody wants the rest: a compiler would go on
            process.kill()
            raise
    if process.returncode:
        name = " ".join(arguments[:2])
        raise RuntimeError(f"python {name} ended with exit code {process.returncode}.")
