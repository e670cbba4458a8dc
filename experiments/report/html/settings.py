"""The config, the versions and the cost of the network, as the page lists them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments.config import Config
from experiments.config.config_file import read_object
from experiments.run.reader import Run

MOST_LAYERS = 400
_COUNTS = (
    "binary_params",
    "real_params",
    "stored_bytes",
    "training_bytes",
    "binary_macs",
    "float_macs",
)


def config_list(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Fields in the config's order: `field`, `value` as text, and whether it is the `default`."""
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    ordered = [name for name in defaults if name in config]
    ordered += [name for name in config if name not in defaults and name != "command"]
    return [
        {
            "field": name,
            "value": text(config[name]),
            "default": name in defaults and text(config[name]) == text(defaults[name]),
        }
        for name in ordered
    ]


def text(value: Any) -> str:
    """A value of a config as a person writes it.

    >>> text(("sgd", "ovsw")), text(None), text(True), text(0.0009)
    ('sgd, ovsw', 'none', 'yes', '0.0009')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {text(x)}" for key, x in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def versions_list(versions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same for versions.json, without the command."""
    return [
        {"field": name, "value": text(value), "default": True}
        for name, value in versions.items()
        if name not in ("command", "continued")
    ]


def networks(run: Run) -> list[dict[str, Any]]:
    """What network.json says of each network: `total` and `layers`, or `uncounted`.

    Raises:
      OSError: if there is none.
      ValueError: if it holds anything else.
    """
    path = run.folder / "network.json"
    try:
        return [{"name": name, **_network(x)} for name, x in read_object(path).items()]
    except (TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path} is not what a run writes: {error!r}") from error


def _network(found: Mapping[str, Any]) -> dict[str, Any]:
    if "uncounted" in found:
        return {"uncounted": str(found["uncounted"])}
    return {
        "input": [int(n) for n in found["input_shape"]],
        "total": _counts(found["total"]),
        "layers": [
            {"name": str(row["name"]) or "(model)", "kind": str(row["kind"]), **_counts(row)}
            for row in found["rows"][:MOST_LAYERS]
        ],
        "left_out": max(0, len(found["rows"]) - MOST_LAYERS),
    }


def _counts(row: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(row[name]) for name in _COUNTS}
