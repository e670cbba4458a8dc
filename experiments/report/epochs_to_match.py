"""When a training first reaches SGD's final top-1, as a share of the training.

The paper says that OvSW converges faster; this number checks it, to the epoch, since top-1 is
evaluated at ends of epochs only.
"""

from experiments.run.reader import TOP1, Run


def reference(run: Run, arm: str) -> str | None:
    """The arm of SGD to compare with: its only one, or the one at the same point of the sweep.

    None where there is no such arm or it has not finished. An arm of SGD compares with itself, if
    another optimizer does.
    """
    if run.known_arms[arm].optimizer != "sgd":
        return _of_other(run, arm)
    others = (other for other in run.arms if run.known_arms[other].optimizer != "sgd")
    return arm if any(_of_other(run, other) == arm for other in others) else None


def _of_other(run: Run, arm: str) -> str | None:
    candidates = run.arms_of("sgd")
    if len(candidates) != 1 or run.varied("sgd"):
        point = run.known_arms[arm].point
        candidates = [key for key in candidates if run.known_arms[key].point == point]
    return next((key for key in candidates if run.finished(key)), None)


def level(run: Run, arm: str) -> float | None:
    """Mean over seeds of the final top-1 of `reference`, a fraction; None without one."""
    sgd = reference(run, arm)
    if sgd is None:
        return None
    values = run.final(sgd, TOP1)
    return sum(values) / len(values)


def shares(run: Run, arm: str) -> list[float | None]:
    """Epochs to first reach the level, over planned epochs, one per seed; None if never."""
    wanted = level(run, arm)
    if wanted is None:
        return [None for _ in run.seeds(arm)]
    epochs, values = run.series(arm, TOP1)
    total = run.planned_epochs or run.last_epoch(arm)
    reached = [[int(e) for e, v in zip(epochs, row, strict=True) if v >= wanted] for row in values]
    return [min(of_seed) / total if of_seed else None for of_seed in reached]
