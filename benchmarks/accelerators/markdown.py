"""Tables in Markdown, and what their readings were made with."""

from collections.abc import Iterator, Sequence
from typing import Any

Table = Iterator[Sequence[str]]  # rows, of which the first is the head

_NAMES = {  # columns of words; others are of numbers
    "network", "dtype", "phase", "optimizer", "code", "kind", "slice", "way", "shape", "of",
}  # fmt: skip


def table(rows: Table) -> list[str]:
    """Lines of Markdown."""
    head, *body = rows
    lines = [f"| {' | '.join(cells)} |" for cells in body]
    rule = "".join("| --- " if name in _NAMES else "| ---: " for name in head) + "|"
    return [f"| {' | '.join(head)} |", rule, *lines, ""] if body else ["Not compiled.\n"]


def made_with(records: Sequence[dict[str, Any]]) -> str:
    """Versions of the packages, and dates."""
    versions = {f"{name} {v}" for record in records for name, v in record["versions"].items()}
    dates = sorted({record["date"] for record in records})
    return f"{', '.join(sorted(versions))}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}"
