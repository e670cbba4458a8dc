"""Compiles what a config trains for a target, and prints a record of each step, a line each.

    python -m experiments.estimate.worker '{"target": "v5e:2x2", "config": {...}, "sizes": {...}}'

Run by a Python that has the target's compiler; beside it, only the library need be installed.
"""

import contextlib
import importlib.metadata
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.accelerators import Target, open_target
from experiments.config import Config
from experiments.data.sizes import Sizes
from experiments.estimate.batch import try_batches
from experiments.estimate.records import Doing, Failed, Machine, Record, Step, Tried, to_json
from experiments.estimate.trainings import Trainings
from experiments.training.devices import USABLE
from experiments.training.sharding import processes_of

_PACKAGES = ("jax", "libtpu", "jax-cuda12-plugin", "nvidia-cuda-nvcc-cu12")
_PATHS = ("data_dir", "start", "teacher", "out")


def records(target_name: str, config: Config, sizes: Sizes) -> Iterator[Record]:
    """What is found, as soon as it is."""
    try:
        target = open_target(target_name)
    except ModuleNotFoundError as error:
        yield Failed(str(error), no_compiler=True)
        return
    yield _machine(target)
    try:
        yield Doing("looking how many trainings share a step")
        yield from _steps(Trainings(config, sizes, target), target, sizes)
    except ValueError as error:
        yield Failed(str(error))


def _steps(trainings: Trainings, target: Target, sizes: Sizes) -> Iterator[Record]:
    steps: list[Step] = []
    for number, program in enumerate(trainings.programs, 1):
        yield Doing(f"compiling step {number} of {len(trainings.programs)}")
        steps.append(trainings.step(program))
        yield steps[-1]
    largest = max(range(len(steps)), key=lambda i: _needed(steps[i]) or sys.maxsize)
    program, step = trainings.programs[largest], steps[largest]
    yield Doing("compiling other batches, to find one that fits")
    found = try_batches(
        step.batch_size,
        _needed(step),
        lambda batch_size: _needed(trainings.step(program, batch_size)),
        usable=int(USABLE * target.memory),
        multiple=math.lcm(trainings.data_devices, trainings.config.batch_norm_groups),
        most=sizes.train_count,
    )
    yield Tried(step.name, found, trainings.data_devices, sizes.train_count)


def _needed(step: Step) -> int | None:
    return None if step.reading is None else step.reading.peak


def _machine(target: Target) -> Machine:
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return Machine(
        target=target.name,
        platform=target.platform,
        devices=len(target.devices),
        processes=processes_of(target.devices),
        memory=target.memory,
        clock=target.clock,
        versions=versions,
    )


def _config(fields: Mapping[str, Any]) -> Config:
    """A config from JSON, which knows neither tuples nor paths."""
    made: dict[str, Any] = {n: tuple(x) if isinstance(x, list) else x for n, x in fields.items()}
    made |= {name: Path(made[name]) for name in _PATHS if made[name] is not None}
    return Config(**made)


def main(request: str) -> None:
    """Answers a request, which is JSON."""
    asked = json.loads(request)
    sizes = asked["sizes"]
    sizes["image_shape"] = tuple(sizes["image_shape"])
    for record in records(asked["target"], _config(asked["config"]), Sizes(**sizes)):
        print(to_json(record), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
