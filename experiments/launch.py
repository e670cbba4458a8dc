"""Starts this host's part of a run that several processes train together.

On SLURM, Open MPI or a TPU pod JAX finds the other processes. Run on every host:

    python -m experiments.launch cifar10-resnet20 --out DIR

elsewhere with the address at which the first process listens:

    python -m experiments.launch --coordinator 10.0.0.1:1234 --processes 4 --process 2 digits ...

all of them on the CPU of this machine, to try it out:

    python -m experiments.launch --local 4 digits --out DIR

The other arguments are those of `python -m experiments.train`. DIR must be one folder for all
hosts.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType

from experiments.process.safe_stdout import never_fail

LOST = 75  # exit status, EX_TEMPFAIL of sysexits.h: another process is gone
SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 45.0  # seconds for the others to end by themselves

Process = subprocess.Popen[bytes]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options, rest = _parser().parse_known_args(arguments)
    try:
        places = _places(options)
        if len(places) > 1:
            _check(rest)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with _started(places, rest, on_cpu=options.local is not None) as (processes, asked):
        _wait(processes)
    statuses = [process.returncode for process in processes]
    for number in asked:
        if {-number, 128 + number} & set(statuses):
            return 128 + number
    return _report(statuses)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.launch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--coordinator", metavar="HOST:PORT", help="address at which the first process listens"
    )
    parser.add_argument("--processes", type=int, metavar="N", help="number of processes")
    parser.add_argument("--process", type=int, metavar="I", help="number of this process, from 0")
    parser.add_argument(
        "--local", type=int, metavar="N", help="start N processes on this machine's CPU"
    )
    return parser


def _places(options: argparse.Namespace) -> list[list[str]]:
    """Arguments for each process to start: none, or address, count and number.

    Raises:
      ValueError: if the options don't make sense.
    """
    given = {name: getattr(options, name) for name in ("coordinator", "processes", "process")}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if options.local is not None:
        if len(missing) < len(given):
            raise ValueError(
                "--local starts all processes: omit --coordinator, --processes, --process."
            )
        if options.local < 1:
            raise ValueError(f"--local {options.local} is out of range: it must be at least 1.")
        address = f"127.0.0.1:{_free_port()}"
        return [[address, str(options.local), str(i)] for i in range(options.local)]
    if len(missing) == len(given):
        return [[]]
    if missing:
        raise ValueError(
            f"{' and '.join(missing)} must be given as well: with an address, each process needs "
            "the number of processes and its own number."
        )
    if options.processes < 1:
        raise ValueError(f"--processes {options.processes} is out of range: it must be at least 1.")
    if not 0 <= options.process < options.processes:
        raise ValueError(
            f"--process {options.process} is out of range: of {options.processes} processes it "
            f"must be from 0 to {options.processes - 1}."
        )
    host, _, port = options.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(
            f"--coordinator {options.coordinator} is no address: give HOST:PORT, such as "
            "10.0.0.1:1234."
        )
    return [[options.coordinator, str(options.processes), str(options.process)]]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _check(arguments: Sequence[str]) -> None:
    """Raises once what each process would raise."""
    from experiments import train

    train.read(arguments, several=True)


@contextmanager
def _started(
    places: Sequence[Sequence[str]], arguments: Sequence[str], on_cpu: bool
) -> Iterator[tuple[list[Process], list[int]]]:
    """The processes, and the signals that came, which are passed on to each process once.

    The processes end when this one is gone.
    """
    environment = {**os.environ, **({"JAX_PLATFORMS": "cpu"} if on_cpu else {})}
    processes: list[Process] = []
    asked: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for process in processes:
            process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        with ExitStack() as stack:
            for place in places:
                process = subprocess.Popen(
                    [sys.executable, "-m", "experiments.worker", *place, "--", *arguments],
                    stdin=subprocess.PIPE,  # they end when this pipe closes
                    env=environment,
                    start_new_session=True,  # else a terminal's Ctrl-C reaches them twice
                )
                processes.append(stack.enter_context(process))
            yield processes, asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: Sequence[Process]) -> None:
    """Waits until all have ended; GRACE seconds after one has failed, kills the others."""
    failed_at: float | None = None
    while None in (statuses := [process.poll() for process in processes]):
        if failed_at is None and any(statuses):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > GRACE:
            for process in processes:
                process.kill()
        time.sleep(0.05)


def _report(statuses: Sequence[int]) -> int:
    """Prints which were ended from outside; returns the status for all."""
    ended = [i for i, status in enumerate(statuses) if status < 0]
    for i in ended:
        name = signal.Signals(-statuses[i]).name
        which = f"process {i} of {len(statuses)}" if len(statuses) > 1 else "the training process"
        print(f"{which} was ended by {name}", file=sys.stderr)
    own = [status for status in statuses if status > 0 and status != LOST]
    if own:
        return own[0]
    if not ended and LOST not in statuses:
        return 0
    print(
        "error: the run ended, since one of its processes is gone or can't be reached. The same "
        "command, on every host, resumes from its newest checkpoint.",
        file=sys.stderr,
    )
    return LOST


if __name__ == "__main__":
    never_fail()
    sys.exit(main())
