"""Several processes that train together, one per host or device; with one, all is trivial."""

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
HEARTBEAT = 30  # seconds of silence after which a process counts as gone
# How collectives, the coordinator and Orbax's barriers report a missing process.
_LOST = re.compile(
    r"Gloo|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|[Cc]oordination ?[Ss]ervice|[Bb]arrier"
)


class RefusedError(Exception):
    """The run can't begin; another process says why."""


def join(address: str | None = None, count: str | None = None, number: str | None = None) -> None:
    """Waits for the other processes; call before JAX starts a backend.

    Args:
      address: HOST:PORT where the first one listens; None asks the cluster for it and for the rest.
      count: of processes.
      number: of this one, from 0 on.

    Raises:
      ValueError: if JAX knows no cluster, nobody listens, or the port is taken.
    """
    if address is not None:
        if number == "0":
            _check_free(address)
        else:
            _await(address)
    in_one_order()
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
            f"no other processes were found ({error}): this is no job of SLURM, Open MPI, "
            "Kubernetes or a TPU pod. Give --coordinator HOST:PORT --processes N --process I, or "
            "--local N for processes of this machine."
        ) from error
    finally:
        note.cancel()


def in_one_order() -> None:
    """Makes all devices of a CPU send in the same order; call before JAX starts a backend.

    Else one may wait for a sum while another waits for the next, which takes forever.
    """
    flag, flags = (
        "--xla_cpu_enable_concurrency_optimized_scheduler",
        os.environ.get("XLA_FLAGS", ""),
    )
    if flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}=false".strip()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _check_free(address: str) -> None:
    """Raises ValueError if the port is taken; JAX would crash."""
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
    """Waits until the first process listens; JAX would abort without a helpful message."""
    host, _, port = address.rpartition(":")
    begun, said = time.monotonic(), False
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:  # also an unknown name
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
    without_paths = re.sub(r"\S*/\S*", "", str(error))  # a file name may hold "barrier"
    return _LOST.search(without_paths) is not None


def alone() -> bool:
    """Whether this is the only process."""
    return jax.process_count() == 1


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def wait(for_what: str) -> None:
    """Waits until every process is here."""
    if not alone():
        multihost_utils.sync_global_devices(for_what)


def gather(values: Sequence[int]) -> np.ndarray:
    """(processes, values) int32, the values of every process; all must call it at the same step."""
    if alone():
        return np.asarray([values], np.int32)
    return np.asarray(multihost_utils.process_allgather(np.asarray(values, np.int32)))


@contextmanager
def agreed() -> Iterator[None]:
    """Wraps what every process does before a run begins: if one fails, none continues.

    Raises:
      ValueError, OSError: raised inside, in the first process that failed.
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
