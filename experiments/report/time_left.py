"""How long a run still takes, from the speeds that it has measured; compilation apart."""

import math
from collections.abc import Mapping, Sequence


class TimeLeft:
    """The time left of all trainings of a run.

    A program that was not measured yet is taken to be as fast as the mean of the others.

    Attributes:
      plan: number of the program of each group of trainings that is left, in order.
    """

    def __init__(self, plan: Sequence[int], epochs: int):
        self._plan, self._epochs = list(plan), epochs
        self._number, self._steps, self._at = -1, 0, 0
        self._of_step: dict[int, float] = {}
        self._between: dict[int, list[float]] = {}

    def begin(self, steps: int) -> None:
        """The next group of trainings begins, of so many steps."""
        self._number, self._steps, self._at = self._number + 1, steps, 0

    def reach(self, step: int, seconds_per_step: float | None) -> None:
        """The group has made so many of its steps, the last ones at this speed; None: unknown."""
        self._at = step
        if seconds_per_step is not None:
            self._of_step[self._program] = seconds_per_step

    def between(self, seconds: float) -> None:
        """What an epoch took beyond its steps: evaluation, and what is written."""
        self._between.setdefault(self._program, []).append(max(seconds, 0.0))

    @property
    def training(self) -> float | None:
        """Seconds that a whole training of this group takes; None if unknown."""
        return self._seconds(self._program, self._steps)

    @property
    def left(self) -> float | None:
        """Seconds until all groups are trained; None if unknown."""
        this = self._seconds(self._program, self._steps - self._at)
        others = [self._seconds(p, self._steps) for p in self._plan[self._number + 1 :]]
        parts = [this, *others]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    @property
    def _program(self) -> int:
        return self._plan[self._number]

    def _seconds(self, program: int, steps: int) -> float | None:
        of_step = _known_or_mean(self._of_step, program)
        if of_step is None:
            return None
        means = {p: sum(all_of) / len(all_of) for p, all_of in self._between.items()}
        between = _known_or_mean(means, program) or 0.0
        return steps * of_step + between * steps * self._epochs / max(self._steps, 1)


def _known_or_mean(of: Mapping[int, float], program: int) -> float | None:
    if not of:
        return None
    return of.get(program, sum(of.values()) / len(of))


def duration(seconds: float) -> str:
    """A time in one unit.

    >>> duration(0.2), duration(75), duration(9000), duration(61_200), duration(300_000)
    ('1 s', '75 s', '2.5 h', '17 h', '3.5 days')
    """
    if seconds < 100:
        return f"{max(1, math.ceil(seconds))} s"
    for length, most, unit in ((60, 100, "min"), (3600, 48, "h")):
        if seconds < most * length:
            count = seconds / length
            return f"{_short(count)} {unit}"
    return f"{_short(seconds / 86_400)} days"


def _short(count: float) -> str:
    return f"{count:.1f}" if count < 9.95 else f"{count:.0f}"
