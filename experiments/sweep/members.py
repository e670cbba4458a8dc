"""The trainings of a config: points of its grids times seeds, grouped into programs.

Members whose shapes agree, those that differ in numbers and seeds only, share one compiled program.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.config import Config
from experiments.config.choices import choose
from experiments.optimizers import OPTIMIZERS, users
from experiments.sweep import grid
from experiments.sweep.grid import Point, Value

# The fields without numbers that a grid may vary; each value needs its own program.
_WORDS = ("init", "network", "flip_state")
_NUMBERS = tuple(
    f.name
    for f in dataclasses.fields(Config)
    if f.type in (float, "float") and f.name != "checkpoint_seconds"  # it changes no training
)
VARIABLE = {name: name for name in ("optimizer", *_WORDS, *_NUMBERS)}


@dataclass(frozen=True)
class Member:
    """One training: an optimizer at a point of a grid, and a seed."""

    optimizer: str
    point: Mapping[str, Value]
    seed: int

    @property
    def key(self) -> tuple[str, tuple[tuple[str, Value], ...], int]:
        """What tells members apart, hashable."""
        return self.optimizer, tuple(sorted(self.point.items())), self.seed


@dataclass(frozen=True)
class Program:
    """Members that one compiled program trains.

    Attributes:
      optimizer: key of the optimizer.
      config: what all members share.
      varying: fields that differ from member to member, all of them numbers.
      members: seed by seed, so that a run stopped early has compared all points on some seeds.
    """

    optimizer: str
    config: Config
    varying: tuple[str, ...]
    members: tuple[Member, ...]


def programs(config: Config) -> list[Program]:
    """The programs of a config, in the order of its grids.

    Raises:
      ValueError: if a grid can't be read, repeats a point, or names a value that is out of range.
    """
    points = list(_points(config))
    keys = [Member(name, point, 0).key for name, point in points]
    repeated = [points[i] for i, key in enumerate(keys) if key in keys[:i]]
    if repeated:
        name, point = repeated[0]
        raise ValueError(
            f"grids={config.grids} hold {name} {dict(point)} twice: each point is trained once. "
            "Remove one of them."
        )
    groups: dict[tuple[Any, ...], list[Point]] = {}
    for name, point in points:
        config.at(point)  # checks every value
        words = tuple(sorted((k, v) for k, v in point.items() if k in _WORDS))
        groups.setdefault((name, words, tuple(sorted(point))), []).append((name, point))
    return [_program(config, group) for group in groups.values()]


def chunks(programs: Sequence[Program], size: int) -> Iterator[tuple[Program, Sequence[Member]]]:
    """Members that train together, at most `size` of one program.

    First chunks of all programs come first, so that a run stopped early has compared them all.
    """
    cut = [[(p, p.members[i : i + size]) for i in range(0, len(p.members), size)] for p in programs]
    for layer in itertools.zip_longest(*cut):
        yield from (chunk for chunk in layer if chunk is not None)


def _program(config: Config, group: Sequence[Point]) -> Program:
    name, first = group[0]
    words = {k: v for k, v in first.items() if k in _WORDS}
    varying = tuple(k for k in first if k not in _WORDS)
    members = tuple(Member(name, point, seed) for seed in config.seeds for _, point in group)
    return Program(name, config.at(words), varying, members)


def _points(config: Config) -> Iterator[Point]:
    if any(not text.split() for text in config.grids):
        raise ValueError(
            f"grids={config.grids} hold an empty grid: write what varies, such as "
            "'optimizer=ovsw lam=0.01,0.04', or give no --grids."
        )
    for text in config.grids or ("",):
        values = grid.parse(text)
        _check_values(values)
        for name in values.get("optimizer", config.optimizers):
            _check_used(text, str(name), values)
        yield from grid.points(values, config.optimizers)


def _check_values(values: Mapping[str, Sequence[Value]]) -> None:
    for field, listed in values.items():
        choose("field of a grid", field, VARIABLE)
        for value in listed:
            if field in _NUMBERS and isinstance(value, str):
                raise ValueError(
                    f"{field}={value} in a grid is no number: write it as 0.04 or 4e-2."
                )


def _check_used(text: str, optimizer: str, fields: Iterable[str]) -> None:
    for field in fields:
        using = users(field)
        if optimizer in OPTIMIZERS and optimizer not in using:
            raise ValueError(
                f"grid {text!r} varies {field}, which {optimizer} does not have: all its trainings "
                f"would be the same. Give {' and '.join(using)} a grid of their own, as "
                f"'optimizer={using[0]} {field}=...'."
            )
