"""A program without floats: what each integer counts, and how numbers are scaled."""

import math

import numpy as np

from ovsw_jax.deploy.c.steps import FIXED, Program, lines_of
from ovsw_jax.deploy.graph import Graph, Kind, Type

# Half the limit of 16 bits, so that numbers may be twice as large as those of the calibration.
_CALIBRATED = 2**14
_MOST_BITS = 24
_LEAST_WEIGHT, _MOST_WEIGHT = 128, 2**15 - 1  # of what the greatest weight becomes
_SCALE_BITS = 30  # of the integers that scale


class IntegerProgram(Program):
    """Steps whose values are integers.

    Attributes:
      greatest: magnitude of each result of the graph, as calibrated.
      bits: for fixed values, n where they count 2^-n.
      scales: for sums, the real number that 1 stands for, one or one per channel.
    """

    def __init__(self, graph: Graph, greatest: np.ndarray):
        """Starts with the input, a fixed value."""
        super().__init__(graph)
        self.greatest = greatest
        self.values = [Type(FIXED, graph.input.shape)]
        self.bits = {0: bits_for(float(greatest[0]))}
        self.scales: dict[int, np.ndarray] = {}
        self.number = 0  # of the result that is being lowered

    def renamed(self, value: int, shape: tuple[int, ...]) -> int:
        """The same memory as a value of another shape."""
        return self.alike(super().renamed(value, shape), value)

    def alike(self, value: int, other: int) -> int:
        """Notes that a value counts what another does."""
        for known in (self.bits, self.scales):
            if other in known:
                known[value] = known[other]  # type: ignore[assignment]
        return value

    def as_kind(self, value: int, kind: Kind) -> int:
        """A value as numbers of another kind; real ones are fixed."""
        given = self.values[value]
        if kind == "float32":
            kind = FIXED
        if given.kind == kind:
            return value
        if kind == FIXED and given.kind == "int32":
            return self.affine(value, np.ones(()), np.zeros(()))
        channels = given.shape[-1] if given.shape else 1
        sizes = f"{math.prod(given.shape[:-1]) // lines_of(given.shape)}, {channels}"
        if kind == FIXED and given.kind == "signs":
            return self._fixed_signs(value, _CALIBRATED)
        if kind == "signs" and given.kind == FIXED:
            code = f"sign_of_fixed($0, $y, {sizes});"
            return self.emit("sign_of_fixed", code, Type("signs", given.shape), lines=(value,))
        if kind == "signs" and given.kind == "int32":
            limits = self.constants.array(np.zeros(channels, np.int32))
            code = f"threshold($0, {limits}, NULL, $y, {sizes});"
            return self.emit("threshold", code, Type("signs", given.shape), lines=(value,))
        raise self.refusal(
            f"the operation {self.node.op} on {given.kind} with integers alone",
            "Leave out integer=True.",
        )

    def affine(self, x: int, scale: np.ndarray, offset: np.ndarray) -> int:
        """Fixed numbers that are x * scale + offset, of sums or of fixed numbers."""
        given = self.values[x]
        one = self.scales[x] if given.kind == "int32" else np.asarray(2.0 ** -self.bits[x])
        return self._scaled(x, one * scale, offset, bits_for(float(self.greatest[self.number])))

    def _rescaled(self, x: int, bits: int) -> int:
        """Fixed numbers with other bits behind the point."""
        return self._scaled(x, np.asarray(2.0 ** -self.bits[x]), np.zeros(()), bits)

    def _scaled(self, x: int, scale: np.ndarray, offset: np.ndarray, bits: int) -> int:
        given = self.values[x]
        channels = given.shape[-1] if given.shape else 1
        factors = np.broadcast_to(scale * 2.0**bits, channels)
        integers, shift = scaled(factors)
        exact = np.broadcast_to(np.asarray(offset, np.float64), channels) * 2.0 ** (bits + shift)
        offsets = np.rint(exact).astype(np.int64) + (1 << (shift - 1))
        kernel = "sums_to_fixed" if given.kind == "int32" else "fixed_affine"
        names = f"{self.constants.array(integers)}, {self.constants.array(offsets)}"
        sizes = f"{math.prod(given.shape[:-1]) // lines_of(given.shape)}, {channels}"
        code = f"{kernel}($0, {names}, {shift}, $y, {sizes});"
        y = self.emit(kernel, code, Type(FIXED, given.shape), lines=(x,))
        self.bits[y] = bits
        return y

    def factor(self, x: int, terms: int) -> tuple[int, int]:
        """An operand of sums of so many products, and how large weights may be for 32 bits."""
        if self.values[x].kind == "signs":
            return self._fixed_signs(x, 1), _MOST_WEIGHT
        x, room = self.as_kind(x, "float32"), 2**16 // terms
        missing = max(0, math.ceil(math.log2(_LEAST_WEIGHT / room))) if room else 16
        if missing:
            x, room = self._rescaled(x, self.bits[x] - missing), 2 ** (16 + missing) // terms
        return x, min(room - 1, _MOST_WEIGHT)

    def _fixed_signs(self, x: int, one: int) -> int:
        given = self.values[x]
        channels = given.shape[-1] if given.shape else 1
        sizes = f"{math.prod(given.shape[:-1]) // lines_of(given.shape)}, {channels}"
        code = f"signs_to_fixed($0, {one}, $y, {sizes});"
        y = self.emit("signs_to_fixed", code, Type(FIXED, given.shape), lines=(x,))
        self.bits[y] = one.bit_length() - 1
        return y


def bits_for(greatest: float) -> int:
    """The n for which numbers of this magnitude fit as multiples of 2^-n."""
    if not greatest > 0:
        return 14
    return min(_MOST_BITS, math.floor(math.log2(_CALIBRATED / greatest)))


def scaled(factors: np.ndarray) -> tuple[np.ndarray, int]:
    """Integers and a shift: x * factor is about x * integer / 2^shift."""
    greatest = max(float(np.abs(factors).max()), 2.0**-40)
    shift = min(max(_SCALE_BITS - math.ceil(math.log2(greatest)), 1), 40)
    limit = np.iinfo(np.int32).max
    return np.rint(np.clip(factors * 2.0**shift, -limit, limit)).astype(np.int32), shift
