"""Several processes that train together, one a host or a device; alone, it is trivial."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils


def alone() -> bool:
    """Whether this is the only process."""
    return jax.process_count() == 1


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def wait(for_what: str) -> None:
    """Until every process is here."""
    if not alone():
        multihost_utils.sync_global_devices(for_what)


def gather(values: Sequence[int]) -> np.ndarray:
    """(processes, values) int32, the values of every process; all must call it at the same step."""
    if alone():
        return np.asarray([values], np.int32)
    return np.asarray(multihost_utils.process_allgather(np.asarray(values, np.int32)))


def all_agree(holds: bool) -> bool:
    """Whether it holds in every process."""
    return bool(gather([holds]).all())
