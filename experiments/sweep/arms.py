"""The arms of a run: an optimizer at one point of a sweep, with a key and a name to show.

A point says which values the run's grids gave it, {} in a plain comparison. Keys and names
leave out fields that are the same at all points of an optimizer.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.optimizers import display_name
from experiments.sweep import grid
from experiments.sweep.grid import Point, Value

_FIELD_NAMES = {
    "init_scale": "gamma",
    "learning_rate": "lr",
    "adam_learning_rate": "lr",
    "weight_decay": "wd",
    "bop_threshold": "threshold",
    "bop_adaptivity": "adaptivity",
    "threshold": "sigma",
    "flip_momentum": "mu",
}


def field_name(field: str) -> str:
    """Name of a field of the config, short enough for a label.

    >>> field_name("init_scale"), field_name("warmup_epochs")
    ('gamma', 'warmup epochs')
    """
    return _FIELD_NAMES.get(field, field.replace("_", " "))


def value_text(value: Value, digits: int = 6) -> str:
    """A value as a user types it.

    >>> value_text(0.04), value_text(1000.0), value_text(1e-6), value_text("normal")
    ('0.04', '1000', '1e-6', 'normal')
    """
    if isinstance(value, str):
        return value
    return re.sub(r"e([+-])0*", lambda m: "e" + m[1].replace("+", ""), f"{value:.{digits}g}")


@dataclass(frozen=True)
class Arm:
    """An optimizer at one point of a sweep.

    Attributes:
      optimizer: key of the optimizer.
      settings: value of every field that the run's grids name, from the point or, where the
        point lacks it, from the config.
      varied: the fields that tell the optimizer's arms apart.
    """

    optimizer: str
    settings: Mapping[str, Value]
    varied: tuple[str, ...]

    @property
    def point(self) -> dict[str, Value]:
        """What tells this arm from the optimizer's others."""
        return {field: self.settings[field] for field in self.varied if field in self.settings}

    @property
    def key(self) -> str:
        """The optimizer's key where it has one arm, else with its point: `ovsw lam=0.04`."""
        fields = (f"{field}={value_text(value, 12)}" for field, value in self.point.items())
        return " ".join([self.optimizer, *fields])

    @property
    def name(self) -> str:
        """The same for readers: `OvSW, lam 0.04`."""
        return ", ".join([display_name(self.optimizer), *self.labels])

    @property
    def labels(self) -> list[str]:
        """The point for readers, a field each: `lam 0.04`."""
        return [f"{field_name(k)} {value_text(v)}" for k, v in self.point.items()]


def planned_points(config: Mapping[str, Any]) -> list[Point]:
    """The points that a config.json plans, in its order.

    >>> planned_points({"grids": ["optimizer=sgd,ovsw init_scale=0.1,1"]})[1]
    ('sgd', {'init_scale': 1.0})

    Raises:
      ValueError: if a grid can't be read.
    """
    optimizers = [str(name) for name in config.get("optimizers") or []]
    texts = [str(text) for text in config.get("grids") or [""]]
    return [point for text in texts for point in grid.points(grid.parse(text), optimizers)]


def arms_of(points: Sequence[Point], config: Mapping[str, Any]) -> list[Arm]:
    """The arm of each point; equal points get equal arms."""
    fields = list(dict.fromkeys(field for _, point in points for field in point))
    settings = [
        {f: v for f in fields if (v := _setting(point, f, config)) is not None}
        for _, point in points
    ]
    by_optimizer: dict[str, list[Mapping[str, Value]]] = {}
    for (optimizer, _), found in zip(points, settings, strict=True):
        by_optimizer.setdefault(optimizer, []).append(found)
    varied = {
        optimizer: tuple(f for f in fields if len({s[f] for s in found if f in s}) > 1)
        for optimizer, found in by_optimizer.items()
    }
    return [
        Arm(optimizer, found, varied[optimizer])
        for (optimizer, _), found in zip(points, settings, strict=True)
    ]


def _setting(point: Mapping[str, Value], field: str, config: Mapping[str, Any]) -> Value | None:
    value = point.get(field, config.get(field))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return value if isinstance(value, str) else None
