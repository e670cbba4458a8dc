"""Choices by name on the command line."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def choose(kind: str, name: str, known: Mapping[str, T], more: str = "") -> T:
    """The thing called `name`; the error for others lists `known`, and `more` that can be given.

    Raises:
      ValueError: if it is unknown; names the nearest.
    """
    if name in known:
        return known[name]
    nearest = difflib.get_close_matches(name.lower(), known, cutoff=0.4)
    hint = f"Did you mean {' or '.join(map(repr, nearest))}? " if nearest else ""
    raise ValueError(
        f"{kind} {name!r} is unknown. {hint}Known: {', '.join(known)}{', ' * bool(more)}{more}."
    )
