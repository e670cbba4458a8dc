"""Compiles programs for one target and prints what its compiler says, a line of JSON each.

    python -m benchmarks.accelerators.worker v5e:2x2 \
      '[[["small", "ours", "sgd", "bfloat16"], null]]' [-v]

Run by the Python of the environment that has the target's compiler. With -v it prints tables
instead of JSON.
"""

import contextlib
import datetime
import importlib.metadata
import json
import sys
import time
from dataclasses import asdict
from typing import Any

import jax

from benchmarks.accelerators.key import program_key
from benchmarks.accelerators.pods import PodProgram, lower_pod
from benchmarks.accelerators.programs import Program, lower_program
from benchmarks.accelerators.sent import sent
from experiments.accelerators import Reading, Target, compile_lowered, open_target, read

_ROWS = 15  # of a program that are kept


def main(
    target_name: str, programs: list[tuple[list[str], str | None]], verbose: bool = False
) -> None:
    """Compiles one program after another.

    Args:
      target_name: as for `open_target`.
      programs: for each the arguments of `Program`, or of `PodProgram`, which end with "pods"; and
        the key of the program that was read before, which is not compiled again. None for none.
      verbose: print tables, and stop at an error.
    """
    target = open_target(target_name)
    for arguments, read_before in programs:
        made = PodProgram if arguments[-1] == "pods" else Program
        program = made(*arguments)  # type: ignore[arg-type]  # names from the command line
        started = time.perf_counter()
        record: dict[str, Any] = {"name": program.name}
        try:
            lowered = _lower(program, target)
            record["key"] = program_key(lowered)
            if record["key"] == read_before:
                print(json.dumps(record), flush=True)
                continue
            compiled = compile_lowered(target, lowered)
            reading = read(compiled)
            record |= {"devices": len(target.devices), "reading": _shortened(reading)}
            if isinstance(program, PodProgram):
                record["sent"] = [asdict(row) for row in sent(compiled.as_text() or "")]
        except Exception as error:
            if verbose:
                raise
            record["error"] = f"{type(error).__name__}: {error}"
        jax.clear_caches()  # programs share nothing, and memory would grow
        seconds = round(time.perf_counter() - started, 1)
        if verbose:
            _print(f"{target_name} {program.name}, compiled in {seconds} s", reading)
            continue
        record |= {"seconds_to_compile": seconds, "versions": _versions(), "date": _today()}
        print(json.dumps(record), flush=True)


def _lower(program: Program | PodProgram, target: Target) -> Any:
    if isinstance(program, PodProgram):
        return lower_pod(program, target)
    return lower_program(program, target)


def _shortened(reading: Reading) -> dict[str, Any]:
    """The most expensive rows, and of all rows sums by kind: what the compiler estimates."""
    measure = 0 if reading.cycles else 1
    kinds = {kind: sums[measure] for kind, sums in reading.by_kind().items()}
    return asdict(reading) | {"kinds": kinds, "where": [asdict(r) for r in reading.where[:_ROWS]]}


def _versions() -> dict[str, str]:
    """Of all that a reading depends on, where installed."""
    names = (
        "jax",
        "jaxlib",
        "libtpu",
        "jax-cuda12-plugin",
        "nvidia-cuda-nvcc-cu12",
        "flax",
        "optax",
    )
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _print(title: str, reading: Reading) -> None:
    print(f"{title}\n{reading}\n\nkind: cycles, bytes, instructions")
    for kind, sums in reading.by_kind().items():
        print(f"  {kind}: {sums[0]:,}, {sums[1]:,}, {sums[2]:,}")
    print("\ncycles, bytes, count, kind, source")
    for row in reading.where[:40]:
        print(f"{row.cycles:>12,} {row.bytes:>15,} {row.count:>4} {row.kind:18} {row.source}")
    print(flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), verbose="-v" in sys.argv[3:])
