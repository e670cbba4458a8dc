"""The silence horizon beside the steps that were run: below it, silent equals never flipped.

A weight that flipped is not silent for as many steps as the horizon. So in a training of no more
steps only the weights that never flipped are silent, whatever the network does.
"""

import math
from collections.abc import Collection
from typing import NamedTuple

from experiments.run.reader import Run


class Silence(NamedTuple):
    """The silence horizon of a training, and the steps that it made."""

    horizon: int
    steps: int

    @property
    def is_trivial(self) -> bool:
        """Whether only weights that never flipped can be silent."""
        return self.steps <= self.horizon


def horizon(momentum: float, threshold: float) -> int:
    """Steps for which one flip keeps a weight from being silent, the flip's own included.

    The first n with (1 - mu) mu^n < sigma, as `ovsw_jax.silence_horizon`, without jax.

    >>> horizon(0.999, 1e-4)
    2302
    """
    return max(1, math.floor(math.log(threshold / (1 - momentum)) / math.log(momentum)) + 1)


def of_arm(run: Run, arm: str) -> Silence | None:
    """Those of one setting at its last epoch; None where the run does not say them."""
    settings = {**run.config, **run.known_arms[arm].settings}
    momentum, threshold = settings.get("flip_momentum"), settings.get("threshold")
    row = next(iter(run.epochs[arm][run.last_epoch(arm)].values()))
    if "silent_ratio" not in row.values or "step" not in row.values:
        return None
    try:
        return Silence(
            horizon(float(str(momentum)), float(str(threshold))), int(row.values["step"])
        )
    except (ValueError, ZeroDivisionError, OverflowError):  # of a config that no run writes
        return None


def sentences(found: Collection[Silence]) -> str:
    """The horizons and steps of a run's settings in words; "" if there are none.

    >>> sentences([Silence(2302, 368)])[:56]
    'Silence horizon: 2,302 steps; steps run: 368. Up to the '
    >>> sentences([Silence(10, 1250), Silence(100, 1250)])
    'Silence horizon: 10 to 100 steps; steps run: 1,250.'
    """
    if not found:
        return ""
    horizons, steps = ([getattr(s, name) for s in found] for name in Silence._fields)
    text = f"Silence horizon: {_range(horizons)} steps; steps run: {_range(steps)}."
    trivial = sum(silence.is_trivial for silence in found)
    if not trivial:
        return text
    where = "" if trivial == len(found) else f" in {trivial} of {len(found)} settings"
    return (
        f"{text} Up to the horizon no weight that flipped is silent again, so silent equals never "
        f"flipped by construction{where}."
    )


def _range(values: Collection[int]) -> str:
    least, most = min(values), max(values)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
