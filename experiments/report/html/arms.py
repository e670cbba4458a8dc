"""Which arms of a run a page shows, and how their lines look."""

import math
from typing import Any

from experiments.optimizers import OPTIMIZERS
from experiments.report.html.numbers import best_first
from experiments.run.reader import TOP1, Run

MOST_LINES = 60
MOST_PANELS = 8  # heat maps
_DASHES = {"-": "", "--": "6 4", "-.": "8 3 2 3", ":": "2 3"}


def of_curves(run: Run) -> list[str]:
    """All arms in the config's order, or the best of many."""
    return _best(run, run.arms, MOST_LINES)


def of_panels(run: Run) -> list[str]:
    """The same, or of many the best of each optimizer."""
    if len(run.arms) <= MOST_PANELS:
        return run.arms
    best = [_best(run, run.arms_of(name), 1)[0] for name in run.optimizers]
    return _best(run, best, MOST_PANELS)


def _best(run: Run, arms: list[str], most: int) -> list[str]:
    if len(arms) <= most:
        return arms
    means = [mean_top1(run, arm) for arm in arms]
    kept = {arms[i] for i in best_first(means)[:most]}
    return [arm for arm in arms if arm in kept]


def mean_top1(run: Run, arm: str) -> float:
    """Mean over seeds of the last top-1, a fraction; NaN where it was not evaluated."""
    values = run.final(arm, TOP1)
    return sum(values) / len(values)


def looks(run: Run) -> list[dict[str, Any]]:
    """Key, name, colour and dashes of each arm that was measured, in the config's order."""
    single = len(run.arms) == len(run.optimizers)
    return [
        {
            "key": arm,
            "name": run.name(arm),
            **look(run.known_arms[arm].optimizer, None if single else number),
        }
        for number, arm in enumerate(run.arms)
    ]


def look(optimizer: str, number: int | None) -> dict[str, str]:
    """Colour and dashes: an optimizer has its own, the lines of many settings get hues in turn."""
    row = OPTIMIZERS.get(optimizer)
    line = "-" if row is None else row.look.linestyle
    dash = _DASHES[line] if isinstance(line, str) else " ".join(map(str, line[1]))
    if number is None and row is not None:
        return {"color": row.look.color, "dash": dash}
    hue = math.fmod((number or 0) * 137.5, 360)  # the golden angle: neighbours differ most
    return {"color": f"hsl({hue:g} 60% 42%)", "dash": dash}
