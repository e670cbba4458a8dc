"""Training steps on a slice of TPUs: the ways to divide them over its chips.

As in `programs.py`, everything is abstract, and no array is made.
"""

import re
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import ovsw_jax as ovsw
from benchmarks.accelerators.programs import NETWORKS, OPTIMIZERS, Network, NetworkName
from experiments.accelerators import Target, for_platform, lower_for
from experiments.training.sharding import Grid

Way = Literal[
    "data", "model", "fsdp", "own images", "fsdp, own images", "shard_map", "pmap", "scan"
]
WAYS: tuple[Way, ...] = get_args(Way)
MODEL = 4  # chips that divide kernels, with "model"
STEPS = 4  # of a call, with "scan"


@dataclass(frozen=True)
class PodProgram:
    """A training step by OvSW in bfloat16, divided over all chips of a target.

    Attributes:
      network: key of `NETWORKS`.
      way: "data": images are divided, all else is whole on every chip. "model": large kernels and
        their optimizer state are kept by filters over `MODEL` chips; "fsdp": over all chips.
        "own images": batch norm of each chip's own. "shard_map" and "pmap": as "data", mapped.
        "scan": as "data", `STEPS` steps a call.
      code: of whose sources a reading is.
    """

    network: NetworkName
    way: Way
    code: Literal["pods"] = "pods"

    @property
    def name(self) -> str:
        """For a file.

        >>> PodProgram("ResNet18", "fsdp, own images").name
        'ResNet18-fsdp-own-images-pods'
        """
        return "-".join(re.findall(r"\w+", " ".join(astuple(self))))


Step = Callable[..., tuple[Any, Any, Any]]  # from params, state, statistics, images, labels


def lower_pod(program: PodProgram, target: Target) -> Any:
    """Lowers a program."""
    network, way = NETWORKS[program.network], program.way
    chips = len(target.devices)
    grid = Grid.of(target.devices, MODEL if way == "model" else 1, fsdp="fsdp" in way)
    graph, params, statistics = _abstract_model(network, way, chips)
    tx = OPTIMIZERS["ovsw"]()
    trained = (params, jax.eval_shape(tx.init, params), statistics)
    shape = (chips * network.images, network.size, network.size, 3)
    batch: tuple[Any, ...] = (
        jax.ShapeDtypeStruct(shape, jnp.float32),
        jax.ShapeDtypeStruct(shape[:1], jnp.int32),
    )
    if way == "pmap":
        split = [_resized(x, (chips, network.images, *x.shape[1:])) for x in batch]
        with for_platform(target.platform):
            return _pmapped(_step_on(graph, tx), target).lower(*trained, *split)
    kept = jax.tree.map(lambda x: grid.kept(x.shape), trained)
    images = grid.batch
    if way == "shard_map":
        step = _mapped(_step_on(graph, tx), grid)
    elif way == "scan":
        step = _several(_step(graph, tx, grid))
        batch = tuple(_resized(x, (STEPS, *x.shape)) for x in batch)
        images = NamedSharding(grid.mesh, P(None, *grid.batch.spec))
    else:
        step = _step(graph, tx, grid)
    jitted = jax.jit(step, donate_argnums=(0, 1, 2), out_shardings=kept)
    placed = jax.tree.map(lambda x, where: _resized(x, x.shape, where), trained, kept)
    return lower_for(target, jitted, *placed, *(_resized(x, x.shape, images) for x in batch))


def _abstract_model(network: Network, way: Way, chips: int) -> tuple[Any, Any, Any]:
    """Graph, parameters and statistics of batch norm."""

    def made() -> Any:
        model: Any = network.ours(network.classes, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
        model.train()
        if "own images" in way:
            model.set_attributes(ovsw.nn.BatchNorm, batch_groups=chips)
        if way in ("shard_map", "pmap"):
            model.set_attributes(ovsw.nn.BatchNorm, axis_name="data")
        return model

    split: Any = nnx.split(nnx.eval_shape(made), nnx.Param, ...)
    graph, *states = split
    return graph, *map(nnx.to_pure_dict, states)


def _resized(x: Any, shape: tuple[int, ...], sharding: Any = None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, x.dtype, sharding=sharding)


def _loss(graph: Any, params: Any, statistics: Any, images: Any, labels: Any) -> tuple[Any, Any]:
    model: Any = nnx.merge(graph, params, statistics)
    logits = model(images).astype(jnp.float32)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(losses), nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))


def _step(graph: Any, tx: optax.GradientTransformation, grid: Grid) -> Step:
    """Of the whole batch: XLA divides it as its arguments are."""

    def step(params: Any, state: Any, statistics: Any, images: Any, labels: Any) -> Any:
        def loss(params: Any) -> tuple[Any, Any]:
            return _loss(graph, grid.gathered(params), statistics, images, labels)

        gradients, statistics = jax.grad(loss, has_aux=True)(params)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, statistics

    return step


def _several(step: Step) -> Step:
    """As many steps as there are batches."""

    def steps(params: Any, state: Any, statistics: Any, images: Any, labels: Any) -> Any:
        def one(carry: Any, batch: Any) -> tuple[Any, None]:
            return step(*carry, *batch), None

        return jax.lax.scan(one, (params, state, statistics), (images, labels))[0]

    return steps


def _step_on(graph: Any, tx: optax.GradientTransformation) -> Step:
    """Of one device's images, on a mapped axis `data`."""

    def step(params: Any, state: Any, statistics: Any, images: Any, labels: Any) -> Any:
        def loss(params: Any) -> tuple[Any, Any]:
            return _loss(graph, params, statistics, images, labels)

        gradients, statistics = jax.grad(loss, has_aux=True)(params)
        updates, state = tx.update(jax.lax.pmean(gradients, "data"), state, params)
        return optax.apply_updates(params, updates), state, statistics

    return step


def _mapped(step: Step, grid: Grid) -> Step:
    specs = (P(), P(), P(), P("data"), P("data"))
    return jax.shard_map(step, mesh=grid.mesh, in_specs=specs, out_specs=P(), check_vma=False)


def _pmapped(step: Step, target: Target) -> Any:
    return jax.pmap(
        step,
        axis_name="data",
        in_axes=(None, None, None, 0, 0),
        out_axes=None,
        devices=target.devices,
    )
