"""How time and state of an optimizer step grow, with the weights and with the number of kernels.

    python -m benchmarks.growth --out DIR [--largest 100000000] [--repeats 5]

Writes growth.json and growth.png. All parameters are latent kernels of equal shape, 3x3 with as
many channels in as out; 1 % of the weights flip between two steps. Either there are 20 kernels,
about as many as a ResNet18 has, of ever more weights; or there are a million weights, in ever more
kernels. Repeats of the optimizers are interleaved. 100 million weights need 8 GB of memory, and a
thousand kernels (`--most-kernels 1000`) minutes to compile.
"""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import growth_figure, measuring
from benchmarks.optimizer_step import OPTIMIZERS
from benchmarks.stepper import Stepper, enough_steps, small_gradients

NAMES = ("SGD", "Adam", "OvSW, packed", "OvSW, EMA")
KERNELS = 20  # where the number of weights grows
WEIGHTS = 1_000_000  # where the number of kernels grows
FLIPS = 0.01
SIZES = (10**5, 10**5.5, 10**6, 10**6.5, 10**7, 10**7.5, 10**8)
COUNTS = (10, 30, 100, 300, 1000)


def main(
    out: Path | None = None,
    largest: int = 10**8,
    most_kernels: int = 300,
    repeats: int = 5,
    quick: bool = False,
    json_file: Path | None = None,
) -> None:
    """Prints a table a series, and writes growth.json and the figure growth.png.

    Args:
      out: folder to write to; without it, only tables are printed.
      largest: no more weights than that.
      most_kernels: no more kernels than that.
      repeats: measurements of each optimizer at each point.
      quick: two points a series and few repeats, to see that it runs.
      json_file: also write all measurements there.
    """
    sizes = [round(size) for size in SIZES if size <= largest]
    counts = [count for count in COUNTS if count <= most_kernels]
    kernels, weights = KERNELS, WEIGHTS
    if quick:
        sizes, counts, repeats, kernels, weights = [10**4, 10**5], [2, 4], 2, 4, 10**4
    if not sizes:
        raise ValueError(f"--largest {largest} leaves nothing: the smallest is {SIZES[0]:,}.")
    if not counts:
        raise ValueError(f"--most-kernels {most_kernels} leaves nothing: {COUNTS[0]} are fewest.")
    measuring.check_positive(repeats=repeats)
    print(f"float32, {FLIPS:.0%} flip; ", end="")
    print(f"{measuring.describe(measuring.environment())}; n = {repeats}\n")
    series = {
        "weights": _series("weights", [(size, kernels) for size in sizes], repeats),
        "kernels": _series("kernels", [(weights, count) for count in counts], repeats),
    }
    written = {"benchmark": "growth", "settings": {"flips": FLIPS}, "series": series}
    measuring.write_json(json_file, **written)
    if out is not None:
        measuring.write_json(out / "growth.json", **written)
        growth_figure.save(series, out / "growth.png")


def make_kernels(weights: int, kernels: int) -> dict[str, Any]:
    """`kernels` latent kernels of about `weights` weights in all, 9 each at least."""
    channels = max(1, round(math.sqrt(weights / kernels / 9)))
    rng = np.random.default_rng(0)
    return {
        f"conv{i}": {
            "latent_kernel": jnp.asarray(
                rng.standard_normal((3, 3, channels, channels), np.float32)
            )
        }
        for i in range(kernels)
    }


def _measure(weights: int, kernels: int, repeats: int) -> dict[str, Any]:
    """One point: what there is, and for each optimizer what was measured."""
    params = make_kernels(weights, kernels)
    gradients = small_gradients(params)
    steppers = {name: Stepper(OPTIMIZERS[name](), params, gradients, flips=FLIPS) for name in NAMES}
    steps = enough_steps(steppers["SGD"], 2)
    ways = {name: partial(s.measure, steps) for name, s in steppers.items()}
    seconds = measuring.interleaved(ways, repeats)
    return {
        "weights": sum(p.size for p in jax.tree.leaves(params)),
        "kernels": kernels,
        "optimizers": {
            name: {
                "seconds": seconds[name],
                "state_bytes": s.state_bytes,
                "compile_seconds": s.compile_seconds,
            }
            for name, s in steppers.items()
        },
    }


def _series(varied: str, cases: Sequence[tuple[int, int]], repeats: int) -> list[dict[str, Any]]:
    """Measures cases of (weights, kernels), and prints a row as soon as each is known."""
    points = []

    def rows() -> Iterator[Sequence[str]]:
        for weights, kernels in cases:
            points.append(_measure(weights, kernels, repeats))
            yield _row(varied, points[-1])

    heads = (f"{varied}; ms a step (bytes of state a weight, first step in s)", *NAMES)
    measuring.print_table(heads, rows())
    print()
    return points


def _row(varied: str, point: Mapping[str, Any]) -> list[str]:
    row = [f"{point[varied]:,}"]
    for name in NAMES:
        of = point["optimizers"][name]
        state = of["state_bytes"] / point["weights"]
        milliseconds = 1e3 * measuring.median(of["seconds"])
        row.append(f"{milliseconds:.3g} ({state:.2f}, {of['compile_seconds']:.1f})")
    return row


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except ValueError as error:
        sys.exit(f"error: {error}")
