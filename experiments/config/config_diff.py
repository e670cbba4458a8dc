"""Whether two configs are of the same run, and what differs if not."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from experiments.config import Config

# Where and how a run trains, not what it trains: these may change when it resumes.
PLACE = (
    "out",
    "data_dir",
    "teacher_network",
    "members_at_once",
    "spread",
    "model_devices",
    "fsdp",
    "steps_per_call",
    "workers",
    "checkpoint_seconds",
)


def settings(config: Config) -> dict[str, Any]:
    """The fields that determine a run's results, as JSON."""
    fields = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return {name: value for name, value in fields.items() if name not in PLACE}


# Fields that version 0.1 had not, with the values that say what it did.
_NEWER = {"batch_norm_groups": 1}


def settings_in_checkpoint(config: Config) -> dict[str, Any]:
    """As `settings`; without newer fields that change nothing, so that older checkpoints fit."""
    return {n: v for n, v in settings(config).items() if n not in _NEWER or v != _NEWER[n]}


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The differences, in words, in the order of `here`.

    >>> differences({"a": 1, "b": 2, "c": 3}, {"b": 2, "c": 4, "d": 5})
    ['c is 3 there and 4 here', 'd is nothing there and 5 here', 'a is 1 there and nothing here']
    """
    names = {**here, **there}
    values = ((name, there.get(name, "nothing"), here.get(name, "nothing")) for name in names)
    return [f"{name} is {a} there and {b} here" for name, a, b in values if a != b]
