"""What a compiler says of a compiled program: memory, bytes, cycles, kernels, collectives.

These are estimates, or counts of what the compiler wrote; nothing has run.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from experiments.accelerators.kinds import kind_of
from experiments.accelerators.program_text import Instruction, ProgramText, parse

_COLLECTIVE = re.compile(
    r"(all-reduce|all-gather|reduce-scatter|all-to-all|ragged-all-to-all|collective-permute"
    r"|collective-broadcast)(-start)?"
)


@dataclass(frozen=True)
class Collectives:
    """All collectives of one kind.

    Attributes:
      count: how many.
      bytes: that a device gives or gets, whichever is more, in all of them.
    """

    count: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Row:
    """Instructions of the same kind from the same operation of the source.

    Attributes:
      kind: one of `kinds.KINDS`.
      source: the operation, with the innermost function of the source that is known.
      count: how many.
      cycles: that the compiler estimates for all of them; 0 if it does not.
      bytes: of their operands and results.
    """

    kind: str
    source: str
    count: int
    cycles: int
    bytes: int


@dataclass(frozen=True)
class Reading:
    """What is said of a program, of one device.

    Attributes:
      arguments: bytes of the arguments.
      temporaries: bytes beside arguments and results, at the peak. On GPUs without the workspaces
        of convolutions, which are chosen on the device.
      output: bytes of the results.
      alias: bytes of results that lie where arguments lay.
      moved: bytes read and written; the TPU compiler's count, or ours for GPUs: operands and
        results of each kernel.
      flops: floating-point operations, by the TPU compiler; 0 for GPUs.
      cycles: by the TPU compiler's estimate, the sum over all instructions; 0 for GPUs.
      kernels: instructions that launch something, copies and collectives included. A body of a
        loop counts once, here as in bytes and cycles, and of branches only the longest.
      collectives: by kind, wherever in the program.
      where: what takes the cycles and moves the bytes, most first.
    """

    arguments: int
    temporaries: int
    output: int
    alias: int
    moved: int
    flops: int
    cycles: int
    kernels: int
    collectives: Mapping[str, Collectives]
    where: tuple[Row, ...] = field(repr=False)

    @property
    def peak(self) -> int:
        """Bytes of a device that the program needs at once, at most."""
        return self.arguments + self.output - self.alias + self.temporaries

    def by_kind(self) -> dict[str, tuple[int, int, int]]:
        """Cycles, bytes and instructions of each kind, most first."""
        sums: dict[str, tuple[int, int, int]] = {}
        for row in self.where:
            cycles, moved, count = sums.get(row.kind, (0, 0, 0))
            sums[row.kind] = (cycles + row.cycles, moved + row.bytes, count + row.count)
        return dict(sorted(sums.items(), key=lambda item: item[1], reverse=True))


def read(compiled: Any) -> Reading:
    """Reads a program that `compile_for` compiled."""
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    program = parse(compiled.as_text())
    where = _where(program)
    return Reading(
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        output=memory.output_size_in_bytes,
        alias=memory.alias_size_in_bytes,
        moved=int(cost.get("bytes accessed", sum(row.bytes for row in where))),
        flops=int(cost.get("flops", 0)),
        cycles=sum(row.cycles for row in where),
        kernels=sum(row.count for row in where),
        collectives=_collectives(program),
        where=where,
    )


def read_text(text: str) -> tuple[dict[str, Collectives], tuple[Row, ...]]:
    """Collectives and rows of a program's text alone."""
    program = parse(text)
    return _collectives(program), _where(program)


def _where(program: ProgramText) -> tuple[Row, ...]:
    rows: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for computation, instruction in program.top_level():
        if not instruction.launches:
            continue
        moved = instruction.result_bytes + program.operand_bytes(computation, instruction)
        row = rows[kind_of(program, instruction), _source(program, instruction)]
        for i, number in enumerate((instruction.cycles, moved, 1)):
            row[i] += number
    ordered = sorted(rows.items(), key=lambda item: item[1], reverse=True)
    return tuple(
        Row(kind, source, count, cycles, moved)
        for (kind, source), (cycles, moved, count) in ordered
    )


def _source(program: ProgramText, instruction: Instruction) -> str:
    """Such as "conv_general_dilated in convolve"; the opcode where nothing is known."""
    parts = (instruction, *program.parts(instruction))
    named = next((part for part in parts if "/" in part.op_name), None)
    if named is None:
        return instruction.opcode
    frames = program.frames(named)
    function = f" in {frames[0].rpartition(':')[2].split('.')[0]}" if frames else ""
    return named.op_name.rpartition("/")[2] + function


def _collectives(program: ProgramText) -> dict[str, Collectives]:
    found: dict[str, Collectives] = {}
    for name, computation in program.computations.items():
        for instruction in computation.values():
            if not (matched := _COLLECTIVE.fullmatch(instruction.opcode)):
                continue
            given, got = program.operand_bytes(name, instruction), instruction.result_bytes
            if matched[2] and matched[1] != "all-reduce":
                got -= given  # the start of one gives its operands back, too
            known = found.get(matched[1], Collectives())
            found[matched[1]] = Collectives(known.count + 1, known.bytes + max(given, got))
    return found
