"""What tells whether a reading is still of today's program."""

import hashlib

import jax

from experiments.accelerators.environments import PROJECT

# Beside the program: the compilers, what they are told, and what reads their answers.
_READERS = (
    "benchmarks/accelerators/environments.sh",
    "benchmarks/accelerators/sent.py",
    "experiments/accelerators/h100.txtpb",
    *(
        f"experiments/accelerators/{name}.py"
        for name in ("compiling", "kinds", "program_text", "reading", "targets")
    ),
)


def program_key(lowered: jax.stages.Lowered) -> str:
    """A hash of the program that a compiler is asked for, and of the files that read its answer."""
    found = hashlib.sha256(lowered.as_text().encode())
    for name in _READERS:
        found.update(name.encode() + b"\0" + (PROJECT / name).read_bytes())
    return found.hexdigest()[:16]
