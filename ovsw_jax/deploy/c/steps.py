"""What a network computes, step by step: calls of kernels on values that lie in memory."""

import dataclasses
import math
import re
from typing import Any

from ovsw_jax.deploy.c.constants import WORD, Constants
from ovsw_jax.deploy.graph import Graph, Kind, Node, Type

# A kind that no graph has: real numbers that count a power of two.
FIXED: Any = "fixed"
C_TYPES: dict[str, str] = {
    "float32": "f32",
    "int32": "i32",
    "signs": "u32",
    "bool": "u8",
    FIXED: "i16",
}
SIZES: dict[str, int] = {"f32": 4, "i32": 4, "u32": 4, "u8": 1, "i16": 2}


@dataclasses.dataclass(frozen=True)
class Step:
    """One or more calls that give a value.

    Attributes:
      kernels: sections of the sources that it calls.
      code: C, in which $0, $1 ... are what it takes, $y is its result, $line the line that it
        computes, and $scratch memory of its own.
      whole: values that it sees all of; they are the first ones of what it takes.
      lines: values of which it sees the line that it computes.
      result: the value that it gives.
      count: of lines; 0 if it gives all of its result at once.
      scratch: bytes.
      about: layer and operation.
    """

    kernels: tuple[str, ...]
    code: str
    whole: tuple[int, ...]
    lines: tuple[int, ...]
    result: int
    count: int
    scratch: int
    about: str


def comment(text: str) -> str:
    """Text that can't end the comment or the cell of a table that it stands in, nor be filled."""
    return re.sub(r"[^ -~]|[*/](?=[*/])|[|@]", "?", text)


def size_of(value: Type) -> int:
    """Bytes of a value."""
    channels = value.shape[-1] if value.shape else 1
    pixels = math.prod(value.shape[:-1])
    if value.kind == "signs":
        return 4 * pixels * -(-channels // WORD)
    return pixels * channels * SIZES[C_TYPES[value.kind]]


def lines_of(shape: tuple[int, ...]) -> int:
    """How many lines a value has: a line is what differs in the last two axes."""
    return math.prod(shape[:-2])


class Program:
    """Steps and values so far, and which value each result of the graph is."""

    def __init__(self, graph: Graph):
        """Starts with the input, which is value 0."""
        self.graph = graph
        self.constants = Constants()
        self.values: list[Type] = [graph.input]
        self.steps: list[Step] = []
        self.of_result: dict[int, int] = {0: 0}
        self.node = Node("", (), {}, graph.input)
        self._same_memory: dict[int, int] = {}

    def emit(
        self,
        kernels: str | tuple[str, ...],
        code: str,
        result: Type,
        *,
        whole: tuple[int, ...] = (),
        lines: tuple[int, ...] = (),
        at_once: bool = False,
        scratch: int = 0,
    ) -> int:
        """Adds a step; gives its value."""
        self.values.append(result)
        number = len(self.values) - 1
        count = 0 if at_once else lines_of(result.shape)
        names = (kernels,) if isinstance(kernels, str) else kernels
        about = f"{self.node.layer}: {self.node.op}" if self.node.layer else self.node.op
        about = comment(about)
        self.steps.append(Step(names, code, whole, lines, number, count, scratch, about))
        return number

    def renamed(self, value: int, shape: tuple[int, ...]) -> int:
        """The same memory as a value of another shape."""
        self.values.append(Type(self.values[value].kind, shape))
        self._same_memory[len(self.values) - 1] = value
        return len(self.values) - 1

    def root(self, value: int) -> int:
        """The value whose memory this one is."""
        while value in self._same_memory:
            value = self._same_memory[value]
        return value

    def as_kind(self, value: int, kind: Kind) -> int:
        """A value as numbers of another kind."""
        given = self.values[value]
        if given.kind == kind:
            return value
        channels = given.shape[-1] if given.shape else 1
        pixels = math.prod(given.shape[:-1]) // lines_of(given.shape)
        result = Type(kind, given.shape)
        if kind == "float32" and given.kind == "signs":
            code = f"signs_to_floats($0, $y, {pixels}, {channels});"
            return self.emit("signs_to_floats", code, result, lines=(value,))
        if kind == "float32" and given.kind == "int32":
            code = f"sums_to_floats($0, $y, {pixels * channels});"
            return self.emit("sums_to_floats", code, result, lines=(value,))
        if given.kind != "float32":
            return self.as_kind(self.as_kind(value, "float32"), kind)
        if kind == "signs":
            code = f"sign($0, $y, {pixels}, {channels});"
            return self.emit("sign", code, result, lines=(value,))
        code = f"floats_to_sums($0, $y, {pixels * channels});"
        return self.emit("floats_to_sums", code, result, lines=(value,))

    def refusal(self, what: str, remedy: str) -> ValueError:
        """An error that says what can't be written in C, and where it is."""
        where = f"layer {self.node.layer!r}" if self.node.layer else "the network itself"
        return ValueError(f"{where} can't be written in C: {what}. {remedy}")

    def window(
        self, x: int, size: tuple[int, ...], out: tuple[int, ...], a: dict[str, Any], groups: int
    ) -> str:
        """The name of a Window of one or two spatial axes."""
        *spatial, channels = self.values[x].shape
        if len(spatial) > 2:
            raise self.refusal(
                f"the operation {self.node.op} with {len(spatial)} spatial axes",
                "C has kernels for one and two: reshape the input, or use frozen.to_onnx.",
            )
        missing = 2 - len(spatial)
        ones = (1,) * missing

        def both(name: str, default: Any) -> tuple[Any, ...]:
            given = a.get(name) or (default,) * len(spatial)
            return ((default,) * missing) + tuple(given)

        is_signs = self.values[x].kind == "signs"
        depth = -(-channels // WORD) if is_signs else channels
        pads = both("padding", (0, 0))
        return self.constants.struct(
            "Window",
            [
                *ones,
                *spatial,
                depth,
                *ones,
                *size,
                *both("strides", 1),
                pads[0][0],
                pads[1][0],
                *both("dilation", 1),
                out[-2],
                out[-1],
                channels // groups,
            ],
        )
