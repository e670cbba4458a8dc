"""Tables of readings; what the columns mean is in results/accelerators/README.md."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.accelerators import pod_tables as pods
from benchmarks.accelerators.cells import PUBLISHED, TARGETS
from benchmarks.accelerators.markdown import Table, made_with, table
from experiments.accelerators import CHIPS, KINDS, platform_of

_INTRODUCTION = """# What compilers say of training and evaluation steps

Written by `python -m benchmarks.accelerators`. **These are estimates by the compilers: nothing
ran.** [README.md](README.md) says what the columns mean.
"""
_ORDER: dict[str, Sequence[str]] = {
    "network": PUBLISHED,
    "dtype": ("bfloat16", "float32"),
    "phase": ("training", "evaluation"),
    "optimizer": ("sgd", "adam", "ovsw"),
    "code": ("ours", "remat", "plain"),
}


class _Step(NamedTuple):
    """What tells programs of one target apart, in the order of the tables."""

    network: str
    dtype: str
    phase: str
    optimizer: str
    code: str


_Readings = dict[_Step, dict[str, Any]]


def write(records: Sequence[dict[str, Any]], out: Path) -> None:
    """Writes tables.md into the folder `out`.

    Args:
      records: as `Readings.all` gives them.
      out: made if it is absent.
    """
    out.mkdir(parents=True, exist_ok=True)
    text = [_INTRODUCTION]
    steps = [r for r in records if r["program"]["code"] != "pods"]
    for target in sorted({r["target"] for r in steps}, key=lambda t: (_place(TARGETS, t), t)):
        text += _section(target, [r for r in steps if r["target"] == target])
    text += pods.section([r for r in records if r["program"]["code"] == "pods"])
    (out / "tables.md").write_text("\n".join(text), encoding="utf-8")


def _place(known: Sequence[str], name: str) -> int:
    return known.index(name) if name in known else len(known)


def _section(target: str, records: Sequence[dict[str, Any]]) -> list[str]:
    """All tables of one target."""
    steps = {_Step(**{n: r["program"][n] for n in _Step._fields}): r["reading"] for r in records}
    readings = {
        step: steps[step]
        for step in sorted(
            steps, key=lambda step: [_place(_ORDER[n], getattr(step, n)) for n in _Step._fields]
        )
    }
    devices = records[0]["devices"]
    return [
        f"## {target}\n",
        f"{devices} device{'s' * (devices > 1)}; {made_with(records)}. "
        "Numbers are of one device.\n",
        *table(_steps(target, readings)),
        "### Ours beside plain JAX\n",
        *table(_ratios(readings)),
        "### The rules beside SGD\n",
        *table(_rules(readings)),
        "### What it is for\n",
        f"Training by SGD; {_unit(target)}.\n",
        *table(_kinds(target, readings)),
    ]


def _steps(target: str, readings: _Readings) -> Table:
    tpu = platform_of(target) == "tpu"
    estimates = ("million cycles", "ms", "Tflop") if tpu else ()
    yield (
        *_Step._fields, "arguments, MB", "temporaries, MB", "moved, GB", *estimates, "kernels",
        "collectives", "collectives, MB",
    )  # fmt: skip
    clock = CHIPS[target.partition(":")[0]].clock
    for step, r in readings.items():
        cycles, counts = r["cycles"], r["collectives"].values()
        of_tpu = (
            f"{cycles / 1e6:.2f}",
            f"{cycles / clock * 1e3:.2f}" if clock else "",
            f"{r['flops'] / 1e12:.3f}",
        )
        yield (
            *step,
            f"{r['arguments'] / 1e6:.0f}",
            f"{r['temporaries'] / 1e6:.0f}",
            f"{r['moved'] / 1e9:.2f}",
            *(of_tpu if tpu else ()),
            f"{r['kernels']}",
            f"{sum(c['count'] for c in counts)}",
            f"{sum(c['bytes'] for c in counts) / 1e6:.1f}",
        )


def _ratios(readings: _Readings) -> Table:
    yield (*_Step._fields, "cycles", "temporaries", "moved", "kernels")
    for step, ours in readings.items():
        plain = readings.get(step._replace(code="plain"))
        if step.code != "plain" and plain is not None:
            names = ("cycles", "temporaries", "moved", "kernels")
            yield (*step, *(_ratio(ours[name], plain[name]) for name in names))


def _ratio(ours: int, plain: int) -> str:
    return f"{ours / plain:.2f}" if plain else ""


def _rules(readings: _Readings) -> Table:
    yield ("network", "dtype", "cycles, %", "moved, %", "temporaries, MB", "kernels")
    for step, ovsw in readings.items():
        sgd = readings.get(step._replace(optimizer="sgd"))
        if step.optimizer != "ovsw" or sgd is None:
            continue
        more = [_percent(ovsw[name], sgd[name]) for name in ("cycles", "moved")]
        temporaries = (ovsw["temporaries"] - sgd["temporaries"]) / 1e6
        kernels = ovsw["kernels"] - sgd["kernels"]
        yield (step.network, step.dtype, *more, f"{temporaries:+.1f}", f"{kernels:+d}")


def _percent(more: int, base: int) -> str:
    return f"{100 * (more / base - 1):+.1f}" if base else ""


def _kinds(target: str, readings: _Readings) -> Table:
    unit = 1e6 if platform_of(target) == "tpu" else 1e9
    steps = [s for s in readings if s.optimizer == "sgd" and s.phase == "training"]
    yield ("kind", *(f"{s.network}, {s.dtype}, {s.code}" for s in steps))
    if steps:
        for kind in KINDS:
            yield (kind, *(f"{readings[s]['kinds'].get(kind, 0) / unit:.2f}" for s in steps))


def _unit(target: str) -> str:
    return "million cycles" if platform_of(target) == "tpu" else "GB of operands and results"
