"""Bytes a parameter of the optimizers, counted and from compiled training steps (App. E.2).

    python -m benchmarks.memory [--network resnet18|resnet20] [--batch-size 8] [--json-file FILE]

Steps are compiled and never run, so every number is exact, for this backend and version of XLA.

- *counted*: bytes a parameter that a mixed-precision step holds, counted as the paper does:
  bfloat16 weights and gradients (2 + 2), float32 weights (4), and the optimizer state, which is
  measured: the size of what `init` makes, over the number of all parameters.
- *held*: what the compiled step takes in and gives back in place (donated): weights, optimizer
  state and the statistics of batch norm.
- *temporary*: what it needs beyond that and is free again after it. Most of that are activations,
  alike for all optimizers, so the table gives the difference to SGD. Temporaries of an optimizer
  reuse the room of activations: the larger the batch, the smaller the difference.

`float32` trains in float32 throughout. `mixed` keeps float32 weights, of which the loss takes
bfloat16 copies; the gradients are bfloat16 and become float32 in front of the optimizer.
"""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import tyro
from flax import nnx

import ovsw_jax as ovsw
from benchmarks import measuring
from benchmarks.networks import NETWORKS, NetworkName, latent_weights

PRECISIONS = ("float32", "mixed")
BFLOAT16_WEIGHT, BFLOAT16_GRADIENT, FLOAT32_WEIGHT = 2, 2, 4
PAPER = {"Adam": "16", "OvSW, packed": "14", "OvSW, EMA": "20 in the authors' code"}


def _bop() -> optax.GradientTransformation:
    """Bop for the signs and Adam for all other parameters, as its authors train."""

    def kinds(params: Any) -> Any:
        return jax.tree.map(lambda m: "binary" if m else "real", ovsw.latent_mask(params))

    return optax.partition({"binary": ovsw.bop(), "real": optax.adam(1e-3)}, kinds)


OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "SGD": lambda: optax.sgd(0.1, momentum=0.9),
    "Adam": lambda: optax.adam(1e-3),
    "LARS": lambda: ovsw.lars_sgd(0.1),
    "Bop": _bop,
    "OvSW, packed": lambda: ovsw.ovsw_sgd(0.1),
    "OvSW, EMA": lambda: ovsw.ovsw_sgd(0.1, state="ema"),
}


@dataclass(frozen=True)
class Step:
    """Memory of one compiled training step, in bytes, as the compiler reports it.

    Attributes:
      held: arguments that are given back in place.
      arguments: all arguments, the batch included.
      outputs: all results; `held` of them lie in the arguments.
      temporary: beyond arguments and results.
    """

    held: int
    arguments: int
    outputs: int
    temporary: int

    @property
    def peak(self) -> int:
        """At most this much at once."""
        return self.arguments + self.outputs - self.held + self.temporary


def main(
    network: NetworkName = "resnet18",
    batch_size: int = 8,
    quick: bool = False,
    json_file: Path | None = None,
) -> None:
    """Prints the table.

    Args:
      network: the network that is trained.
      batch_size: images in a step.
      quick: a small network, to see that it runs.
      json_file: also write all numbers there.
    """
    network = "small" if quick else network
    measuring.check_positive(batch_size=batch_size)
    model = nnx.eval_shape(lambda: NETWORKS[network](10, rngs=nnx.Rngs(0)))
    parameters, latent = count_parameters(model)
    print(
        f"{network}: {parameters:,} parameters, {latent:,} of them latent weights; batch of "
        f"{batch_size}; {measuring.describe(measuring.environment())}"
    )
    print("\nBytes a parameter:\n")
    print("| optimizer | state | counted | paper | held, float32 | held, mixed |", end="")
    print(" temporary - SGD's, float32 | mixed |\n| --- " + "| ---: " * 7 + "|")
    rows: dict[str, Any] = {}
    sgd: dict[str, Step] = {}
    for name, make in OPTIMIZERS.items():
        tx = make()
        steps = {p: compile_step(model, tx, p, (batch_size, 32, 32, 3)) for p in PRECISIONS}
        sgd = sgd or steps
        state = state_bytes(tx, model) / parameters
        held = [f"{steps[p].held / parameters:.2f}" for p in PRECISIONS]
        extra = [f"{(steps[p].temporary - sgd[p].temporary) / parameters:+.2f}" for p in PRECISIONS]
        cells = [f"{state:.2f}", f"{counted(state):.2f}", PAPER.get(name, ""), *held, *extra]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        rows[name] = {
            "state_bytes": state_bytes(tx, model),
            "steps": {p: asdict(s) | {"peak": s.peak} for p, s in steps.items()},
        }
    measuring.write_json(
        json_file,
        benchmark="memory",
        network=network,
        batch_size=batch_size,
        parameters=parameters,
        latent_weights=latent,
        optimizers=rows,
    )


