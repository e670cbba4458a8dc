"""Writing into a run folder: whole or not at all, and an error says what helps."""

import contextlib
import io
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np


class WriteError(OSError):
    """A file or folder of a run can't be written; says which, why, and what helps."""

    def __init__(self, path: Path, run: Path, error: Exception):
        super().__init__(
            f"{path} can't be written: {reason(error)}. Nothing written before is lost: make "
            f"room, or fix the cause, and the command of the run with --out {run} resumes it."
        )


@contextlib.contextmanager
def writing(path: Path, run: Path) -> Iterator[None]:
    """Turns an OSError inside into a WriteError for `path` of the run folder `run`."""
    try:
        yield
    except OSError as error:
        raise WriteError(path, run, error) from error


@contextlib.contextmanager
def written_whole(path: Path, run: Path) -> Iterator[Path]:
    """Yields a path to write to instead of `path`, and moves the file there at the end.

    If that fails, or the process is killed, `path` keeps its old content.

    Raises:
      WriteError: if it can't be written.
    """
    unfinished = path.with_name(f".{path.name}")
    try:
        with writing(path, run):
            yield unfinished
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())  # else a power failure may leave an empty file
            unfinished.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()  # the disk may be full
        raise


def write_arrays(
    path: Path, run: Path, arrays: Mapping[str, np.ndarray], *, compressed: bool = False
) -> None:
    """Writes an npz file, whole or not at all.

    It is assembled in memory: older versions of NumPy leave an unwritable zip file open, which
    complains again when it is collected.

    Raises:
      WriteError: if it can't be written.
    """
    content = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(content, **arrays)  # type: ignore[arg-type]
    with written_whole(path, run) as unfinished:
        unfinished.write_bytes(content.getvalue())


def reason(error: Exception) -> str:
    """The cause of an error of Python or TensorStore, in the system's words if it has an errno."""
    code = system_error(error)
    return str(error) if code is None else os.strerror(code)


def system_error(error: Exception) -> int | None:
    """The errno, if there is one."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"os_error_code='(\d+)'", str(error))  # as TensorStore tells it
    return int(found[1]) if found else None
