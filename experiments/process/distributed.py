"""Several processes that train together, one a host or a device; alone, it is trivial."""

import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils

PATIENCE = 300  # seconds that processes wait for each other to be started
HEARTBEAT = 30  # seconds after which a process that is not heard of counts as gone
# How collectives, the coordinator and Orbax's barriers say that they miss somebody.
_LOST = re.compile(
    r"Gloo|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|[Cc]oordination ?[Ss]ervice|[Bb]arrier"
)


class RefusedError(Exception):
    """Another process says why the run can't begin."""


def join(address: str | None = None, count: str | None = None, number: str | None = None) -> None:
    """Waits for the other processes; call before JAX starts a backend.

    Args:
      address: HOST:PORT where the first one listens; None asks the cluster for it and for the rest.
      count: of processes.
      number: of this one, from 0 on.

    Raises:
      ValueError: if there is no cluster that JAX knows, or nobody listens, or the port is taken.
    """
    if address is not None:
        if number == "0":
            _check_free(address)
        else:
            _await(address)
    # Else XLA's CPU backend orders the sums of a step anew in each process, and they never meet.
    flag = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    note = threading.Timer(5, _say, ["waiting for the other processes to be started"])
    note.start()
    try:
        jax.distributed.initialize(
            address,
            None if count is None else int(count),
            None if number is None else int(number),
            initialization_timeout=PATIENCE,
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    except ValueError as error:
        raise ValueError(
            f"no other processes are to be found ({error}): this is no job of SLURM, Open MPI, "
            "Kubernetes or a TPU pod. Give --coordinator HOST:PORT --processes N --process I, or "
            "--local N for processes of this machine."
        ) from error
    finally:
        note.cancel()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _check_free(address: str) -> None:
    """JAX would crash."""
    port = int(address.rpartition(":")[2])
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # left by a run before
        try:
            probe.bind(("", port))
        except OSError as error:
            raise ValueError(
                f"port {port} of --coordinator can't be listened on ({error.strerror}): give "
                "another one, the same to all processes."
            ) from error


def _await(address: str) -> None:
    """Until the first process listens; JAX would abort without a word that helps."""
    host, _, port = address.rpartition(":")
    begun, said = time.monotonic(), False
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:  # also a name that isn't known, or not yet
            waited = time.monotonic() - begun
            if waited > PATIENCE:
                raise ValueError(
                    f"nobody listens at --coordinator {address} ({error.strerror or error}): it "
                    "must be an address of the first process, started within "
                    f"{PATIENCE} seconds of this one."
                ) from error
            if waited > 5 and not said:
                _say(f"waiting for the first process at {address} ({error.strerror or error})")
                said = True
        time.sleep(0.2)


def leave() -> None:
    """Waits until every process is done: the first one writes longest."""
    jax.distributed.shutdown()


def says_lost(error: Exception) -> bool:
    """Whether an error says that another process is gone or can't be reached."""
    if alone():
        return False
    without_paths = re.sub(r"\S*/\S*", "", str(error))  # where anything may be called a barrier
    return _LOST.search(without_paths) is not None


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


@contextmanager
def agreed() -> Iterator[None]:
    """What every process does before a run begins: if one can't, none goes on.

    Raises:
      ValueError, OSError: what was raised inside, in the first process where it was.
      RefusedError: in the others.
    """
    if alone():
        yield
        return
    error: Exception | None = None
    try:
        yield
    except (ValueError, OSError) as found:
        error = found
    failing = np.flatnonzero(gather([error is not None]))
    if failing.size:
        leave()  # together, so that nobody counts as lost
        if error is not None and failing[0] == jax.process_index():
            raise error
        raise RefusedError


def all_agree(holds: bool) -> bool:
    """Whether it holds in every process."""
    return bool(gather([holds]).all())
