"""The programs that are compiled: a training or an evaluation step of a network.

Everything is abstract: models, states and batches are shapes, and no array is made.
"""

from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import ovsw_jax as ovsw
from benchmarks import jax_step, plain_jax
from experiments.accelerators import Target, lower_for

NetworkName = Literal["CifarResNet18", "ResNet20", "ResNet18", "small"]
Code = Literal["ours", "remat", "plain"]
OptimizerName = Literal["sgd", "adam", "ovsw", "none"]
DtypeName = Literal["float32", "bfloat16"]
Phase = Literal["training", "evaluation"]


@dataclass(frozen=True)
class Network:
    """A network in both codes, and what it is trained on.

    Attributes:
      ours: makes the library's.
      plain: makes that of `plain_jax`.
      images: of a device in a step.
      size: height and width of an image.
      classes: number of logits.
    """

    ours: Callable[..., nnx.Module]
    plain: Callable[..., nnx.Module]
    images: int
    size: int
    classes: int


_PLAIN = plain_jax.NETWORKS
NETWORKS: dict[NetworkName, Network] = {
    "CifarResNet18": Network(ovsw.models.CifarResNet18, _PLAIN["resnet18"], 256, 32, 100),
    "ResNet20": Network(ovsw.models.CifarResNet20, _PLAIN["resnet20"], 1024, 32, 10),
    "ResNet18": Network(ovsw.models.ResNet18, _PLAIN["imagenet_resnet18"], 64, 224, 1000),
    "small": Network(ovsw.models.SmallResNet, _PLAIN["small"], 16, 32, 10),  # for tries
}
OPTIMIZERS: dict[OptimizerName, Callable[[], optax.GradientTransformation]] = {
    "sgd": jax_step.OPTIMIZERS["sgd"],
    "adam": lambda: optax.adam(1e-3),
    "ovsw": jax_step.OPTIMIZERS["ovsw"],
}


@dataclass(frozen=True)
class Program:
    """One cell of the tables.

    Attributes:
      network: key of `NETWORKS`.
      code: the library's layers, the same with the first stage computed again in the backward
        pass, or those of `plain_jax`.
      optimizer: key of `OPTIMIZERS`; "none" in an evaluation.
      dtype: of the arithmetic; parameters are float32.
      phase: a step of training, or of evaluation.
    """

    network: NetworkName
    code: Code
    optimizer: OptimizerName
    dtype: DtypeName
    phase: Phase = "training"

    @property
    def name(self) -> str:
        """For a file.

        >>> Program("ResNet20", "ours", "sgd", "bfloat16").name
        'ResNet20-ours-sgd-bfloat16-training'
        """
        return "-".join(astuple(self))


def lower_program(program: Program, target: Target) -> Any:
    """Lowers a program, data-parallel over all devices of a target."""
    network = NETWORKS[program.network]
    mesh = jax.sharding.Mesh(np.array(target.devices), ("data",), axis_types=(AxisType.Auto,))
    whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    graph, params, statistics = _abstract_model(network, program)
    count = network.images * len(target.devices)
    images = jax.ShapeDtypeStruct((count, network.size, network.size, 3), jnp.float32)
    labels = jax.ShapeDtypeStruct((count,), jnp.int32)
    batch = _placed((images, labels), split)
    if program.phase == "evaluation":
        step = jax.jit(partial(_evaluation_step, graph))
        return lower_for(target, step, *_placed((params, statistics), whole), *batch)
    tx = OPTIMIZERS[program.optimizer]()
    state = jax.eval_shape(tx.init, params)
    step = jax.jit(
        partial(_training_step, graph, tx), donate_argnums=(0, 1, 2), out_shardings=whole
    )
    return lower_for(target, step, *_placed((params, state, statistics), whole), *batch)


def _abstract_model(network: Network, program: Program) -> tuple[Any, Any, Any]:
    """Graph, parameters and statistics of batch norm."""
    dtype = None if program.dtype == "float32" else jnp.dtype(program.dtype)
    make = network.plain if program.code == "plain" else network.ours

    def model() -> Any:
        made: Any = make(network.classes, dtype=dtype, rngs=nnx.Rngs(0))
        if program.code == "remat":
            made.remat_stages = 1
        made.train() if program.phase == "training" else made.eval()
        return made

    graph_and_states: Any = nnx.split(nnx.eval_shape(model), nnx.Param, ...)
    graph, *states = graph_and_states
    return graph, *map(nnx.to_pure_dict, states)


def _placed(tree: Any, sharding: NamedSharding) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def _training_step(
    graph: Any,
    tx: optax.GradientTransformation,
    params: Any,
    state: Any,
    statistics: Any,
    images: jax.Array,
    labels: jax.Array,
) -> Any:
    def loss(params: Any) -> tuple[jax.Array, Any]:
        model: Any = nnx.merge(graph, params, statistics)
        logits = model(images).astype(jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))

    (value, statistics), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, statistics, value


def _evaluation_step(
    graph: Any, params: Any, statistics: Any, images: jax.Array, labels: jax.Array
) -> jax.Array:
    """How many labels the network predicts."""
    model: Any = nnx.merge(graph, params, statistics)
    return jnp.sum(jnp.argmax(model(images), axis=-1) == labels)
