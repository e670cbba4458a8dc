"""Tables of steps on whole slices: what a chip needs, and what chips send each other."""

import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import jax
from flax import nnx

from benchmarks.accelerators.cells import PODS, SLICE
from benchmarks.accelerators.markdown import Table, made_with, table
from benchmarks.accelerators.pods import WAYS
from benchmarks.accelerators.programs import NETWORKS
from experiments.accelerators import CHIPS
from experiments.accelerators.program_text import shape_bytes

_KINDS = ("all-reduce", "all-gather", "reduce-scatter")
_FEW = 4096  # elements, as of sums by feature and of numbers of a step

Record = dict[str, Any]


def section(records: Sequence[Record]) -> list[str]:
    """All lines about pods; none without records."""
    if not records:
        return []
    places = {target: n for n, target in enumerate((*PODS, SLICE))}
    ordered = sorted(
        records,
        key=lambda r: (places.get(r["target"], len(places)), WAYS.index(r["program"]["way"])),
    )
    return [
        "## Pods\n",
        f"{made_with(records)}. OvSW in bfloat16; numbers are of one chip.\n",
        *table(_needs(ordered)),
        "### What chips send each other\n",
        *table(_sent(ordered)),
    ]


def _needs(records: Sequence[Record]) -> Table:
    yield (
        "slice", "network", "way", "arguments, MB", "temporaries, MB", "of its memory, %",
        "million cycles", *(f"{kind}s" for kind in _KINDS), "others", "of activations",
    )  # fmt: skip
    for r in records:
        reading, counts = (
            r["reading"],
            {k: c["count"] for k, c in r["reading"]["collectives"].items()},
        )
        peak = sum(reading[n] for n in ("arguments", "temporaries", "output")) - reading["alias"]
        memory = CHIPS[r["target"].partition(":")[0]].memory
        others = [f"{n} {kind}" for kind, n in counts.items() if kind not in _KINDS]
        yield (
            r["target"], r["program"]["network"], r["program"]["way"],
            f"{reading['arguments'] / 1e6:.1f}",
            f"{reading['temporaries'] / 1e6:.0f}",
            f"{100 * peak / memory:.1f}",
            f"{reading['cycles'] / 1e6:.2f}",
            *(str(counts.get(kind, 0)) for kind in _KINDS),
            ", ".join(others) or "none",
            str(sum(s["arrays"] for s in r["sent"] if _what(r, s) == "activations")),
        )  # fmt: skip


def _sent(records: Sequence[Record]) -> Table:
    yield ("slice", "network", "way", "kind", "of", "arrays", "MB")
    for r in records:
        sums: dict[tuple[str, str], list[int]] = {}
        for s in r["sent"]:
            row = sums.setdefault((s["kind"], _what(r, s)), [0, 0])
            row[0] += s["arrays"]
            row[1] += s["bytes"]
        for key, (arrays, size) in sums.items():
            names = r["target"], r["program"]["network"], r["program"]["way"]
            yield (*names, *key, str(arrays), f"{size / 1e6:.2f}")


def _what(record: Record, sent: Record) -> str:
    """What an array is, by its size: there is no other array of a parameter's size."""
    dtype = re.match(r"\w+", sent["shape"])
    elements = shape_bytes(sent["shape"]) // shape_bytes(f"{dtype[0] if dtype else 'f32'}[]")
    sizes = _kernels(record["program"]["network"])
    parts = {s // record["devices"] for s in sizes} if sent["kind"] == "reduce-scatter" else set()
    if elements in sizes | parts:
        return "kernels"
    return "sums" if elements <= _FEW else "activations"


@cache
def _kernels(network: str) -> frozenset[int]:
    """Sizes of all parameters of two or more axes."""
    made = NETWORKS[network]  # type: ignore[index]  # of a record
    model = nnx.eval_shape(lambda: made.ours(made.classes, rngs=nnx.Rngs(0)))
    arrays = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return frozenset(math.prod(x.shape) for x in jax.tree.leaves(arrays) if x.ndim > 1)
