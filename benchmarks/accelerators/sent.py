"""What the chips of a slice send each other in a step, by the text of its program."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from experiments.accelerators.program_text import Instruction, parse, shape_bytes

_COLLECTIVE = re.compile(
    r"(all-reduce|all-gather|reduce-scatter|(?:ragged-)?all-to-all|collective-permute"
    r"|collective-broadcast)(?:-start)?"
)
_ARRAY = re.compile(r"\b(?:pred|[a-z]+\d\w*)\[[\d,]*\]")


@dataclass(frozen=True)
class Sent:
    """Arrays of one shape in collectives of one kind.

    Attributes:
      kind: such as "all-reduce".
      shape: of what a device then has, as text: "bf16[3,3,64,64]".
      arrays: how many.
      bytes: of all of them.
    """

    kind: str
    shape: str
    arrays: int
    bytes: int


def sent(text: str) -> tuple[Sent, ...]:
    """All that collectives of a program give a device, most bytes first."""
    found: Counter[tuple[str, str]] = Counter()
    for computation in parse(text).computations.values():
        for instruction in computation.values():
            if matched := _COLLECTIVE.fullmatch(instruction.opcode):
                found.update((matched[1], shape) for shape in _results(instruction))
    rows = (Sent(*key, n, n * shape_bytes(key[1])) for key, n in found.items())
    return tuple(sorted(rows, key=lambda row: (-row.bytes, row.kind, row.shape)))


def _results(instruction: Instruction) -> Iterator[str]:
    """Shapes of its results, without the operands that the start of one gives back."""
    arrays = _ARRAY.findall(instruction.shape)
    gives_back = instruction.opcode.endswith("-start") and instruction.opcode != "all-reduce-start"
    yield from arrays[len(arrays) // 2 :] if gives_back else arrays
