"""What came out of a run, in one sentence."""

import math
from collections.abc import Sequence

import numpy as np

from experiments.report.html.arms import mean_top1
from experiments.report.html.numbers import best_first
from experiments.run.reader import TOP1, Run

NEVER = "never_flipped_ratio"


def verdict(run: Run) -> str:
    """Who is best, by how much, whether seeds tell them apart, and how many weights never flipped.

    The best arm is compared with SGD's best, or, if it is SGD's, with the best of the others.
    """
    known = [arm for arm in run.arms if math.isfinite(mean_top1(run, arm))]
    if not known:
        return "No top-1 was evaluated yet."
    ordered = [known[i] for i in best_first([mean_top1(run, arm) for arm in known])]
    best, *others = ordered
    split = "held-out" if run.config.get("held_out") else "test"
    begin = "" if all(map(run.finished, run.planned_arms)) else "Unfinished; so far: "
    if run.is_sweep:
        begin += f"Best of {len(run.arms)} settings: "
    text = f"{begin}{run.name(best)} reaches {_percent(mean_top1(run, best))} {split} top-1"
    rival = _rival(run, best, others)
    if rival is not None:
        text += _beside(run, best, rival)
    return f"{text}{_flips(run, best, rival)}."


def _rival(run: Run, best: str, others: Sequence[str]) -> str | None:
    """SGD's best arm, or that of another optimizer than SGD; else the second best."""
    of_sgd = run.known_arms[best].optimizer == "sgd"
    wanted = [arm for arm in others if (run.known_arms[arm].optimizer == "sgd") != of_sgd]
    return next(iter([*wanted, *others]), None)


def _beside(run: Run, best: str, rival: str) -> str:
    points = 100 * (mean_top1(run, best) - mean_top1(run, rival))
    more = f"{points:.1f} points more than" if points >= 0.05 else "as much as"
    return f", {more} {run.name(rival)}{_certainty(run, best, rival)}"


def _certainty(run: Run, best: str, rival: str) -> str:
    """The difference in its standard errors, as far as seeds tell."""
    values = [np.array(run.final(arm, TOP1)) for arm in (best, rival)]
    counts = [len(v) for v in values]
    if min(counts) < 2:
        return " (one seed each, so chance is not excluded)" if max(counts) < 2 else ""
    error = math.sqrt(sum(np.var(v, ddof=1) / len(v) for v in values))
    if error == 0:
        return ""
    times = (values[0].mean() - values[1].mean()) / error
    seeds = str(counts[0]) if counts[0] == counts[1] else f"{counts[0]} and {counts[1]}"
    return f" ({times:.1f} standard errors of the difference, {seeds} seeds)"


def _flips(run: Run, best: str, rival: str | None) -> str:
    shares = [
        (arm, sum(values) / len(values))
        for arm in (best, rival)
        if arm is not None and math.isfinite(sum(values := run.final(arm, NEVER)))
    ]
    if not shares:
        return ""
    (_, first), *second = shares
    text = f"; {_percent(first)} of its binary weights never flipped"
    return text + "".join(f", of {run.name(arm)}'s {_percent(share)}" for arm, share in second)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"
