"""Which programs are compiled for which target: the cells of the tables."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product

from benchmarks.accelerators.environments import PROJECT
from benchmarks.accelerators.programs import Code, DtypeName, NetworkName, OptimizerName, Program

TARGETS = ("v5e:2x2", "v5p:2x2x1", "v6e:2x2", "h100")
# Two targets get every program; the others, training by SGD: what the library costs or saves there.
IN_FULL = ("v5e:2x2", "h100")
CODES: tuple[Code, ...] = ("ours", "plain")
DTYPES: tuple[DtypeName, ...] = ("bfloat16", "float32")
PUBLISHED: tuple[NetworkName, ...] = ("CifarResNet18", "ResNet20", "ResNet18")
# OvSW is the library's, so plain JAX has none.
_OPTIMIZERS: dict[Code, tuple[OptimizerName, ...]] = {
    "ours": ("sgd", "adam", "ovsw"),
    "plain": ("sgd", "adam"),
}


def programs_of(target: str, networks: Sequence[NetworkName] = PUBLISHED) -> Iterator[Program]:
    """The programs for a target, in the order of the tables."""
    full = target in IN_FULL
    for network, dtype, code in product(networks, DTYPES, CODES):
        for optimizer in _OPTIMIZERS[code] if full else _OPTIMIZERS[code][:1]:
            yield Program(network, code, optimizer, dtype, "training")
        if full:
            yield Program(network, code, "none", dtype, "evaluation")


# What a program, and what is read of it, is made from.
_SOURCES = {
    "ours": ("ovsw_jax/**/*.py",),
    "plain": ("benchmarks/plain_jax.py",),
}
_ALL = (
    "experiments/accelerators/*",
    "benchmarks/accelerators/programs.py",
    "benchmarks/accelerators/environments.sh",
    "benchmarks/jax_step.py",
)


@cache
def source_hash(code: Code) -> str:
    """Of the files that programs of this code come from: a reading of other files is stale."""
    files = {f for pattern in (*_SOURCES[code], *_ALL) for f in PROJECT.glob(pattern)}
    found = hashlib.sha256()
    for file in sorted(f for f in files if f.is_file()):
        found.update(file.relative_to(PROJECT).as_posix().encode() + b"\0" + file.read_bytes())
    return found.hexdigest()[:16]
