"""What the compilers of TPUs and H100s say of training and evaluation steps; nothing runs.

    python -m benchmarks.accelerators [--targets v5e:2x2 h100] [--networks ResNet20] [--fresh]

Makes the compilers' environments if they are absent (`environments.sh`), compiles one program
after another, and writes readings.json and tables.md to results/accelerators. A program takes 1 to
5 minutes on two cores, and there are about a hundred. Each reading is kept as soon as it is there,
so a second call resumes. What was read before is compiled again only if the program, the compilers
or what reads their answer are others now: finding that out takes seconds a program.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import tyro

from benchmarks.accelerators import cells, tables
from benchmarks.accelerators.pods import WAYS, Way
from benchmarks.accelerators.programs import Code, DtypeName, NetworkName, OptimizerName, Phase
from benchmarks.accelerators.readings import Cell, Readings
from experiments.accelerators import environments, platform_of


def main(
    targets: tuple[str, ...] = cells.TARGETS,
    networks: tuple[NetworkName, ...] = cells.PUBLISHED,
    optimizers: tuple[OptimizerName, ...] = ("sgd", "adam", "ovsw"),
    dtypes: tuple[DtypeName, ...] = cells.DTYPES,
    codes: tuple[Code, ...] = cells.CODES,
    phases: tuple[Phase, ...] = ("training", "evaluation"),
    pods: tuple[str, ...] = (*cells.PODS, cells.SLICE),
    ways: tuple[Way, ...] = WAYS,
    fresh: bool = False,
    out: Path = Path("results/accelerators"),
) -> list[str]:
    """Compiles what is missing and writes the tables.

    Args:
      targets: TPU slices and H100s, such as v5e:16x16 or h100:8. v5e:2x2 and h100 get every
        program, others only training by SGD.
      networks: ImageNet's is ResNet18; "small" is for tries.
      optimizers: of training steps.
      dtypes: of the arithmetic.
      codes: the library's, and plain JAX.
      phases: kinds of steps.
      pods: slices over which a step by OvSW is divided: v5e:16x16, v5p:4x4x4, and v5e:2x2 for a
        small network.
      ways: to divide it.
      fresh: compile all that is chosen, whatever was read before.
      out: folder of readings.json and tables.md. What is not chosen stays as it is.

    Returns:
      The programs that did not compile.
    """
    readings = Readings(out / "readings.json")
    chosen = [
        Cell(target, program)
        for target in targets
        for program in cells.programs_of(target, networks)
        if program.dtype in dtypes and program.code in codes and program.phase in phases
        if program.optimizer in (*optimizers, "none")
    ]
    chosen += [
        Cell(pod, program)
        for pod in pods
        for program in cells.pod_programs_of(pod)
        if program.way in ways
    ]
    known = {cell: None if fresh else readings.key(cell) for cell in chosen}
    print(f"{len(chosen)} programs, {sum(map(bool, known.values()))} read before", flush=True)
    environments.make(dict.fromkeys(platform_of(cell.target) for cell in chosen))
    failed: list[str] = []
    for target in dict.fromkeys(cell.target for cell in chosen):
        asked = {cell: key for cell, key in known.items() if cell.target == target}
        failed += _compile(target, asked, readings)
    tables.write(readings.all(), out)
    return failed


def _compile(target: str, known: Mapping[Cell, str | None], readings: Readings) -> list[str]:
    """Compiles programs for one target unless they are known; returns those that fail."""
    left = {cell.program.name: cell for cell in known}
    asked = json.dumps([(cell.arguments, key) for cell, key in known.items()])
    failed = []
    try:
        worker = ["-m", "benchmarks.accelerators.worker", target, asked]
        for line in environments.lines_of(platform_of(target), worker):
            record = json.loads(line)
            cell = left.pop(record["name"])
            if "error" in record:
                failed.append(f"{target} {cell.program.name}: {record['error']}")
            elif "reading" not in record:
                print(f"{target} {record['name']}: as it was read before", flush=True)
                continue
            else:
                readings.put(cell, record)
            print(f"{target} {record['name']}: {record['seconds_to_compile']} s", flush=True)
    except RuntimeError as error:
        failed += [f"{target} {name}: {error}" for name in left]
    return failed


if __name__ == "__main__":
    failed = tyro.cli(main)
    if failed:
        sys.exit("error: these did not compile\n" + "\n".join(failed))
