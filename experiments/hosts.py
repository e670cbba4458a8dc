"""Several processes that train together, one a host or a device; alone, it is trivial."""

import os
import re
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

HEARTBEAT = 30  # seconds after which a process that is not heard of counts as gone
# How collectives, the coordinator and Orbax's barriers say that they miss somebody.
_LOST = re.compile(
    r"Gloo|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|[Cc]oordination ?[Ss]ervice|[Bb]arrier"
)


def join(address: str | None = None, count: str | None = None, number: str | None = None) -> None:
    """Waits for the other processes; call before JAX starts a backend.

    Args:
      address: HOST:PORT where the first one listens; None asks the cluster for it and for the rest.
      count: of processes.
      number: of this one, from 0 on.

    Raises:
      ValueError: if there is no cluster that JAX knows.
    """
    # Else XLA's CPU backend orders the sums of a step anew in each process, and they never meet.
    flag = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    try:
        jax.distributed.initialize(
            address,
            None if count is None else int(count),
            None if number is None else int(number),
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    except ValueError as error:
        raise ValueError(
            f"no other processes are to be found ({error}): this is no job of SLURM, Open MPI, "
            "Kubernetes or a TPU pod. Give --coordinator HOST:PORT --processes N --process I, or "
            "--local N for processes of this machine."
        ) from error


def leave() -> None:
    """Waits until every process is done: the first one writes longest."""
    jax.distributed.shutdown()


def says_lost(error: Exception) -> bool:
    """Whether an error says that another process is gone or can't be reached."""
    return _LOST.search(str(error)) is not None and not alone()


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
