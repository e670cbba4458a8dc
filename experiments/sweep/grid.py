"""What a sweep varies, as written on the command line: `optimizer=sgd,ovsw init_scale=0.01,1,100`.

A grid is the product of its values; several grids are the union of their points.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

Value = float | str
Point = tuple[str, Mapping[str, Value]]  # an optimizer, and what the grid gives it


def parse(grid: str) -> dict[str, tuple[Value, ...]]:
    """The values by field; numbers are floats.

    >>> parse("optimizer=sgd,ovsw init_scale=0.1,1")
    {'optimizer': ('sgd', 'ovsw'), 'init_scale': (0.1, 1.0)}

    Raises:
      ValueError: if it can't be read.
    """
    values: dict[str, tuple[Value, ...]] = {}
    for part in grid.split():
        field, equals, listed = part.partition("=")
        if not equals or not all(listed.split(",")) or field in values:
            raise ValueError(
                f"grid {grid!r} can't be read at {part!r}: it must be NAME=VALUE,VALUE,... once a "
                "name, with spaces between names only, such as 'optimizer=ovsw lam=0.01,0.04'."
            )
        values[field] = tuple(_value(text) for text in listed.split(","))
    return values


def points(values: Mapping[str, Sequence[Value]], optimizers: Sequence[str]) -> Iterator[Point]:
    """The points of a parsed grid; `optimizers` are for one that names none."""
    varied = {field: listed for field, listed in values.items() if field != "optimizer"}
    for name, *point in itertools.product(values.get("optimizer", optimizers), *varied.values()):
        yield str(name), dict(zip(varied, point, strict=True))


def _value(text: str) -> Value:
    try:
        return float(text)
    except ValueError:
        return text
