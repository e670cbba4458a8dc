"""The result of `ovsw.summary`, layer by layer, as numbers and as a table."""

import dataclasses
from typing import Any

from ovsw_jax.tables import Table

NOTES = (
    "MAC: multiply-accumulates of convolutions and matrix products alone, zeros of the padding "
    "included."
)

HEADER = (
    ("", "layer"),
    ("", "type"),
    ("", "output"),
    ("1-bit", "params"),
    ("real", "params"),
    ("memory", "stored"),
    ("memory", "training"),
    ("binary", "MAC"),
    ("float", "MAC"),
    ("", "dtype"),
)
TEXT_COLUMNS = (0, 1, 2, 9)


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """Counts of one layer, or of the whole network.

    Attributes:
      name: path of the module, as `ovsw.flip_metrics` names layers. A layer that is held twice is
        named here by the path that was assigned first, there by the alphabetically first one.
      kind: name of its class.
      output_shapes: shape of each array that its first call returns; empty if it is not called.
      binary_params: latent weights; inference stores one bit of each.
      real_params: other parameters.
      stored_bytes: memory of its variables as inference stores them: latent weights as bits,
        rounded up to bytes, with one number per filter for a factor computed from them; other
        parameters and statistics in their dtype.
      training_bytes: memory of its variables, latent weights included, in their dtype; without
        gradients and the optimizer's state.
      binary_macs: multiply-accumulates of signs with signs.
      float_macs: other multiply-accumulates.
      dtype: dtype of the operands of its products, or None if it has none.
    """

    name: str
    kind: str
    output_shapes: tuple[tuple[int, ...], ...]
    binary_params: int
    real_params: int
    stored_bytes: int
    training_bytes: int
    binary_macs: int
    float_macs: int
    dtype: str | None

    @property
    def operations(self) -> float:
        """Operations as papers on binary networks count them: float MAC + binary MAC / 64.

        Source: Liu et al. 2018, Bi-Real Net: a 64-bit word does 64 binary products at once.
        """
        return self.float_macs + self.binary_macs / 64


@dataclasses.dataclass(frozen=True)
class InputSummary:
    """One array that the network was called with.

    Attributes:
      name: its place in the call: the number or keyword of the argument, and the keys inside it.
      shape: batch axis included.
      dtype: name of its dtype.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class ModelSummary:
    """Counts of a network, which `ovsw.summary` makes.

    Attributes:
      input_shape: shape of the input, or of the first, batch axis included.
      input_dtype: its dtype.
      rows: one per layer, in the order in which the layers were assigned.
      total: the sums, with the output of the whole network.
      inputs: the arrays that it was called with.
    """

    input_shape: tuple[int, ...]
    input_dtype: str
    rows: tuple[LayerSummary, ...]
    total: LayerSummary
    inputs: tuple[InputSummary, ...] = ()

    def __str__(self) -> str:
        """A table for a terminal, with the exact totals below."""
        return str(self._table())

    def to_markdown(self) -> str:
        """The table in Markdown, with the exact totals below."""
        return self._table().to_markdown()

    def _repr_html_(self) -> str:
        """The table for a notebook, with the exact totals below."""
        return self._table()._repr_html_()

    def _table(self) -> Table:
        rows = [_cells(row) for row in self.rows]
        return Table(HEADER, rows, _cells(self.total), TEXT_COLUMNS, self._notes())

    def to_dict(self) -> dict[str, Any]:
        """The exact numbers as nested dicts and lists, which JSON can hold."""
        return {
            "input_shape": list(self.input_shape),
            "input_dtype": self.input_dtype,
            "inputs": [dataclasses.asdict(x) | {"shape": list(x.shape)} for x in self.inputs],
            "rows": [_plain(row) for row in self.rows],
            "total": _plain(self.total),
        }

    def _notes(self) -> list[str]:
        total = self.total
        return [
            f"{self._inputs()}. "
            f"{total.binary_params:,} 1-bit and {total.real_params:,} real parameters;",
            f"{total.stored_bytes:,} bytes stored for inference, {total.training_bytes:,} in "
            "training;",
            f"{total.binary_macs:,} binary and {total.float_macs:,} float MAC.",
            NOTES,
        ]

    def _inputs(self) -> str:
        if [x.name for x in self.inputs] in ([], ["0"]):
            return f"Input {_shape(self.input_shape)} {self.input_dtype}"
        given = [f"{x.name}: {_shape(x.shape)} {x.dtype}" for x in self.inputs]
        return f"Inputs {', '.join(given)}"


def _plain(row: LayerSummary) -> dict[str, Any]:
    shapes = [list(shape) for shape in row.output_shapes]
    return dataclasses.asdict(row) | {"output_shapes": shapes, "operations": row.operations}


def _cells(row: LayerSummary) -> list[str]:
    return [
        row.name or "(model)",
        row.kind,
        ", ".join(map(_shape, row.output_shapes)),
        _short(row.binary_params),
        _short(row.real_params),
        _short(row.stored_bytes, "B"),
        _short(row.training_bytes, "B"),
        _short(row.binary_macs),
        _short(row.float_macs),
        row.dtype or "",
    ]


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _short(number: int, unit: str = "") -> str:
    """A count in four digits, as 9,408 or 36.86k or 1.677G; nothing for 0."""
    if number < 10_000:
        return f"{number:,}{unit}" if number else ""
    scaled, thousands = float(number), 0
    while scaled >= 999.95:
        scaled, thousands = scaled / 1000, thousands + 1
    digits = 4 - len(str(int(scaled)))
    return f"{scaled:.{digits}f}{'kMGTPE'[thousands - 1]}{unit}"
