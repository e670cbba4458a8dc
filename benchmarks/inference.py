"""Milliseconds of an evaluation, in several ways, beside the float network in onnxruntime.

    python -m benchmarks.inference [--networks cifar-resnet20] [--threads 1] [--json-file FILE]

A network with random weights answers random images. Each way is a process of its own with as many
cores as threads; they take turns, and the ratio is that of times within a turn:

- *onnxruntime, float* is the twin with real convolutions and ReLU, *int8* the same quantised;
- *JAX, float* is that twin under `jax.jit`; *JAX* the binary network likewise, its parameters
  being arguments; *JAX, frozen* is `ovsw.deploy.freeze`, whose weights are constants;
- *onnxruntime, frozen* is `to_onnx` of the binary network; *C* is `ovsw.deploy.compile`, on one
  thread.

`layer-...` are binary 3x3 convolutions alone, with the sign of their input. A way that lacks its
package, or does not know a network, is left out, and the reason printed.
"""

import contextlib
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from benchmarks import measuring
from benchmarks.worker import Worker

NAMES = {
    "onnxruntime-float": "onnxruntime, float",
    "onnxruntime-int8": "onnxruntime, int8",
    "jax-float": "JAX, float",
    "jax": "JAX",
    "jax-frozen": "JAX, frozen",
    "onnxruntime-frozen": "onnxruntime, frozen",
    "c": "C",
}
_SECONDS = 0.3  # of a measurement, at least


def main(
    networks: tuple[str, ...] = ("resnet18-224", "cifar-resnet18", "cifar-resnet20", "vgg-small"),
    ways: tuple[str, ...] = tuple(NAMES),
    batch_sizes: tuple[int, ...] = (1, 64),
    threads: int = 1,
    repeats: int = 7,
    quick: bool = False,
    json_file: Path | None = None,
) -> None:
    """Prints a table for each network and batch size.

    Args:
      networks: keys of `benchmarks.inference_worker.NETWORKS`.
      ways: keys of `NAMES`; the first one is what the others are compared with.
      batch_sizes: images in a call.
      threads: of each way.
      repeats: measurements of each way.
      quick: a small network and few repeats, to see that it runs.
      json_file: also write all measurements there.
    """
    if quick:
        networks, batch_sizes, repeats = ("small",), (2,), 2
    measuring.check_positive(repeats=repeats, threads=threads)
    if unknown := [way for way in ways if way not in NAMES]:
        raise ValueError(f"--ways {' '.join(unknown)}: give some of {', '.join(NAMES)}.")
    written = []
    for network in networks:
        for batch_size in batch_sizes:
            measuring.check_positive(batch_sizes=batch_size)
            seconds, info, failed = _measure(network, ways, batch_size, threads, repeats)
            found = measuring.describe(measuring.environment())
            print(
                f"{network}, batches of {batch_size}, {threads} threads; {found}; n = {repeats}\n"
            )
            _print(seconds, info)
            for way, why in failed.items():
                print(f"\n{NAMES[way]} is left out: {why}")
            print(flush=True)
            measured = {"network": network, "batch_size": batch_size, "seconds": seconds}
            written.append(measured | {"info": info, "left_out": failed})
    settings = {"threads": threads, "repeats": repeats}
    measuring.write_json(json_file, benchmark="inference", settings=settings, measured=written)


def _measure(
    network: str, ways: Sequence[str], batch_size: int, threads: int, repeats: int
) -> tuple[dict[str, list[float]], dict[str, Any], dict[str, str]]:
    """By way, seconds a call, what its worker said of itself, and why some are left out."""
    settings = {"network": network, "batch_size": batch_size, "threads": threads}
    workers, failed = {}, {}
    with contextlib.ExitStack() as stack:
        for way in ways:
            try:
                made = Worker("benchmarks.inference_worker", settings | {"way": way}, {})
            except RuntimeError as error:
                failed[way] = str(error)
            else:
                workers[way] = stack.enter_context(made)
        calls = {}
        for way, made in workers.items():
            steps = max(1, round(_SECONDS / made.measure(1)))
            calls[way] = functools.partial(made.measure, steps)
        seconds = measuring.interleaved(calls, repeats)
        return seconds, {way: made.info for way, made in workers.items()}, failed


def _print(seconds: Mapping[str, Sequence[float]], info: Mapping[str, Any]) -> None:
    base = next(iter(seconds))
    speed = {way: [1 / s for s in measured] for way, measured in seconds.items()}
    rows = [
        (
            NAMES[way] + (f" ({info[way]['path']})" if "path" in info[way] else ""),
            f"{1000 * measuring.median(measured):.2f}",
            measuring.spread(speed, way, base),
        )
        for way, measured in seconds.items()
    ]
    measuring.print_table(("", "ms a call", f"speed, {NAMES[base]} being 1"), rows)


if __name__ == "__main__":
    tyro.cli(main)
