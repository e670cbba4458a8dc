"""What the page of several runs says: their table, and their curves over each other."""

from collections.abc import Sequence
from typing import Any

from experiments.report.html.arms import MOST_LINES, look
from experiments.report.html.curves import CURVES, MOST_NUMBERS, line, title_of
from experiments.report.listing import HEADS, NUMBERS, Line


def runs_content(folder: str, shown: Sequence[Line], unread: Sequence[str]) -> dict[str, Any]:
    """The page's dict; a line of the curves is a row of the table, of the first ones if many."""
    drawn = shown[:MOST_LINES]
    runs = len({line.name for line in shown})
    notes = []
    if len(drawn) < len(shown):
        notes.append(f"The curves are of the first {len(drawn)} of {len(shown)} rows.")
    return {
        "title": f"Runs in {folder}",
        "verdict": f"{runs} run{'s' * (runs != 1)}: a row for each optimizer, in sweeps its best.",
        "table": {
            "heads": list(HEADS),
            "rows": [list(line.cells) for line in shown],
            "numbers": list(NUMBERS),
        },
        "notes": notes,
        "arms": [
            {
                "key": f"{one.name} {one.arm}",
                "name": f"{one.name}: {one.run.name(one.arm)}",
                **look(one.run.known_arms[one.arm].optimizer, number),
            }
            for number, one in enumerate(drawn)
        ],
        "curves": _curves(drawn),
        "unread": list(unread),
    }


def _curves(drawn: Sequence[Line]) -> list[dict[str, Any]]:
    points = MOST_NUMBERS // max(1, 2 * len(CURVES) * len(drawn))
    charts = []
    for metric, title, fraction in CURVES:
        held = [(i, one) for i, one in enumerate(drawn) if one.run.holds(metric)]
        titles = {title_of(one.run.config, metric, title) for _, one in held}
        if held:
            charts.append(
                {
                    "title": " or ".join(sorted(titles)).replace(" or Test", " or test"),
                    "unit": "%" if fraction else "",
                    "lines": [
                        {"arm": i, **line(one.run, one.arm, metric, fraction, points)}
                        for i, one in held
                    ],
                }
            )
    return charts
