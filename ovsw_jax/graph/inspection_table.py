"""The result of `ovsw.inspect`, layer by layer, as numbers, as verdicts and as a table."""

import dataclasses
from typing import Any

import jax
import numpy as np

from ovsw_jax.graph.faults import Fault, faults_of
from ovsw_jax.tables import Table, percent

HEADER = (
    ("", "layer"),
    ("", "type"),
    ("inputs", "+1"),
    ("inputs", "constant"),
    ("inputs", "gradient"),
    ("outputs", "constant"),
    ("weights", "blocked"),
    ("not", "finite"),
    ("", "verdict"),
)
TEXT_COLUMNS = (0, 1, 8)
NOTE = (
    "+1: of the signs of the inputs; gradient: inputs whose sign passes one; constant: channels "
    "that are the same for all samples;",
    "blocked: latent weights whose sign passes no gradient; not finite: inputs and weights.",
)

MEASURES = (
    "positive_input_ratio",
    "constant_input_ratio",
    "input_gradient_ratio",
    "constant_output_ratio",
    "blocked_weight_ratio",
    "nonfinite_inputs",
    "nonfinite_weights",
    "negative_input_ratio",
    "input_rms",
    "calls",
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerInspection:
    """Measures of one binary layer.

    A pytree: inside a compiled function `measures` are traced, and what the function returns has
    numbers. Verdicts need numbers.

    Attributes:
      name: path of the layer, as `ovsw.summary` and `ovsw.flip_metrics` name it.
      kind: name of its class.
      input_dtype: dtype of its input; None if it is nowhere called.
      learns_threshold: whether the sign of its input has a learned threshold.
      measures: float32 scalars by name, without those that have no meaning for the layer. Ratios
        are from 0 to 1, over all calls and the whole stack of a layer:

        - `positive_input_ratio`: input signs that are +1.
        - `constant_input_ratio`: input channels whose signs are the same for all samples.
        - `input_gradient_ratio`: inputs with a pseudo-gradient that is not 0.
        - `constant_output_ratio`: output channels that are the same for all samples.
        - `blocked_weight_ratio`: latent weights whose sign passes no gradient.
        - `nonfinite_inputs`, `nonfinite_weights`: how many are NaN or infinite.
        - `negative_input_ratio`: inputs below 0.
        - `input_rms`: root mean square of the finite inputs.
        - `calls`: how often the layer was called, steps of a scan included.
    """

    name: str = dataclasses.field(metadata={"static": True})
    kind: str = dataclasses.field(metadata={"static": True})
    input_dtype: str | None = dataclasses.field(metadata={"static": True})
    learns_threshold: bool = dataclasses.field(metadata={"static": True})
    measures: dict[str, Any]

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What is wrong and what to do about it, the worst first; empty if nothing is.

        Raises:
          TypeError: if the measures are traced.
          ValueError: if they have an axis of `vmap`.
        """
        numbers = self.numbers()
        if not numbers["calls"]:
            return (
                Fault(
                    "is not called",
                    "give inputs that reach it; a layer that no input reaches learns nothing.",
                ),
            )
        return faults_of(numbers, self.input_dtype or "float32", self.learns_threshold)

    @property
    def verdict(self) -> str:
        """What is wrong in words, or "fine"."""
        return "; ".join(fault.what for fault in self.faults) or "fine"

    @property
    def remedy(self) -> str:
        """What to do; empty if nothing is wrong."""
        return " ".join(dict.fromkeys(f"{fault.remedy}" for fault in self.faults))

    def numbers(self) -> dict[str, float]:
        """The measures as Python numbers, in the order of the table.

        Of a layer that is not called, there is the number of calls alone.

        Raises:
          TypeError: if they are traced.
          ValueError: if they have an axis of `vmap`.
        """
        there = [name for name in MEASURES if name in self.measures]
        numbers = {name: _number(self.name, self.measures[name]) for name in there}
        return numbers if numbers["calls"] else {"calls": 0.0}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Inspection:
    """Measures of all binary layers of a network, which `ovsw.inspect` makes.

    A pytree, which a compiled function can return, and `vmap` and `jax.tree.map` can map.

    Attributes:
      rows: one per layer, in the order in which the layers were assigned.
    """

    rows: tuple[LayerInspection, ...]

    @property
    def faults(self) -> dict[str, tuple[Fault, ...]]:
        """What is wrong, by the names of the layers that have faults.

        Raises:
          TypeError, ValueError: as `LayerInspection.faults`.
        """
        found = {row.name: row.faults for row in self.rows}
        return {name: faults for name, faults in found.items() if faults}

    def metrics(self) -> dict[str, dict[str, Any]]:
        """The measures by layer and name, to be logged beside those of `ovsw.flip_metrics`."""
        return {row.name: dict(row.measures) for row in self.rows}

    def to_dict(self) -> dict[str, Any]:
        """Numbers and verdicts as nested dicts and lists, which JSON can hold."""
        return {
            "rows": [
                {
                    "name": row.name,
                    "kind": row.kind,
                    "input_dtype": row.input_dtype,
                    **row.numbers(),
                    "faults": [fault._asdict() for fault in row.faults],
                }
                for row in self.rows
            ]
        }

    def __str__(self) -> str:
        """A table for a terminal, with the remedies below; traced, the names alone."""
        return str(self._table()) if self._is_known() else repr(self)

    def to_markdown(self) -> str:
        """The table in Markdown, with the remedies below."""
        return self._table().to_markdown()

    def _repr_html_(self) -> str | None:
        """The table for a notebook, with the remedies below."""
        return self._table()._repr_html_() if self._is_known() else None

    def _is_known(self) -> bool:
        arrays = jax.tree.leaves(self)
        return not any(isinstance(x, jax.core.Tracer) or np.ndim(x) for x in arrays)

    def _table(self) -> Table:
        layers: dict[str, list[str]] = {}
        for row in self.rows:
            if row.remedy:
                layers.setdefault(row.remedy, []).append(row.name or "(model)")
        remedies = [f"{', '.join(names)}: {remedy}" for remedy, names in layers.items()]
        cells = [_cells(row) for row in self.rows]
        return Table(HEADER, cells, (), TEXT_COLUMNS, (*NOTE, *remedies))


def _cells(row: LayerInspection) -> list[str]:
    numbers = row.numbers()
    lost = sum(numbers.get(name, 0) for name in ("nonfinite_inputs", "nonfinite_weights"))
    return [
        row.name or "(model)",
        row.kind,
        *(percent(numbers.get(name)) for name in MEASURES[:5]),
        f"{lost:,.0f}",
        row.verdict,
    ]


def _number(layer: str, x: Any) -> float:
    if isinstance(x, jax.core.Tracer):
        raise TypeError(
            f"the measures of {layer!r} are traced: return the inspection from the compiled "
            "function, and look at what it returns."
        )
    if np.ndim(x):
        raise ValueError(
            f"the measures of {layer!r} have shape {np.shape(x)}, as vmap makes them: take one "
            "member by jax.tree.map(lambda x: x[0], inspection)."
        )
    return float(x)
