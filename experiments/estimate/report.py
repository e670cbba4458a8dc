"""What is printed of an estimate: a table of the steps, the batch that fits, a verdict."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from experiments.accelerators import Reading
from experiments.estimate.batch import largest_fitting, limit_by_line
from experiments.estimate.records import Machine, Step, Tried
from experiments.training.devices import USABLE

# Bytes a second that an H100's memory moves, of the SXM form (NVIDIA's data sheet).
GPU_BANDWIDTH = 3.35e12


class Report(NamedTuple):
    """The parts of what is printed.

    Attributes:
      title: what was compiled by what.
      labels: of the rows of a table.
      columns: of the table, with a head: one for each step.
      notes: what the numbers mean, and the batch that fits.
      verdict: whether it fits, and how long it takes.
    """

    title: str
    labels: Sequence[str]
    columns: Sequence[Sequence[str]]
    notes: Sequence[str]
    verdict: str


def report(machine: Machine, steps: Sequence[Step], tried: Tried) -> Report:
    """All parts."""
    return Report(
        title=_title(machine),
        labels=_labels(machine),
        columns=[_column(machine, step) for step in steps],
        notes=[_meaning(machine), " ".join(_batch(machine, tried))],
        verdict=" ".join(_verdict(machine, steps)),
    )


def seconds_of(machine: Machine, reading: Reading) -> float:
    """Seconds of a step: by estimated cycles, or the least that its bytes take on a GPU.

    The body of a loop is counted once in both, so with several steps in a call it is one of them.
    """
    if machine.clock is None:
        return reading.moved / GPU_BANDWIDTH
    return reading.cycles / machine.clock


def _title(machine: Machine) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    hosts = f" of {machine.processes} hosts" if machine.processes > 1 else ""
    devices = f"{machine.devices:,} device{'s' * (machine.devices > 1)}{hosts}"
    return (
        f"What the compiler for {machine.target} says: {devices} with {_bytes(machine.memory)} "
        f"each ({versions}). Nothing ran."
    )


def _labels(machine: Machine) -> tuple[str, ...]:
    if machine.clock is None:
        last = "moved, kernels", "collectives", "images/s, at most", "all epochs, at least"
    else:
        last = "million cycles", "collectives", "images/s", "all epochs"
    return (
        "",
        "trainings",
        "in a step",
        "images of each",
        "devices",
        "arguments",
        "temporaries",
        "memory a device",
        f"of {_bytes(machine.memory)}",
        *last,
    )


def _column(machine: Machine, step: Step) -> tuple[str, ...]:
    counts = step.trainings, step.at_once, step.batch_size, step.devices
    head = (step.name, *(f"{count:,}" for count in counts))
    reading = step.reading
    if reading is None:
        return (*head, "", "", "too much", *[""] * 5)
    seconds = seconds_of(machine, reading)
    work = f"{reading.cycles / 1e6:.2f}"
    if machine.clock is None:
        work = f"{_bytes(reading.moved)}, {reading.kernels:,}"
    kinds = reading.collectives.values()
    exchanged = f"{sum(k.count for k in kinds):,}, {_bytes(sum(k.bytes for k in kinds))}"
    return (
        *head,
        _bytes(reading.arguments),
        _bytes(reading.temporaries),
        _bytes(reading.peak),
        f"{100 * reading.peak / machine.memory:.1f} %",
        work,
        exchanged if kinds else "none",
        f"{_rounded(step.at_once * step.batch_size / seconds):,}",
        _duration(step.steps * seconds),
    )


def _meaning(machine: Machine) -> str:
    if machine.clock is None:
        return (
            "Memory is without the workspaces of convolutions, which are chosen on the device. "
            f"images/s: what {GPU_BANDWIDTH / 1e12:.2f} TB/s of memory allow, if every kernel "
            "reads and writes there. Arithmetic, starts of kernels, collectives and the input "
            "pipeline make it less, arrays that stay in the cache (50 MB) make it more."
        )
    return (
        f"images/s: the compiler's cycles at {machine.clock / 1e9:.2f} GHz. Collectives, "
        "evaluation and the input pipeline are not in it."
    )


def _batch(machine: Machine, tried: Tried) -> Iterator[str]:
    """The batch that fits."""
    usable, found = int(USABLE * machine.memory), tried.bytes_by_batch
    fits, limit = largest_fitting(found, usable), limit_by_line(found, usable)
    if fits is None:
        yield f"No batch that was compiled fits, down to --batch-size {min(found)}."
    else:
        needed = found[fits]
        assert needed is not None
        yield (
            f"--batch-size {fits} fits: compiled for {tried.name}, it needs {_bytes(needed)} a "
            f"device{_each(fits, tried)}."
        )
    if limit is not None and limit >= tried.most:
        yield f"Estimate: all {tried.most:,} training images would fit in one batch."
    elif limit is not None:
        yield (
            f"Estimate: up to about {_rounded(limit):,}{_each(limit, tried)}, by a line through "
            f"two compiled batches to {_percent(USABLE)} of the memory."
        )


def _each(batch_size: int, tried: Tried) -> str:
    if tried.data_devices == 1:
        return ""
    return f" ({_rounded(batch_size / tried.data_devices):,} images on each)"


def _verdict(machine: Machine, steps: Sequence[Step]) -> Iterator[str]:
    readings = [step.reading for step in steps if step.reading is not None]
    peak, there = max((r.peak for r in readings), default=0), _bytes(machine.memory)
    if len(readings) < len(steps):
        yield f"Does not fit: the compiler refuses a step that needs more than {there} a device."
    elif peak > USABLE * machine.memory:
        yield (
            f"May not fit: it needs {_bytes(peak)} of {there} a device, and evaluation, the next "
            f"batch and fragmentation want {_percent(1 - USABLE)}."
        )
    else:
        times = [step.steps * seconds_of(machine, step.reading) for step in steps if step.reading]
        kind = "at least" if machine.clock is None else "about"
        yield (
            f"Fits: it needs {_bytes(peak)} of {there} a device, and computes {kind} "
            f"{_duration(sum(times))} in all."
        )
    used = max(step.devices for step in steps)
    if machine.processes > 1:
        yield "python -m experiments.launch on every host divides each batch over all devices."
    elif used < machine.devices:
        yield f"It uses {used} of {machine.devices} devices; --spread batch uses all for each step."


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _bytes(count: float) -> str:
    """In decimal units.

    >>> _bytes(16e9), _bytes(1.234e9), _bytes(157_400_000), _bytes(2_000)
    ('16 GB', '1.23 GB', '157 MB', '0.0 MB')
    """
    if count >= 999.5e6:
        value = count / 1e9
        return f"{value:.0f} GB" if value == round(value) else f"{value:#.3g} GB"
    value = count / 1e6
    return f"{value:.{int(value < 99.5)}f} MB"


def _rounded(value: float) -> int:
    """To three digits.

    >>> _rounded(123_456), _rounded(12.3)
    (123000, 12)
    """
    return round(value) if value < 1_000 else int(float(f"{value:.3g}"))


def _duration(seconds: float) -> str:
    """In the unit that suits.

    >>> [_duration(s) for s in (0.2, 40, 100, 5_000, 90_000, 500_000)]
    ['under 1 s', '40 s', '100 s', '83 minutes', '25 hours', '5.8 days']
    """
    if seconds < 1:
        return "under 1 s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    for limit, divisor, unit in ((7_200, 60, "minutes"), (172_800, 3_600, "hours")):
        if seconds < limit:
            return f"{seconds / divisor:.2g} {unit}"
    return f"{seconds / 86_400:.2g} days"
