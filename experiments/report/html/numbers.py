"""Numbers for a page: short, finite, and not too many of them."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt


def short(value: float, digits: int = 4) -> float | None:
    """A number with so many digits; None, which JSON has, for one that is not finite.

    >>> short(0.123456), short(float("nan"))
    (0.1235, None)
    """
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def shorts(values: Iterable[float]) -> list[float | None]:
    """The same for each of several."""
    return [short(float(value)) for value in values]


def percents(values: Iterable[float]) -> list[float | None]:
    """Fractions in percent, to hundredths."""
    return [None if not math.isfinite(v) else round(100 * float(v), 2) for v in values]


def evenly(count: int, most: int) -> list[int]:
    """At most so many of `range(count)`, evenly, with the first and the last.

    >>> evenly(5, 9), evenly(9, 3)
    ([0, 1, 2, 3, 4], [0, 4, 8])
    """
    kept = min(count, max(2, most))
    return np.unique(np.linspace(0, count - 1, kept).round().astype(int)).tolist()


def mean_and_std(
    values: npt.NDArray[np.float64],
) -> tuple[list[float], list[float] | None]:
    """Mean and sample standard deviation over seeds (axis 0); no deviation of one seed."""
    std = None if len(values) < 2 else np.std(values, axis=0, ddof=1).tolist()
    return np.mean(values, axis=0).tolist(), std


def best_first(means: Sequence[float]) -> list[int]:
    """Places from the highest to the lowest; what is not finite comes last."""
    finite = [m if math.isfinite(m) else -math.inf for m in means]
    return sorted(range(len(finite)), key=lambda i: -finite[i])
