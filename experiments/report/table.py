"""A run in numbers: what summary.json holds, and the tables made of it.

Every number is taken at the last epoch that all seeds of an arm finished (top-1: the last of them
that was evaluated), as mean and sample standard deviation (n - 1) over the seeds. An arm is an
optimizer, or one of its settings in a sweep.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.optimizers import display_name
from experiments.report import epochs_to_match
from experiments.run import silence
from experiments.run.reader import TOP1, TOP5, Run, read_run, sample_std

Summary = Mapping[str, Mapping[str, Any]]

# Key of summary.json, key of metrics.jsonl, head of the column; a run has a column for what its
# rows hold.
_COLUMNS = (
    ("top1", TOP1, "top-1 %"),
    ("top5", TOP5, "top-5 %"),
    ("never_flipped", "never_flipped_ratio", "never flipped %"),
    ("silent", "silent_ratio", "silent %"),
)


def summarise(run: Run) -> dict[str, dict[str, Any]]:
    """Key of an arm -> what it is and what came out.

    `top1`, `never_flipped` and `silent` are fractions per seed, in the order of `seeds`; top1 is
    None where it was not evaluated yet; `top5` is there where it was measured, and the last two
    only where weights are binary, with `silence_horizon` and the `steps` that were run.
    `to_match_sgd` is the share of the training until top-1
    first reaches `sgd_top1`, the mean with which SGD ends, None if it never does; both are there
    only in runs with SGD to compare with.
    """
    return {arm: _summary_of(run, arm) for arm in run.arms}


def _summary_of(run: Run, arm: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        key: _finite(run.final(arm, metric))
        for key, metric, _ in _COLUMNS
        if metric == TOP1 or run.holds(metric)
    }
    found |= {
        "seeds": run.seeds(arm),
        "epochs": run.last_epoch(arm),
        "finished": run.finished(arm),
    }
    if run.is_sweep:
        found |= {
            "optimizer": run.known_arms[arm].optimizer,
            "point": run.known_arms[arm].point,
            "name": run.name(arm),
        }
    if (silent := silence.of_arm(run, arm)) is not None:
        found |= {"silence_horizon": silent.horizon, "steps": silent.steps}
    if run.top1_epoch(arm) != run.last_epoch(arm):
        found["top1_epoch"] = run.top1_epoch(arm)
    if diverged := run.diverged(arm):
        found["diverged_seeds"] = diverged
    if (level := epochs_to_match.level(run, arm)) is not None:
        found |= {"sgd_top1": level, "to_match_sgd": epochs_to_match.shares(run, arm)}
    return found


def _finite(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def spread(fractions: Sequence[float | None], *, count: bool = True) -> str:
    """Mean ± sample std in percent and the number of seeds; one seed has no std.

    >>> spread([0.95, 0.97]), spread([0.95]), spread([0.95, 0.97], count=False), spread([None])
    ('96.0 ± 1.4 (n = 2)', '95.0 (n = 1)', '96.0 ± 1.4', 'not yet')
    """
    known = [value for value in fractions if value is not None]
    if not known:
        return "not yet"
    values = 100 * np.array(known, np.float64)
    std = sample_std(values)
    plus_minus = "" if std is None else f" ± {float(std):.1f}"
    return f"{values.mean():.1f}{plus_minus}" + (f" (n = {len(values)})" if count else "")


def table(source: Path | Summary) -> str:
    """The results as a markdown table, a row per optimizer or setting.

    Of a sweep, the best top-1 of each optimizer that was compared at several settings is bold.

    Raises:
      FileNotFoundError, ValueError: as `experiments.run.reader.read_run`.
    """
    summary = _load(source)
    heads, aligned = _heads(summary)
    best = _best(summary)
    lines = [heads, ["---:" if right else "---" for right in aligned]]
    for arm, cells in _cells(summary):
        lines.append([f"**{cell}**" if arm in best and i < 2 else cell for i, cell in cells])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def rows(summary: Summary) -> tuple[list[str], list[dict[str, Any]]]:
    """The same table: heads, and rows with their `cells` and whether they are `best`."""
    best = _best(summary)
    return _heads(summary)[0], [
        {"cells": [cell for _, cell in cells], "best": arm in best}
        for arm, cells in _cells(summary)
    ]


def print_table(source: Path | Summary, console: Console | None = None) -> None:
    """The same table on the terminal."""
    summary = _load(source)
    best = _best(summary)
    title = "Last epoch, mean ± std over seeds" + "; best in bold" * bool(best)
    rich_table = Table(title=title, caption=silence_sentences(summary) or None)
    for head, right in zip(*_heads(summary), strict=True):
        if _is_wide(summary):
            head = head.replace("never ", "never\n")  # narrow, for the names
        rich_table.add_column(head, justify="right" if right else "left", no_wrap=right)
    for arm, cells in _cells(summary):
        rich_table.add_row(*(cell for _, cell in cells), style="bold" if arm in best else None)
    (console or Console()).print(rich_table)


def silence_sentences(summary: Summary) -> str:
    """The silence horizon beside the steps that were run, in words."""
    return silence.sentences(
        [
            silence.Silence(result["silence_horizon"], result["steps"])
            for result in summary.values()
            if "silence_horizon" in result
        ]
    )


def is_sweep(summary: Summary) -> bool:
    """Whether an optimizer has several settings in it."""
    return any(result.get("point") for result in summary.values())


def _load(source: Path | Summary) -> Summary:
    return source if isinstance(source, Mapping) else summarise(read_run(Path(source)))


def _heads(summary: Summary) -> tuple[list[str], list[bool]]:
    """Heads of the columns, and which hold numbers."""
    names = [head for _, head in _columns(summary)]
    numbers = [True] * len(names)
    first = "setting" if is_sweep(summary) else "optimizer"
    if _is_wide(summary):
        return [first, *names, "n"], [False, *numbers, True]
    return [first, *names], [False, *numbers]


def _is_wide(summary: Summary) -> bool:
    """Whether n has a column of its own, so that 80 columns hold the table."""
    return is_sweep(summary) or len(_columns(summary)) > 3


def _columns(summary: Summary) -> list[tuple[str, str]]:
    held = {key for result in summary.values() for key in result}
    return [(key, head) for key, _, head in _COLUMNS if key in held]


def _cells(summary: Summary) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """Key of the arm, and its cells with their column: 0 is the name, 1 top-1."""
    wide = _is_wide(summary)
    for arm, result in summary.items():
        # Rows that stopped early must not look comparable.
        note = "" if result.get("finished", True) else f" ({_reached(result)})"
        note += f" ({len(result['diverged_seeds'])} diverged)" if "diverged_seeds" in result else ""
        cells = [
            result.get("name", display_name(arm)) + note,
            *(spread(result[key], count=not wide) for key, _ in _columns(summary)),
        ]
        yield arm, list(enumerate([*cells, str(len(result["top1"]))] if wide else cells))


def _reached(result: Mapping[str, Any]) -> str:
    seeds = len(result["top1"])
    found = f"unfinished: {seeds} seed{'s' * (seeds > 1)}, epoch {result['epochs']}"
    if result.get("top1_epoch") is not None:
        found += f", top-1 of epoch {result['top1_epoch']}"
    return found


def best_arms(summary: Summary) -> dict[str, str]:
    """Optimizer -> key of its arm with the highest mean top-1, of those that did not diverge."""
    by_optimizer: dict[str, dict[str, float]] = {}
    for arm, result in summary.items():
        known = [value for value in result["top1"] if value is not None]
        if known and "diverged_seeds" not in result:
            means = by_optimizer.setdefault(result.get("optimizer", arm), {})
            means[arm] = sum(known) / len(known)
    return {name: max(means, key=means.__getitem__) for name, means in by_optimizer.items()}


def _best(summary: Summary) -> set[str]:
    """Keys of the best arms, of optimizers that were compared at several settings."""
    return {arm for arm in best_arms(summary).values() if summary[arm].get("point")}
