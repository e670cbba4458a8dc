"""The allocator's settings: memory that is freed and taken again costs no new pages."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.process import allocator

ROOT = Path(__file__).parents[1]
# Page faults of taking 64 MiB, in a thread as XLA does, after it was taken and freed before.
FAULTS = """
import resource, threading
import numpy as np
from experiments.process.allocator import keep_freed_memory

done = keep_freed_memory()

def take(faults=[]):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**26, np.uint8)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return faults

for _ in range(3):
    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
print(done, take()[2])
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc")


def faults(**environment):
    """Whether the settings were made, and page faults of the third array."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", FAULTS]
    env = {**clean, **environment}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    made, count = done.stdout.split()
    return made == "True", int(count)


@glibc
def test_freed_memory_is_kept_in_all_threads():
    pages = 2**26 // os.sysconf("SC_PAGESIZE")
    made, count = faults()
    assert made
    assert count < pages / 10


@glibc
@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX"])
def test_settings_of_the_user_stay(name):
    made, _ = faults(**{name: "131072"})
    assert not made


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)
    for name in [n for n in os.environ if n.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(name)
    assert not allocator.keep_freed_memory()
