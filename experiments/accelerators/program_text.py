"""The text of a compiled program (HLO), parsed: instructions, what they call, and their source."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

_BYTES = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16}  # others say their bits: f32, s8, u4, f8e4m3

_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|true_computation|false_computation"
    r"|branch_computations|called_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
_TABLE_ROW = re.compile(r"(\d+) (?:\"(.*)\"|\{(.*)\})$")

# Instructions that only name, group or wait for what is in memory anyway.
_NOTHING = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id",
    "replica-id", "opt-barrier", "add-dependency",
}  # fmt: skip
_NOTHING_CALLED = {"AllocateBuffer", "Sharding", "GatherScatterIndicesBitpacked"}
_CONTROL = {"while", "conditional", "call", "async-start"}


@dataclass(frozen=True)
class Instruction:
    """One line of a program.

    Attributes:
      name: its own.
      shape: of its result, as text.
      opcode: what it does: "fusion", "convolution", "all-reduce-start".
      operands: names of its arguments.
      called: names of the computations that it runs or is made of.
      rest: arguments and attributes, as text.
    """

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    called: tuple[str, ...]
    rest: str

    @property
    def result_bytes(self) -> int:
        """Size of its result, of all parts of a tuple, without what a layout pads."""
        return shape_bytes(self.shape)

    @property
    def op_name(self) -> str:
        """The operation in the source that it comes from; "" if the compiler does not say."""
        return self.attribute(r'op_name="((?:[^"\\]|\\.)*)"')

    @property
    def cycles(self) -> int:
        """Cycles that the compiler estimates; 0 if it does not."""
        return int(self.attribute(r'"estimated_cycles":"?(\d+)') or 0)

    @property
    def launches(self) -> bool:
        """Whether a device does something for it: a kernel, a copy or a collective."""
        if self.opcode in _NOTHING or re.search(r"-(done|update)$", self.opcode):
            return False
        target = self.attribute(r'custom_call_target="([^"]*)"')
        return self.opcode not in _CONTROL and target not in _NOTHING_CALLED

    def attribute(self, pattern: str) -> str:
        """The first group of a pattern in arguments and attributes; "" if it is not there."""
        found = re.search(pattern, self.rest)
        return found[1] if found else ""


@dataclass(frozen=True)
class ProgramText:
    """All computations of a program.

    Attributes:
      entry: name of the computation that runs.
      computations: instructions of each, by their names.
      tables: of the source: file names, function names, file locations, stack frames.
    """

    entry: str
    computations: dict[str, dict[str, Instruction]]
    tables: dict[str, dict[int, str]]

    def top_level(self, computation: str | None = None) -> Iterator[tuple[str, Instruction]]:
        """What runs, with the computation that it is in.

        Bodies of loops come once, whatever their trip count, and of a conditional's branches the
        one that launches most.
        """
        computation = computation or self.entry
        for instruction in self.computations[computation].values():
            if instruction.opcode == "conditional":
                branches = [list(self.top_level(called)) for called in instruction.called]
                yield from max(branches, key=lambda found: sum(i.launches for _, i in found))
            elif instruction.opcode in _CONTROL:
                for called in instruction.called:
                    yield from self.top_level(called)
            else:
                yield computation, instruction

    def parts(self, instruction: Instruction) -> Iterator[Instruction]:
        """The instructions that a fusion is made of, to any depth."""
        for called in instruction.called:
            for part in self.computations[called].values():
                yield part
                yield from self.parts(part)

    def operand_bytes(self, computation: str, instruction: Instruction) -> int:
        """Size of its operands."""
        known = self.computations[computation]
        return sum(known[name].result_bytes for name in instruction.operands if name in known)

    def frames(self, instruction: Instruction) -> tuple[str, ...]:
        """Where in the source it comes from, as "path/file.py:function", innermost first."""
        frame = instruction.attribute(r"stack_frame_id=(\d+)")
        return self._frames.get(int(frame), ()) if frame else ()

    @cached_property
    def _frames(self) -> dict[int, tuple[str, ...]]:
        found: dict[int, tuple[str, ...]] = {}
        locations, stack = self.tables["FileLocations"], self.tables["StackFrames"]
        for frame, row in stack.items():  # parents come first
            location = locations[_number("file_location_id", row)]
            file = self.tables["FileNames"][_number("file_name_id", location)]
            function = self.tables["FunctionNames"][_number("function_name_id", location)]
            outer = found.get(_number("parent_frame_id", row) - 1, ())  # 1 has none
            found[frame] = (f"{file}:{function}", *outer)
        return found


def parse(text: str) -> ProgramText:
    """Parses what `jax.stages.Compiled.as_text` gives."""
    computations: dict[str, dict[str, Instruction]] = {}
    tables: dict[str, dict[int, str]] = {
        name: {} for name in ("FileNames", "FunctionNames", "FileLocations", "StackFrames")
    }
    entry, current, table = "", {}, None
    for line in text.splitlines():
        if line in tables:
            table = tables[line]
        elif table is not None and (row := _TABLE_ROW.match(line)):
            table[int(row[1])] = row[2] or row[3]
        elif begun := _COMPUTATION.match(line):
            current = computations[begun[2]] = {}
            entry = begun[2] if begun[1] else entry
        elif found := _INSTRUCTION.match(line):
            current[found[1]] = _instruction(*found.groups())
    return ProgramText(entry, computations, tables)


def shape_bytes(shape: str) -> int:
    """Bytes of an array, or of all arrays of a tuple.

    >>> shape_bytes("(bf16[2,3]{1,0:T(8,128)}, f32[], u8[0]{0})")
    16
    """
    arrays = re.findall(r"\b(pred|bf16|[a-z]+\d+\w*)\[([\d,]*)\]", shape)
    return sum(
        math.ceil(_width(dtype) * math.prod(int(n) for n in sizes.split(",") if n))
        for dtype, sizes in arrays
    )


def _instruction(name: str, shape: str, opcode: str, rest: str) -> Instruction:
    called = [n for group in _CALLED.findall(rest) for n in re.findall(r"[\w.\-]+", group)]
    operands = re.findall(r"%([\w.\-]+)", _arguments(rest))
    return Instruction(name, shape, opcode, tuple(operands), tuple(called), rest)


def _arguments(rest: str) -> str:
    """What stands before the parenthesis that closes the arguments."""
    depth = 1
    for position, character in enumerate(rest):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if not depth:
            return rest[:position]
    return rest


def _width(dtype: str) -> float:
    """Bytes of an element."""
    bits = re.match(r"[a-z]+(\d+)", dtype)
    return _BYTES[dtype] if dtype in _BYTES else int(bits[1]) / 8 if bits else 0


def _number(name: str, row: str) -> int:
    found = re.search(rf"\b{name}=(\d+)", row)
    return int(found[1]) if found else 0
