"""Keeps compiled programs from run to run, in a folder of the user's cache.

JAX does the work: a program is found by what it computes, the versions, XLA's flags and the device;
a file lock makes several processes safe; the least recently used programs go when the folder is
full; what can't be read or written costs a warning and a compilation. A loaded program is the one
that was stored, so the numbers are the same bit for bit.
"""

import hashlib
import os
import platform
import tempfile
from pathlib import Path

import jax

MAX_BYTES = 2**30  # a program of a ResNet takes half a megabyte on a CPU
MIN_SECONDS = 0.1  # to compile; a faster compilation takes no longer than a look-up


def keep_compiled_programs() -> str | None:
    """Switches JAX's persistent compilation cache on; call before anything is compiled.

    Does nothing where the user has set JAX_COMPILATION_CACHE_DIR (empty: no cache) or
    JAX_ENABLE_COMPILATION_CACHE=false.

    Returns:
      None, or a line that says why programs can't be kept.
    """
    set_by_user = jax.config.values["jax_compilation_cache_dir"] is not None
    if set_by_user or not jax.config.values["jax_enable_compilation_cache"]:
        return None
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("ovsw_jax", "xla", _processor()):
            folder /= name
            folder.mkdir(mode=0o700, exist_ok=True)
            _check_own(folder)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(2**20))
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        return (
            f"compiled programs are not kept for the next run: {error}. JAX_COMPILATION_CACHE_DIR "
            "names another folder."
        )
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)
    return None


def _check_own(folder: Path) -> None:
    """Raises PermissionError if others can put programs there: they would be run."""
    found = folder.stat()
    if os.name == "posix" and (found.st_uid != os.getuid() or found.st_mode & 0o022):
        raise PermissionError(f"others may write to {folder}, or own it (see chown, chmod go-w)")


def _processor() -> str:
    """A name for this kind of CPU, with its instruction sets.

    A home can be shared by machines of several kinds, and a program of one may use instructions
    that another lacks.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        told = [x for x in lines if x.startswith(("model name", "flags", "Features"))]
    except OSError:  # not Linux
        told = [platform.processor()]
    return f"{platform.machine()}-{hashlib.sha256(''.join(told).encode()).hexdigest()[:12]}"
