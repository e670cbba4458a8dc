"""Images a second of whole training steps, beside plain JAX and PyTorch.

    python -m benchmarks.training_step [--networks resnet20] [--repeats 9] [--json-file FILE]

A step is forward and backward pass, statistics of batch norm, and optimizer, on the same random
images each time. Peers do the same arithmetic on networks of the same shapes, with as many threads
as there are cores, each in a process of its own; they take turns (A B C A B C ...), and the ratio
is that of rates within a turn:

- *ovsw_jax*: the library's networks, with `optax.sgd`, with `ovsw.ovsw_sgd`, and with
  `ovsw.flip_metrics` in every step;
- *plain JAX*: the same networks written with what JAX and Flax have (`benchmarks/plain_jax.py`);
- *PyTorch*: the same networks in PyTorch, the rules as hooks (`benchmarks/torch_twin.py`). Needs
  the extra `torch`; without it, it is left out.

*Memory kept* is a setting of glibc's allocator by variables of the environment, the same for every
peer that has it: large blocks go back to the system at every free otherwise.

*Cost of the rules* is the share of a step that the optimizer adds to SGD of the same kind.
*Temporaries* are what XLA says that a compiled step needs beside arguments and results. *Kept* is
what the backward pass takes from the forward pass, before compilers change that.
"""

import contextlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks import measuring
from benchmarks.networks import NetworkName
from benchmarks.worker import Worker

# What glibc reads when a process starts: no block is mapped by itself, nothing goes back.
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
}


@dataclass(frozen=True)
class Peer:
    """A way to train.

    Attributes:
      name: in tables.
      module: the worker.
      settings: of the worker, beside network, batch size and dtype.
      beside: key of the peer that differs in the optimizer only, if that is SGD.
      variables: of its environment, beside those of the user.
    """

    name: str
    module: str
    settings: Mapping[str, Any]
    beside: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


_TORCH, _JAX = "benchmarks.torch_step", "benchmarks.jax_step"
PEERS = {
    "torch-sgd": Peer("PyTorch, SGD", _TORCH, {"optimizer": "sgd"}),
    "torch-ovsw": Peer("PyTorch, OvSW", _TORCH, {"optimizer": "ovsw"}, "torch-sgd"),
    "torch-ovsw-kept": Peer(
        "PyTorch, OvSW, memory kept", _TORCH, {"optimizer": "ovsw"}, variables=KEEP_MEMORY
    ),
    "plain-sgd": Peer("plain JAX, SGD", _JAX, {"code": "plain", "optimizer": "sgd"}),
    "plain-sgd-kept": Peer(
        "plain JAX, SGD, memory kept",
        _JAX,
        {"code": "plain", "optimizer": "sgd"},
        variables=KEEP_MEMORY,
    ),
    "sgd": Peer("ovsw_jax, SGD", _JAX, {"optimizer": "sgd"}),
    "ovsw": Peer("ovsw_jax, OvSW", _JAX, {"optimizer": "ovsw"}, "sgd"),
    "ovsw-metrics": Peer(
        "ovsw_jax, OvSW, flip_metrics", _JAX, {"optimizer": "ovsw", "metrics": True}, "sgd"
    ),
    "sgd-kept": Peer(
        "ovsw_jax, SGD, memory kept", _JAX, {"optimizer": "sgd"}, variables=KEEP_MEMORY
    ),
    "ovsw-kept": Peer(
        "ovsw_jax, OvSW, memory kept",
        _JAX,
        {"optimizer": "ovsw"},
        "sgd-kept",
        variables=KEEP_MEMORY,
    ),
}
BATCH_SIZES: dict[NetworkName, int] = {"resnet20": 128, "resnet18": 64, "small": 8}
_SECONDS = 0.4  # of a measurement, at least


