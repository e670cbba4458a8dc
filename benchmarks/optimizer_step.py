"""Time and state of one optimizer step, as ratios to plain SGD.

    python -m benchmarks.optimizer_step [--network resnet20] [--repeats 15] [--json-file FILE]

Every optimizer updates the same parameters with the same gradients, jitted, with donated buffers,
while 1 % of the latent weights flip between two steps (`--flips`). Repeats are interleaved
(A B C A B C ...), so that a drift of the machine meets all alike; the table gives the median of
the ratios to SGD within a repeat, and their quartiles.

The *floor* of an optimizer reads gradients, and reads and writes parameters and state, once:
20 bytes a weight for SGD, 28 for Adam. Over the time of a step it is a rate, to be held against
the bandwidth of the memory; parameters that fit in a cache go beyond that.
"""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import optax
import tyro

import ovsw_jax as ovsw
from benchmarks import measuring
from benchmarks.literal_ovsw import literal_ovsw
from benchmarks.networks import NetworkName, initial_parameters, latent_weights
from benchmarks.stepper import Stepper, enough_steps, small_gradients

RATE = 1e-4  # no step flips a sign by itself
STEPS = 8  # of a measurement, at least


def _sgd() -> optax.GradientTransformation:
    return optax.sgd(RATE, momentum=0.9)


def _rules(sad: optax.GradientTransformation) -> optax.GradientTransformation:
    """Both rules before SGD, without weight decay, as the other optimizers."""
    return optax.chain(ovsw.ags(), sad, _sgd())


OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "SGD": _sgd,
    "Adam": lambda: optax.adam(RATE),
    "LARS (Optax)": lambda: optax.lars(RATE),
    "SGD + AGS": lambda: optax.chain(ovsw.ags(), _sgd()),
    "SGD + flip tracking, packed": lambda: optax.chain(ovsw.track_flip_state(), _sgd()),
    "OvSW, literal": lambda: optax.chain(literal_ovsw(), _sgd()),
    "OvSW, EMA": lambda: _rules(ovsw.sad(state="ema")),
    "OvSW, packed": lambda: _rules(ovsw.sad(state="packed")),
    "ovsw_sgd (packed, with weight decay)": lambda: ovsw.ovsw_sgd(RATE),
}


@dataclass(frozen=True)
class Measured:
    """What was found about one optimizer.

    Attributes:
      state_bytes: size of its state.
      floor_bytes: what a step must move.
      compile_seconds: of the first step.
      seconds: of a step, one for each repeat.
    """

    state_bytes: int
    floor_bytes: int
    compile_seconds: float
    seconds: list[float]


def main(
    network: NetworkName = "resnet18",
    repeats: int = 15,
    flips: float = 0.01,
    quick: bool = False,
    json_file: Path | None = None,
) -> None:
    """Prints the table.

    Args:
      network: whose parameter shapes to use.
      repeats: measurements of each optimizer, each of several steps.
      flips: share of the latent weights that flip between two steps.
      quick: a small network and few repeats, to see that it runs.
      json_file: also write all measurements there.
    """
    if quick:
        network, repeats = "small", 3
    measuring.check_positive(repeats=repeats)
    params = initial_parameters(network)
    latent = latent_weights(params)
    found = measuring.environment()
    print(f"{network}: {latent:,} latent weights, {flips:.1%} flip; float32; ", end="")
    print(f"{measuring.describe(found)}; n = {repeats}\n")
    gradients = small_gradients(params)
    steppers = {
        name: Stepper(make(), params, gradients, flips=flips) for name, make in OPTIMIZERS.items()
    }
    steps = STEPS if quick else enough_steps(steppers["SGD"], STEPS)
    ways = {name: partial(s.measure, steps) for name, s in steppers.items()}
    seconds = measuring.interleaved(ways, repeats)
    measured = {
        name: Measured(s.state_bytes, s.floor_bytes, s.compile_seconds, seconds[name])
        for name, s in steppers.items()
    }
    _print(measured, latent)
    measuring.write_json(
        json_file,
        benchmark="optimizer_step",
        settings={"network": network, "steps": steps, "flips": flips, "dtype": "float32"},
        latent_weights=latent,
        optimizers={name: asdict(m) for name, m in measured.items()},
    )


def _print(measured: dict[str, Measured], latent: int) -> None:
    seconds = {name: m.seconds for name, m in measured.items()}
    heads = ("optimizer", "time / SGD (median, quartiles)", "ms a step", "floor, GB/s")
    rows = []
    for name, m in measured.items():
        median = measuring.median(m.seconds)
        extra = (m.state_bytes - measured["SGD"].state_bytes) / latent
        rows.append(
            (
                name,
                measuring.spread(seconds, name, "SGD"),
                f"{1e3 * median:.2f}",
                f"{m.floor_bytes / median / 1e9:.1f}",
                f"{extra:.2f}",
                f"{m.compile_seconds:.1f}",
            )
        )
    more = ("bytes a latent weight beyond momentum", "first step, s")
    measuring.print_table((*heads, *more), rows)


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except ValueError as error:
        sys.exit(f"error: {error}")
