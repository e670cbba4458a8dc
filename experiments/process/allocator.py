"""Makes the C library's allocator keep freed memory, for large short-lived buffers.

XLA's CPU backend takes the temporaries of a compiled step from `malloc` at every call. glibc gets
blocks of that size from the kernel and gives them back at every free, so that each step pays again
for every page: first touch, and zeroing. Pages that stay in the heap are paid for once.
"""

import ctypes
import os
import platform

# Parameters of mallopt(3), from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Lets glibc keep what is freed, in one heap; call before JAX starts a backend.

    No block is mapped by itself (M_MMAP_MAX=0), the heap never shrinks (M_TRIM_THRESHOLD=-1), and
    all threads share the one heap without a bound (M_ARENA_MAX=1): heaps of other threads hold
    64 MiB at most, and XLA allocates in threads of its own. It costs memory: gaps between
    blocks stay.

    Returns:
      Whether it was done: not without glibc, nor if the environment has its own settings
      (MALLOC_TRIM_THRESHOLD_=131072, glibc's default, is a way to switch this off).
    """
    own = any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ
    if own or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(*pair) for pair in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1)))
