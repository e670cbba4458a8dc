"""What a worker says, as lines of JSON, and what they mean."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from experiments.accelerators import Collectives, Platform, Reading


@dataclass(frozen=True)
class Machine:
    """What steps are compiled for.

    Attributes:
      target: as it was asked for.
      platform: of the compiler.
      devices: how many.
      processes: that they belong to: hosts of a slice.
      memory: bytes of a device.
      clock: cycles a second; None where cycles are not estimated.
      versions: of JAX and the compiler.
    """

    target: str
    platform: Platform
    devices: int
    processes: int
    memory: int
    clock: float | None
    versions: dict[str, str]


@dataclass(frozen=True)
class Step:
    """A compiled step, which trains one program of a config.

    Attributes:
      name: of the program.
      trainings: of the program.
      at_once: trainings that share the step.
      devices: on which the step runs.
      batch_size: images of a training in a step, on all devices together.
      steps: of all trainings, one after another.
      reading: what the compiler says, of one device; None if memory does not suffice.
    """

    name: str
    trainings: int
    at_once: int
    devices: int
    batch_size: int
    steps: int
    reading: Reading | None


@dataclass(frozen=True)
class Tried:
    """Batches that were compiled, to find one that fits.

    Attributes:
      name: of the program that needs most.
      bytes_by_batch: bytes of a device by batch size; None if the compiler refused it for memory.
      data_devices: over which a batch is divided.
      most: images that the data set has.
    """

    name: str
    bytes_by_batch: dict[int, int | None]
    data_devices: int
    most: int


@dataclass(frozen=True)
class Doing:
    """What a worker begins, for who waits."""

    text: str


@dataclass(frozen=True)
class Failed:
    """Why there is no answer.

    Attributes:
      text: for the user.
      no_compiler: whether another environment could have it.
    """

    text: str
    no_compiler: bool = False


Record = Machine | Step | Tried | Doing | Failed
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (Machine, Step, Tried, Doing, Failed)}


def to_json(record: Record) -> str:
    """One line."""
    if isinstance(record, Step) and record.reading is not None:
        record = replace(record, reading=replace(record.reading, where=()))
    return json.dumps({"kind": type(record).__name__, **asdict(record)})


def from_json(line: str) -> Record:
    """The record of `to_json`, whose reading knows no operations."""
    fields = json.loads(line)
    kind = fields.pop("kind")
    if fields.get("reading") is not None:
        of_kinds = fields["reading"].pop("collectives").items()
        collectives = {name: Collectives(**numbers) for name, numbers in of_kinds}
        fields["reading"] = Reading(**fields["reading"] | {"where": ()}, collectives=collectives)
    if "bytes_by_batch" in fields:
        fields["bytes_by_batch"] = {int(b): x for b, x in fields["bytes_by_batch"].items()}
    record: Record = _KINDS[kind](**fields)
    return record
