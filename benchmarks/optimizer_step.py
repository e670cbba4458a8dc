"""Time and state of one optimizer step, as ratios to plain SGD.

    python -m benchmarks.optimizer_step [--network resnet20] [--repeats 15] [--json-file FILE]

Every optimizer updates the same parameters with the same gradients, jitted, with donated buffers.
Repeats are interleaved (A B C A B C ...), so that a drift of the machine meets all alike; the
table gives the median of the ratios to SGD within a repeat, and their quartiles.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx

import ovsw_jax as ovsw

NETWORKS = {"resnet18": ovsw.models.CifarResNet18, "resnet20": ovsw.models.CifarResNet20}
OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "SGD": lambda: optax.sgd(0.1, momentum=0.9),
    "Adam": lambda: optax.adam(1e-3),
    "SGD + AGS": lambda: optax.chain(ovsw.ags(), optax.sgd(0.1, momentum=0.9)),
    "SGD + flip tracking, packed": lambda: optax.chain(
        ovsw.track_flip_state(), optax.sgd(0.1, momentum=0.9)
    ),
    "OvSW, packed": lambda: _ovsw("packed"),
    "OvSW, EMA": lambda: _ovsw("ema"),
}
STEPS = 8  # a measurement is this many steps


def _ovsw(state: Literal["packed", "ema"]) -> optax.GradientTransformation:
    """The rules alone before SGD: like the others without weight decay."""
    return optax.chain(ovsw.ags(), ovsw.sad(state=state), optax.sgd(0.1, momentum=0.9))


def main(
    network: Literal["resnet18", "resnet20"] = "resnet18",
    repeats: int = 15,
    json_file: Path | None = None,
) -> None:
    """Prints the table.

    Args:
      network: whose parameter shapes to use.
      repeats: measurements of each optimizer, each of several steps.
      json_file: also write all measurements there.
    """
    params = _parameters(network)
    latent = sum(
        w.size
        for w, m in zip(
            jax.tree.leaves(params), jax.tree.leaves(ovsw.latent_mask(params)), strict=True
        )
        if m
    )
    print(f"{network}: {latent:,} latent weights, {jax.devices()[0].device_kind}")
    runs = {name: _Stepper(make(), params) for name, make in OPTIMIZERS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            seconds[name].append(run.measure())
    print("| optimizer | time / SGD (median, quartiles) | bytes a latent weight beyond momentum |")
    print("| --- | ---: | ---: |")
    momentum = runs["SGD"].state_bytes
    for name, run in runs.items():
        ratios = np.array(seconds[name]) / np.array(seconds["SGD"])
        low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        extra = (run.state_bytes - momentum) / latent
        print(f"| {name} | {median:.2f} ({low:.2f} to {high:.2f}) | {extra:.2f} |")
    if json_file is not None:
        json_file.write_text(json.dumps({"network": network, "seconds": seconds}, indent=2) + "\n")


class _Stepper:
    """One optimizer with its own copy of parameters and state."""

    def __init__(self, tx: optax.GradientTransformation, params: Any):
        def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        self._params = jax.tree.map(jnp.copy, params)
        self._state = jax.jit(tx.init)(self._params)
        self._grads = jax.tree.map(lambda p: 0.01 * p[::-1], params)
        self._step = jax.jit(step, donate_argnums=(0, 1))
        self.state_bytes = sum(x.nbytes for x in jax.tree.leaves(self._state))
        self.measure()

    def measure(self) -> float:
        """Seconds a step."""
        started = time.perf_counter()
        for _ in range(STEPS):
            self._params, self._state = self._step(self._params, self._state, self._grads)
        jax.block_until_ready(self._params)
        return (time.perf_counter() - started) / STEPS


def _parameters(network: str) -> Any:
    @jax.jit
    def init() -> Any:
        model = NETWORKS[network](10, rngs=nnx.Rngs(0))
        return nnx.to_pure_dict(nnx.state(model, nnx.Param))

    return init()


if __name__ == "__main__":
    tyro.cli(main)
