"""How time and state of an optimizer step grow, with the weights and with the number of kernels.

    python -m benchmarks.growth --out DIR [--largest 100000000] [--repeats 5]

Writes growth.json and growth.png. All parameters are latent kernels of equal shape, 3x3 with as
many channels in as out; 1 % of the weights flip between two steps. Either there are 20 kernels,
about as many as a ResNet18 has, of ever more weights; or there are a million weights, in ever more
kernels. Repeats of the optimizers are interleaved. 100 million weights need 8 GB of memory.
"""

import math
import sys
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
    repeats: int = 5,
    quick: bool = False,
    json_file: Path | None = None,
) -> None:
    """Prints a table a series, and writes growth.json and the figure growth.png.

    Args:
      out: folder to write to; without it, only tables are printed.
      largest: no more weights than that.
      repeats: measurements of each optimizer at each point.
      quick: two points a series and few repeats, to see that it runs.
      json_file: also write all measurements there.
    """
    sizes, counts = [round(size) for size in SIZES if size <= largest], list(COUNTS)
    kernels, weights = KERNELS, WEIGHTS
    if quick:
        sizes, counts, repeats, kernels, weights = [10**4, 10**5], [2, 4], 2, 4, 10**4
    if not sizes:
        raise ValueError(f"--largest {largest} leaves nothing: the smallest is {SIZES[0]:,}.")
    measuring.check_positive(repeats=repeats)
    print(f"float32, {FLIPS:.0%} flip; ", end="")
    print(f"{measuring.describe(measuring.environment())}; n = {repeats}\n")
    series = {
        "weights": [_measure(size, kernels, repeats) for size in sizes],
        "kernels": [_measure(weights, count, repeats) for count in counts],
    }
    for varied, points in series.items():
        _print(varied, points)
        print()
    written = {"benchmark": "growth", "settings": {"flips": FLIPS}, "series": series}
    measuring.write_json(json_file, **written)
    if out is not None:
        measuring.write_json(out / "growth.json", **written)
        growth_figure.figure(series).savefig(out / "growth.png")


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


def _print(varied: str, points: list[dict[str, Any]]) -> None:
    heads = [f"{varied}; ms a step (bytes of state a weight, first step in s)", *NAMES]
    rows = []
    for point in points:
        row = [f"{point[varied]:,}"]
        for name in NAMES:
            of = point["optimizers"][name]
            state = of["state_bytes"] / point["weights"]
            milliseconds = 1e3 * measuring.median(of["seconds"])
            row.append(f"{milliseconds:.3g} ({state:.2f}, {of['compile_seconds']:.1f})")
        rows.append(row)
    measuring.print_table(heads, rows)


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except ValueError as error:
        sys.exit(f"error: {error}")
