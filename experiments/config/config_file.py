"""Reads config.json of a run folder, which may be untrusted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LARGEST = 2**63


def read_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object.

    Raises:
      OSError: it can't be read.
      ValueError: it holds anything else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, it must hold a JSON object")
    return content


def read_config(path: Path) -> dict[str, Any]:
    """The same; each field has the type that a run writes, or is missing or null.

    Raises:
      OSError, ValueError: as `read_object`; also if a field has another type.
    """
    config = read_object(path)
    for name, (kind, holds) in _KINDS.items():
        value = config.get(name)
        if value is not None and not holds(value):
            raise ValueError(f"{path}: {name} is {str(value)[:80]}, it must be {kind}")
    return config


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LARGEST  # True is an int too


def _list_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(holds, value))


# The fields that are used, not only shown.
_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "data": ("a text", _is_text),
    "network": ("a text", _is_text),
    "binary": ("a text", _is_text),
    "dtype": ("a text", _is_text),
    "epochs": ("a whole number", _is_count),
    "held_out": ("a whole number", _is_count),
    "optimizers": ("a list of texts", _list_of(_is_text)),
    "grids": ("a list of texts", _list_of(_is_text)),
    "seeds": ("whole numbers", lambda value: _is_count(value) or _list_of(_is_count)(value)),
}
