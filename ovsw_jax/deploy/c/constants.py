"""Constants of a network as C: arrays of numbers, and structs."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ovsw_jax.deploy.graph import Signs

LANES = 16  # filters of a block, whose sums are lanes of vectors
WORD = 32  # signs of a word
GREATEST = np.iinfo(np.int32).max


class Constants:
    """The constants so far; what is added twice is there once."""

    def __init__(self) -> None:
        """Starts with none."""
        self.definitions: dict[str, str] = {}
        self.sizes: dict[str, int] = {}  # bytes
        self._names: dict[tuple[str, str], str] = {}

    def array(self, values: np.ndarray) -> str:
        """The name of an array of numbers."""
        kind = _C_TYPES[values.dtype.name]
        written = _wrapped([_WRITTEN[kind](v) for v in values.ravel().tolist()])
        size = values.nbytes
        return self._add("c", f"static const {kind} {{}}[{values.size}] ALIGNED = {written};", size)

    def struct(self, kind: str, fields: Sequence[int | Sequence[int]]) -> str:
        """The name of a struct of integers, and of arrays of them."""
        values = [
            str(f) if isinstance(f, int) else "{" + ", ".join(map(str, f)) + "}" for f in fields
        ]
        size = 4 * sum(1 if isinstance(f, int) else len(f) for f in fields)
        written = "{" + ", ".join(values) + "}"
        return self._add(kind.lower(), f"static const {kind} {{}} = {written};", size)

    def _add(self, prefix: str, definition: str, size: int) -> str:
        key = (prefix, definition)
        if key not in self._names:
            name = f"{prefix}{len(self._names)}"
            before, after = definition.split("{}", 1)
            self._names[key], self.definitions[name] = name, before + name + after
            self.sizes[name] = size
        return self._names[key]


def float_literal(value: float) -> str:
    """The shortest decimal that is a float32 number, as C writes it."""
    if not math.isfinite(value):
        return "NAN" if math.isnan(value) else "INFINITY" if value > 0 else "-INFINITY"
    text = str(np.float32(value))
    return (text if "." in text or "e" in text else text + ".0") + "f"


_C_TYPES = {
    "float32": "f32",
    "int16": "i16",
    "int32": "i32",
    "int64": "int64_t",
    "uint32": "u32",
    "uint16": "uint16_t",
}
_WRITTEN: dict[str, Callable[[Any], str]] = {
    "f32": float_literal,
    "i16": str,
    "int64_t": lambda v: f"{v}" if abs(v) < 2**31 else f"INT64_C({v})",
    "i32": lambda v: str(v) if v > -(2**31) else "INT32_MIN",
    "u32": lambda v: f"0x{v:x}u",
    "uint16_t": lambda v: f"0x{v:x}",
}


def _wrapped(items: Sequence[str]) -> str:
    lines, line = [], "   "
    for item in items:
        if len(line) + len(item) > 97:
            lines.append(line)
            line = "   "
        line += f" {item},"
    return "{\n" + "\n".join([*lines, line]) + "\n}"


# --- how weights lie in memory


def in_blocks(weights: np.ndarray) -> np.ndarray:
    """Weights (filters, steps) as (blocks, steps, LANES), zeros where filters are missing."""
    filters, steps = weights.shape
    blocks = -(-filters // LANES)
    padded = np.zeros((blocks * LANES, steps), weights.dtype)
    padded[:filters] = weights
    return np.ascontiguousarray(padded.reshape(blocks, LANES, steps).transpose(0, 2, 1))


def words(positive: np.ndarray) -> np.ndarray:
    """Bools (..., n) as uint32 (..., ceil(n / WORD)), the first one in the lowest bit."""
    padded = np.zeros((*positive.shape[:-1], -(-positive.shape[-1] // WORD) * WORD), bool)
    padded[..., : positive.shape[-1]] = positive
    packed: np.ndarray = np.packbits(padded, axis=-1, bitorder="little").view("<u4")
    return packed.astype(np.uint32)


def words_of_channels(weights: Signs) -> np.ndarray:
    """Weights (filters, ..., channels), words of each tap: uint32 (filters, words)."""
    return words(weights.positive()).reshape(weights.shape[0], -1)


def words_of_taps(weights: Signs) -> np.ndarray:
    """The same with as many taps in a word as fit: uint32 (filters, words)."""
    filters, channels = weights.shape[0], weights.shape[-1]
    each = WORD // channels
    taps = weights.positive().reshape(filters, -1, channels)
    padded = np.zeros((filters, -(-taps.shape[1] // each) * each, channels), bool)
    padded[:, : taps.shape[1]] = taps
    return words(padded.reshape(filters, -1, each * channels)).reshape(filters, -1)


def bits_of_filters(weights: Signs) -> np.ndarray:
    """Weights (filters, ...) as uint16 (blocks, steps), one bit for each filter of a block."""
    lanes = in_blocks(weights.positive().reshape(weights.shape[0], -1))
    packed: np.ndarray = np.packbits(lanes, axis=-1, bitorder="little").view("<u2")
    return packed[..., 0].astype(np.uint16)


def of_filters(values: np.ndarray, filters: int, missing: float) -> np.ndarray:
    """One number for each filter, up to a multiple of LANES."""
    padded = np.full(-(-filters // LANES) * LANES, missing, values.dtype)
    padded[:filters] = values
    return padded


def shared_length(sizes: Mapping[str, int], most: int = 64) -> int:
    """How many numbers of a line one pass takes where all of them share a constant."""
    return max(n for n in range(1, most + 1) if sizes["line"] % n == 0)
