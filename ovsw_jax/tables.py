"""Tables as text, Markdown and HTML, and `ovsw.table` of what `ovsw.flip_metrics` returns."""

import dataclasses
import html
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Table:
    """A table that shows itself in terminals, notebooks and documents.

    Attributes:
      header: a name per column, in two lines for terminals: the upper may be empty.
      rows: a cell per column.
      total: the last row, set apart; empty if there is none.
      text_columns: columns that are words, which stand at the left.
      notes: lines below.
    """

    header: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[str]]
    total: Sequence[str] = ()
    text_columns: Sequence[int] = (0,)
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        """The table for a terminal."""
        upper, lower = ([names[i] for names in self.header] for i in (0, 1))
        total = [self.total] if self.total else []
        head = [upper, lower] if any(upper) else [lower]
        columns = zip(*head, *self.rows, *total, strict=True)
        widths = [max(map(len, column)) for column in columns]
        rule = "-" * (sum(widths) + 2 * len(widths) - 2)
        lines = [self._line(cells, widths) for cells in head]
        lines += [rule, *(self._line(row, widths) for row in self.rows)]
        if self.total:
            lines += [rule, self._line(self.total, widths)]
        lines += ["", *self.notes] if self.notes else []
        return "\n".join(line.rstrip() for line in lines)

    def to_markdown(self) -> str:
        """The table in Markdown."""
        marks = ["---" if i in self.text_columns else "---:" for i in range(len(self.header))]
        rows = [[cell.replace("|", "\\|") for cell in row] for row in self.rows]
        if self.total:
            rows.append([f"**{cell}**" if cell else "" for cell in self.total])
        lines = ["| " + " | ".join(cells) + " |" for cells in (self._names(), marks, *rows)]
        return "\n".join([*lines, "", *self.notes] if self.notes else lines)

    def _repr_html_(self) -> str:
        """The table for a notebook."""
        head = self._html(self._names(), "th")
        body = [self._html(row, "td") for row in self.rows]
        if self.total:
            body.append(self._html(self.total, "th"))
        notes = "<br>\n".join(map(html.escape, self.notes))
        table = (
            f"<table>\n<thead>\n{head}\n</thead>\n<tbody>\n{chr(10).join(body)}\n</tbody>\n</table>"
        )
        return table + (f"\n<p>{notes}</p>" if notes else "")

    def _names(self) -> list[str]:
        return [" ".join(filter(None, names)) for names in self.header]

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        return "  ".join(
            cell.ljust(width) if i in self.text_columns else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )

    def _html(self, cells: Sequence[str], tag: str) -> str:
        aligned = ("left" if i in self.text_columns else "right" for i in range(len(cells)))
        made = (
            f'<{tag} style="text-align: {side}">{html.escape(cell)}</{tag}>'
            for side, cell in zip(aligned, cells, strict=True)
        )
        return f"<tr>{''.join(made)}</tr>"


def table(metrics: Mapping[str, Mapping[str, Any]]) -> Table:
    """Shows metrics by layer as a table, such as those of `ovsw.flip_metrics`.

    Args:
      metrics: from the name of each layer, and `"total"`, to numbers by their names. Those whose
        name ends with `_ratio` are shown in percent, if no value of them is above 1.

    Returns:
      A table with a row per layer and a column per metric, and the total below. Print it, leave it
      at the end of a notebook's cell, or call `to_markdown()`.

    Raises:
      TypeError: if `metrics` is no such mapping, or holds no numbers, as those of a function that
        is traced.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> params = {"conv": {"latent_kernel": jnp.ones((3, 3, 8, 4))}}
      >>> print(ovsw.table(ovsw.flip_metrics(ovsw.track_flip_state().init(params))))
      layer  flip_ratio  silent_ratio  never_flipped_ratio
      ----------------------------------------------------
      conv          0 %         100 %                100 %
      ----------------------------------------------------
      total         0 %         100 %                100 %

    Source: ours.
    """
    numbers = _numbers(metrics)
    names = list(dict.fromkeys(name for of_layer in numbers.values() for name in of_layer))
    shares = {
        name
        for name in names
        if name.endswith("_ratio")
        and all(not of_layer.get(name, 0) > 1 for of_layer in numbers.values())
    }
    rows = {
        layer: [
            layer,
            *(_cell(of_layer.get(name), name in shares) for name in names),
        ]
        for layer, of_layer in numbers.items()
    }
    total = rows.pop("total", [])
    return Table([("", name) for name in ("layer", *names)], list(rows.values()), total)


def percent(share: float | None) -> str:
    """A share in percent, and nothing for one that has no meaning; 100 % is all, 0 % is none.

    >>> percent(0.12345), percent(0.99999), percent(1e-7), percent(1.0), percent(None)
    ('12.3 %', '>99.9 %', '<0.1 %', '100 %', '')
    """
    if share is None:
        return ""
    if 0 < share < 0.001 or 0.999 < share < 1:
        return "<0.1 %" if share < 0.5 else ">99.9 %"
    return f"{100 * share:.3g} %"


def _numbers(metrics: Any) -> dict[str, dict[str, float]]:
    is_nested = isinstance(metrics, Mapping) and all(
        isinstance(of_layer, Mapping) for of_layer in metrics.values()
    )
    if not is_nested or not any(metrics.values()):
        raise TypeError(
            f"metrics={metrics!r} is no dict of dicts with numbers: give what "
            "ovsw.flip_metrics(opt_state) returns."
        )
    return {
        str(layer): {str(name): _number(layer, name, x) for name, x in of_layer.items()}
        for layer, of_layer in metrics.items()
    }


def _number(layer: Any, name: Any, x: Any) -> float:
    if isinstance(x, jax.core.Tracer):
        raise TypeError(
            f"metrics of {layer!r} are traced: return them from the compiled function, and call "
            "ovsw.table on what it returns."
        )
    try:
        array = np.asarray(x, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"metrics[{layer!r}][{name!r}]={x!r} is no number.") from error
    if array.shape:
        raise TypeError(
            f"metrics[{layer!r}][{name!r}] has shape {array.shape}, and must be one number: take "
            "one member of a vmap by jax.tree.map(lambda x: x[0], metrics)."
        )
    return float(array)


def _cell(x: float | None, is_share: bool) -> str:
    if x is None:
        return ""
    return percent(x) if is_share else f"{x:.4g}"
