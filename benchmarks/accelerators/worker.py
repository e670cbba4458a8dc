"""Compiles programs for one target and prints what its compiler says, a line of JSON each.

    python -m benchmarks.accelerators.worker v5e:2x2 '[["small", "ours", "sgd", "bfloat16"]]' [-v]

Run by the Python of the environment that has the target's compiler. With -v it prints tables
instead of JSON.
"""

import json
import sys
import time
from dataclasses import asdict
from typing import Any

import jax

from benchmarks.accelerators.programs import Program, compile_program
from experiments.accelerators import Reading, open_target, read


def main(target_name: str, programs: list[list[str]], verbose: bool = False) -> None:
    """Compiles one program after another.

    Args:
      target_name: as for `open_target`.
      programs: arguments of `Program`.
      verbose: print tables.
    """
    target = open_target(target_name)
    for arguments in programs:
        program = Program(*arguments)  # type: ignore[arg-type]  # names from the command line
        started = time.perf_counter()
        reading = read(compile_program(program, target))
        seconds = time.perf_counter() - started
        jax.clear_caches()  # programs share nothing, and memory would grow
        if verbose:
            _print(f"{target_name} {program.name}, compiled in {seconds:.0f} s", reading)
        else:
            record: dict[str, Any] = {
                "target": target_name,
                "devices": len(target.devices),
                "program": asdict(program),
                "seconds_to_compile": round(seconds, 1),
                "reading": asdict(reading),
            }
            print(json.dumps(record), flush=True)


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
