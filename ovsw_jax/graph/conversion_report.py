"""What `ovsw.binarize` makes of each layer of a network, and why."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx

from ovsw_jax.graph.binarizable import obstacles
from ovsw_jax.graph.binarize import candidates, check_arguments
from ovsw_jax.graph.module_tree import Path, modules
from ovsw_jax.graph.summary import summary
from ovsw_jax.graph.where import Refinement, Where
from ovsw_jax.latent import LATENT_KEY
from ovsw_jax.tables import Table, percent

_BECOMES = {nnx.Conv: "BinaryConv", nnx.Linear: "BinaryDense"}
_BECOMES |= {nnx.LinearGeneral: "BinaryLinearGeneral"}


@dataclasses.dataclass(frozen=True)
class LayerConversion:
    """What becomes of one layer.

    Attributes:
      name: its path.
      kind: name of its class.
      becomes: name of the binary class that replaces it, or None.
      why: why it stays as it is; empty if it does not.
      macs: multiply-accumulates of it, as `ovsw.summary` counts them; None without an input.
    """

    name: str
    kind: str
    becomes: str | None
    why: str
    macs: int | None


@dataclasses.dataclass(frozen=True)
class ConversionReport:
    """What becomes of all layers, which `ovsw.binarize_report` makes.

    Attributes:
      rows: one per layer with a kernel, in the order of assignment.
      other_macs: multiply-accumulates outside of these layers; None without an input.
    """

    rows: tuple[LayerConversion, ...]
    other_macs: int | None

    @property
    def binary_share(self) -> float | None:
        """The share of multiply-accumulates that become binary; None without an input."""
        if self.other_macs is None:
            return None
        total = self.other_macs + sum(row.macs or 0 for row in self.rows)
        return sum(row.macs or 0 for row in self.rows if row.becomes) / max(1, total)

    def to_dict(self) -> dict[str, Any]:
        """The report as nested dicts and lists, which JSON can hold."""
        return {
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "other_macs": self.other_macs,
            "binary_share": self.binary_share,
        }

    def __str__(self) -> str:
        """A table for a terminal, with the share of multiply-accumulates below."""
        return str(self._table())

    def to_markdown(self) -> str:
        """The table in Markdown."""
        return self._table().to_markdown()

    def _repr_html_(self) -> str:
        """The table for a notebook."""
        return self._table()._repr_html_()

    def _table(self) -> Table:
        names = ["layer", "type", "becomes", *([] if self.other_macs is None else ["MAC"]), "why"]
        cells = [
            [
                row.name or "(model)",
                row.kind,
                row.becomes or "-",
                *([] if row.macs is None else [f"{row.macs:,}"]),
                row.why,
            ]
            for row in self.rows
        ]
        text = [i for i, name in enumerate(names) if name != "MAC"]
        binary = sum(row.becomes is not None for row in self.rows)
        note = f"{binary} of {len(self.rows)} layers become binary"
        if self.binary_share is not None:
            note += f", with {percent(self.binary_share)} of the multiply-accumulates"
            if self.other_macs:
                note += f"; {self.other_macs:,} of them are in no such layer"
        return Table([("", name) for name in names], cells, (), text, [f"{note}."])


def binarize_report(
    model: nnx.Module, *inputs: Any, where: Where | None = None, **options: Any
) -> ConversionReport:
    """Says what `ovsw.binarize` makes of each layer of a network, and why.

    Nothing is converted or run. Every module with a parameter of two axes or more has a row, those
    that no binary layer can replace too, such as `nnx.ConvTranspose`: where `ovsw.binarize` raises
    an error, the reason is in the row.

    Args:
      model: the network; may be abstract, as `nnx.eval_shape` makes it.
      *inputs: as of `ovsw.summary`, to count multiply-accumulates; none: they are not counted. The
        shape of one input can be given as `input_shape=`.
      where: as of `ovsw.binarize`.
      **options: as of `ovsw.binarize`.

    Returns:
      The report: print it, or look at `rows` and `binary_share`.

    Raises:
      TypeError, ValueError: as `ovsw.binarize` and `ovsw.summary`, except for layers that can't be
        replaced.

    Example:
      >>> import ovsw_jax as ovsw
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0)
      >>> model = nnx.Sequential(
      ...     nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)
      ... )
      >>> print(ovsw.binarize_report(model, (1, 4)))
      layer     type    becomes      MAC  why
      ---------------------------------------------------
      layers/0  Linear  -             32  the first layer
      layers/1  Linear  BinaryDense   64
      layers/2  Linear  -             16  the last layer
      <BLANKLINE>
      1 of 3 layers become binary, with 57.1 % of the multiply-accumulates.

    Source: ours.
    """
    if "input_shape" in options:
        inputs = (options.pop("input_shape"), *inputs)
    check_arguments(model, where, options, "ovsw.binarize_report")
    asked, selected = candidates(model, where)
    blocked = obstacles(model, selected, options)
    chosen = {path for path, _ in selected}
    counted = summary(model, *inputs) if inputs else None
    macs = {} if counted is None else {r.name: r.binary_macs + r.float_macs for r in counted.rows}
    rows = []
    for path, layer in modules(model):
        if not _has_kernel(layer):
            continue
        why = _why(path, layer, [p for p, _ in asked], chosen, blocked, where)
        becomes = next((b for kind, b in _BECOMES.items() if isinstance(layer, kind)), None)
        name = "/".join(map(str, path))
        rows.append(
            LayerConversion(
                name,
                type(layer).__name__,
                None if why else becomes,
                why,
                None if counted is None else macs.pop(name, 0),
            )
        )
    return ConversionReport(tuple(rows), None if counted is None else sum(macs.values()))


def _has_kernel(layer: nnx.Module) -> bool:
    held = [x for x in vars(layer).values() if isinstance(x, nnx.Param)]
    return any(
        getattr(x, "ndim", 0) >= 2 for param in held for x in jax.tree.leaves(param.get_raw_value())
    )


def _why(
    path: Path,
    layer: nnx.Module,
    asked: Sequence[Path],
    chosen: set[Path],
    blocked: dict[Path, str],
    where: Where | None,
) -> str:
    """Why a layer stays as it is; empty if it becomes binary."""
    if path in blocked:
        return f"can't: {blocked[path]}"
    if path in chosen:
        return ""
    kind = type(layer).__name__
    if path not in asked:
        if hasattr(layer, LATENT_KEY):
            return "is binary already"
        if isinstance(layer, nnx.LinearGeneral):
            return "becomes binary only by a where= that is a plain function"
        if isinstance(layer, nnx.Embed):
            return "looks entries up and multiplies nothing"
        return f"no binary layer replaces a {kind}"
    by_default = where is None or isinstance(where, Refinement)
    if by_default and path in (asked[0], asked[-1]):
        return "the first layer" if path == asked[0] else "the last layer"
    refined = where.refusal(path, layer) if isinstance(where, Refinement) else None
    return f"{refined or getattr(where, '__name__', 'where')} is False"