def counted(state_per_parameter: float) -> float:
    """Bytes a parameter in mixed precision, as the paper counts them.

    >>> counted(8.0), counted(4.0 + 2.0)  # Adam; momentum and two bytes of flip state
    (16.0, 14.0)
    """
    return BFLOAT16_WEIGHT + BFLOAT16_GRADIENT + FLOAT32_WEIGHT + state_per_parameter


def count_parameters(model: nnx.Module) -> tuple[int, int]:
    """Number of all parameters, and of latent weights among them."""
    params = _params(model)
    return sum(p.size for p in jax.tree.leaves(params)), latent_weights(params)


def state_bytes(tx: optax.GradientTransformation, model: nnx.Module) -> int:
    """Size of the optimizer state for the parameters of `model`."""
    return _bytes(jax.eval_shape(tx.init, _params(model)))


def compile_step(
    model: nnx.Module, tx: optax.GradientTransformation, precision: str, images: tuple[int, ...]
) -> Step:
    """Compiles a training step that donates parameters, statistics and optimizer state.

    Args:
      model: the network, which may be abstract.
      tx: its optimizer.
      precision: "float32" or "mixed".
      images: shape of the batch of images.

    Returns:
      What the compiler says about its memory.
    """
    graph_and_states: Any = nnx.split(model, nnx.Param, ...)
    graph, rest = graph_and_states[0], nnx.to_pure_dict(graph_and_states[2])
    params = _params(model)
    compute_dtype = jnp.bfloat16 if precision == "mixed" else jnp.float32

    def step(params: Any, statistics: Any, state: Any, batch: Any, labels: Any) -> Any:
        def loss(narrow: Any) -> tuple[jax.Array, Any]:
            network: Any = nnx.merge(graph, narrow, statistics)
            network.train()
            logits = network(batch.astype(compute_dtype)).astype(jnp.float32)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            moved = nnx.to_pure_dict(nnx.state(network, nnx.Not(nnx.Param)))
            return jnp.mean(losses), moved

        narrow = jax.tree.map(lambda p: p.astype(compute_dtype), params)
        gradients, moved = jax.grad(loss, has_aux=True)(narrow)
        wide = jax.tree.map(lambda g, p: g.astype(p.dtype), gradients, params)
        updates, state = tx.update(wide, state, params)
        return optax.apply_updates(params, updates), moved, state

    batch = jax.ShapeDtypeStruct(images, jnp.float32)
    labels = jax.ShapeDtypeStruct(images[:1], jnp.int32)
    state = jax.eval_shape(tx.init, params)
    lowered = jax.jit(step, donate_argnums=(0, 1, 2)).lower(params, rest, state, batch, labels)
    memory: Any = lowered.compile().memory_analysis()
    return Step(
        memory.alias_size_in_bytes,
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.temp_size_in_bytes,
    )


def _params(model: nnx.Module) -> Any:
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except ValueError as error:
        sys.exit(f"error: {error}")
