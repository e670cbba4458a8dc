"""Which programs are compiled for which target: the cells of the tables."""

from collections.abc import Iterator, Sequence
from itertools import product

from benchmarks.accelerators.pods import WAYS, PodProgram
from benchmarks.accelerators.programs import Code, DtypeName, NetworkName, OptimizerName, Program

TARGETS = ("v5e:2x2", "v5p:2x2x1", "v6e:2x2", "h100")
# Two targets get every program; the others, training by SGD: what the library costs or saves there.
IN_FULL = ("v5e:2x2", "h100")
CODES: tuple[Code, ...] = ("ours", "remat", "plain")
DTYPES: tuple[DtypeName, ...] = ("bfloat16", "float32")
PUBLISHED: tuple[NetworkName, ...] = ("CifarResNet18", "ResNet20", "ResNet18")
# OvSW is the library's, so plain JAX has none.
_OPTIMIZERS: dict[Code, tuple[OptimizerName, ...]] = {
    "ours": ("sgd", "adam", "ovsw"),
    "remat": ("sgd",),
    "plain": ("sgd", "adam"),
}


def programs_of(target: str, networks: Sequence[NetworkName] = PUBLISHED) -> Iterator[Program]:
    """The programs for a target, in the order of the tables."""
    full = target in IN_FULL
    for network, dtype, code in product(networks, DTYPES, CODES):
        for optimizer in _OPTIMIZERS[code] if full else _OPTIMIZERS[code][:1]:
            yield Program(network, code, optimizer, dtype, "training")
        if full and code != "remat":
            yield Program(network, code, "none", dtype, "evaluation")


PODS = ("v5e:16x16", "v5p:4x4x4")
SLICE = "v5e:2x2"  # for what is only to compile
_IN_SLICE = ("pmap", "shard_map", "scan")


def pod_programs_of(target: str) -> Iterator[PodProgram]:
    """The steps that are divided over a whole pod, or over a small slice."""
    for way in WAYS:
        if target in PODS and way not in _IN_SLICE:
            yield PodProgram("ResNet18", way)
        if target == SLICE and way in ("data", *_IN_SLICE):
            yield PodProgram("small", way)