def main(
    networks: tuple[NetworkName, ...] = ("resnet20", "resnet18"),
    batch_size: int | None = None,
    peers: tuple[str, ...] = tuple(PEERS),
    dtype: Literal["float32", "bfloat16"] = "float32",
    repeats: int = 7,
    quick: bool = False,
    json_file: Path | None = None,
) -> None:
    """Prints a table for each network.

    Args:
      networks: what is trained.
      batch_size: images in a step; by default 128 for resnet20 and 64 for resnet18.
      peers: which ones, by their keys.
      dtype: of forward and backward pass; PyTorch does bfloat16 by autocast.
      repeats: measurements of each peer.
      quick: a small network and few repeats, to see that it runs.
      json_file: also write all measurements there.
    """
    if quick:
        networks, repeats = ("small",), 2
    measuring.check_positive(repeats=repeats)
    if batch_size is not None:
        measuring.check_positive(batch_size=batch_size)
    chosen, missing = _choose(peers)
    if missing:
        print(f"No PyTorch here, so without {', '.join(missing)}: pip install -e '.[torch]'\n")
    written = {}
    for network in networks:
        size = batch_size or BATCH_SIZES[network]
        seconds, info = _measure(chosen, network, size, dtype, repeats)
        found = measuring.describe(measuring.environment())
        print(f"{network}, batches of {size}, {dtype}; {found}; n = {repeats}\n")
        _print(chosen, seconds, info, size)
        print()
        written[network] = {
            "batch_size": size,
            "peers": {k: asdict(chosen[k]) | info[k] | {"seconds": seconds[k]} for k in chosen},
        }
    measuring.write_json(
        json_file,
        benchmark="training_step",
        settings={"dtype": dtype, "missing": missing},
        networks=written,
    )


def _choose(keys: Sequence[str]) -> tuple[dict[str, Peer], list[str]]:
    """The peers of these keys, and names of those that need what is not installed."""
    unknown = [key for key in keys if key not in PEERS]
    if unknown or not keys:
        raise ValueError(f"--peers {' '.join(unknown)}: give one or more of {', '.join(PEERS)}.")
    chosen = {key: PEERS[key] for key in PEERS if key in keys}
    if importlib.util.find_spec("torch") is not None:
        return chosen, []
    missing = [peer.name for peer in chosen.values() if peer.module == _TORCH]
    chosen = {key: peer for key, peer in chosen.items() if peer.module != _TORCH}
    if not chosen:
        raise ValueError(f"{', '.join(missing)} need PyTorch: pip install -e '.[torch]'")
    return chosen, missing


def _measure(
    peers: Mapping[str, Peer], network: str, batch_size: int, dtype: str, repeats: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """By peer, seconds a step, and what the worker said about itself."""
    common = {"network": network, "batch_size": batch_size, "dtype": dtype}
    with contextlib.ExitStack() as stack:
        workers = {}
        for key, peer in peers.items():  # one after another: first steps are timed
            worker = Worker(peer.module, common | dict(peer.settings), peer.variables)
            workers[key] = stack.enter_context(worker)
        ways = {}
        for key, worker in workers.items():
            worker.measure(1)  # memory is still growing
            ways[key] = partial(worker.measure, max(1, round(_SECONDS / worker.measure(1))))
        return measuring.interleaved(ways, repeats), {k: w.info for k, w in workers.items()}


def _print(
    peers: Mapping[str, Peer],
    seconds: Mapping[str, Sequence[float]],
    info: Mapping[str, Any],
    batch_size: int,
) -> None:
    base = next(iter(peers))
    rates = {key: [batch_size / s for s in measured] for key, measured in seconds.items()}
    rows = []
    for key, peer in peers.items():
        said = info[key]
        rows.append(
            (
                peer.name,
                f"{measuring.median(rates[key]):.0f}",
                measuring.spread(rates, key, base),
                _cost(seconds, key, peer.beside),
                f"{said['first_step_seconds']:.1f}",
                _megabytes(said.get("temporary_bytes")),
                _megabytes(said.get("kept_bytes")),
            )
        )
    heads = ("peer", "images/s", f"rate / {peers[base].name} (median, quartiles)")
    more = ("cost of the rules, %", "first step, s", "temporaries, MB", "kept, MB")
    measuring.print_table((*heads, *more), rows)


def _cost(seconds: Mapping[str, Sequence[float]], key: str, beside: str | None) -> str:
    """Share of a step that its twin with SGD does not take, if that was measured."""
    if beside is None or beside not in seconds:
        return ""
    low, median, high = measuring.ratios(seconds, beside, key)
    return f"{100 * (1 - median):.1f} ({100 * (1 - high):.1f} to {100 * (1 - low):.1f})"


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.0f}"


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except ValueError as error:
        sys.exit(f"error: {error}")
