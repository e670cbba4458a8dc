"""Axes for values of a sweep and for rates that span decades, zero among them."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from experiments.run.reader import FloatArray
from experiments.sweep.arms import value_text

_LETTER = 0.075  # inches of a digit at 8 points, with its share of the gap between labels
_SMALLEST_RATE = 1e-4  # %; below it a log axis would spend its decades on single weights


def swept_values(
    axes: Axes, values: Sequence[float], inches: float, also: Sequence[float] = ()
) -> None:
    """A log x axis with ticks at the values of a sweep, as many named as fit in `inches`.

    The axis reaches to `also`, positive values without a tick, as well.

    Zero gets a place at the left, on a short linear piece.
    """
    known = sorted(set(values))
    positive = [value for value in known if value > 0]
    if not positive:
        axes.set_xticks(known, [value_text(value) for value in known])
        return
    places = np.array([_place(value, positive[0]) for value in known])
    first, last = (f([*places, *map(math.log10, also)]) for f in (min, max))
    margin = 0.06 * (last - first) or 0.5
    if len(positive) == len(known):
        axes.set_xscale("log")
    else:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=1.0)
    axes.set_xlim(_value(first - margin, positive[0]), _value(last + margin, positive[0]))
    per_unit = inches / (last - first + 2 * margin)
    named, end = [], -math.inf
    for value, place in zip(known, places * per_unit, strict=True):
        half = _LETTER * (len(value_text(value)) + 1) / 2
        if place - half > end:
            named.append(value)
            end = place + half
    axes.xaxis.set_major_locator(FixedLocator(named))
    axes.xaxis.set_major_formatter(lambda x, _: value_text(x))
    axes.xaxis.set_minor_locator(FixedLocator([value for value in known if value not in named]))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _place(value: float, smallest: float) -> float:
    """Where a value lies, in decades; zero one decade under the smallest."""
    return math.log10(value) if value > 0 else math.log10(smallest) - 1


def _value(place: float, smallest: float) -> float:
    low = math.log10(smallest)
    return 10**place if place >= low - 1 else smallest * (place - (low - 1))


def rates(axes: Axes, values: FloatArray) -> str:
    """Puts rates in % on a log y axis that shows zero too; returns what its label must add.

    Symmetric log: linear from zero to the decade below the smallest rate, at least 0.0001 %.
    """
    finite = values[np.isfinite(values)]
    positive = finite[finite > 0]
    if positive.size == 0:
        axes.set_ylim(-0.02, 1)
        return "all zero"
    low = max(math.floor(math.log10(positive.min() / 2)), round(math.log10(_SMALLEST_RATE)))
    high = max(math.ceil(math.log10(positive.max() * 1.05)), low + 1)
    linear = bool(finite.min() < 10.0**low)
    if linear:
        axes.set_yscale("symlog", linthresh=10.0**low, linscale=0.7)
        axes.set_ylim(-0.12 * 10.0**low, 10.0**high)
    else:
        axes.set_yscale("log")
        axes.set_ylim(10.0**low, 10.0**high)
    step = max(1, math.ceil((high - low) / 6))
    decades = [10.0**decade for decade in range(low, high + 1, step)]
    axes.yaxis.set_major_locator(FixedLocator([0.0] * linear + decades))
    axes.yaxis.set_major_formatter(lambda y, _: value_text(y))
    axes.yaxis.set_minor_locator(NullLocator())
    return f"log scale, linear below {value_text(10.0**low)}" if linear else "log scale"
