"""A training loop of your own at scale: OvSW on a mesh of devices, stopped and resumed bit for bit.

    python examples/scale.py --folder /tmp/digits --steps 300

Grain gives batches, `jax.jit` divides the work over a data and a model axis, Orbax saves weights,
optimizer state and the place in the data. A second call with the same folder resumes from the last
checkpoint; a run that was stopped ends with the same bits as one that was not.

It takes as many devices as there are. Eight of them on a CPU:

    XLA_FLAGS="--xla_force_host_platform_device_count=8 \
      --xla_cpu_enable_concurrency_optimized_scheduler=false" python examples/scale.py

On a pod of TPUs, or on several GPU hosts, run it on each host: lines marked "pod" say what changes.
"""

import argparse
import logging
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from sklearn.datasets import load_digits

import ovsw_jax as ovsw

BATCH = 64  # images of a step, of all devices together; a multiple of their number
TRAINED_ON = 1_500  # of the 1,797 digits; the others are the test set
SAVE_EVERY = 50  # steps

logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax says much


# ---- data


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 8, 8, 1) from -1 to 1, and labels."""
    data = load_digits()
    return (data.images[..., None] / 8 - 1).astype(np.float32), data.target.astype(np.int32)


def batches(images: np.ndarray, labels: np.ndarray) -> Any:
    """An iterator over shuffled batches without end, whose place Orbax saves.

    Pod: each process reads its own share of the examples, and makes its own part of each batch.
    """
    process, processes = jax.process_index(), jax.process_count()
    order = grain.MapDataset.range(len(labels)).seed(0).shuffle().repeat()
    mine = order[process::processes].batch(BATCH // processes)
    return iter(mine.map(lambda chosen: (images[chosen], labels[chosen])).to_iter_dataset())


# ---- where arrays lie


def make_mesh() -> Mesh:
    """Devices by (data, model). A model axis of 2 halves what kernels and their state take.

    Pod: `jax.distributed.initialize()` comes first, and `jax.devices()` are those of all hosts.
    Keep the model axis within a host, where links are fastest.
    """
    model = 2 if len(jax.devices()) % 2 == 0 else 1
    shape = (len(jax.devices()) // model, model)
    return jax.make_mesh(shape, ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def place(mesh: Mesh, params: Any) -> Any:
    """Filters of latent kernels over `model`, everything else whole on every device."""

    def placed(is_latent: bool, weight: Any) -> Any:
        divided = is_latent and weight.shape[-1] % mesh.shape["model"] == 0
        spec = P(*[None] * (weight.ndim - 1), "model") if divided else P()
        return jax.device_put(weight, NamedSharding(mesh, spec))

    return jax.tree.map(placed, ovsw.latent_mask(params), params)


# ---- training


def make_model() -> nnx.Module:
    """A small binary network. Pod: a large one; `dtype=jnp.bfloat16` for its arithmetic."""
    return ovsw.models.SmallResNet(10, in_channels=1, widths=(16,), rngs=nnx.Rngs(0))


def make_optimizer(steps: int) -> optax.GradientTransformation:
    """OvSW with a cosine schedule; the silence horizon is a third of the training."""
    threshold = ovsw.threshold_for_horizon(0.999, max(steps // 3, 1))
    return ovsw.ovsw_sgd(
        optax.cosine_decay_schedule(0.1, steps),
        threshold=threshold,
        weight_decay=5e-4,
    )


def make_step(graph: Any, tx: optax.GradientTransformation, mesh: Mesh) -> Any:
    """A compiled step from (params, state, statistics), images and labels to the same and the loss.

    Arguments are donated: new weights take the place of the old ones.
    """

    def loss_of(params: Any, statistics: Any, images: jax.Array, labels: jax.Array) -> Any:
        # Kernels are gathered before they are used, or XLA would gather activations.
        params = jax.lax.with_sharding_constraint(params, NamedSharding(mesh, P()))
        model = nnx.merge(graph, params, statistics)
        losses = optax.softmax_cross_entropy_with_integer_labels(model(images), labels)
        return losses.mean(), nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))

    def step(trained: Any, images: jax.Array, labels: jax.Array) -> Any:
        params, state, statistics = trained
        (loss, statistics), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            params, statistics, images, labels
        )
        updates, state = tx.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state, statistics), loss

    return jax.jit(step, donate_argnums=0)


def accuracy(graph: Any, trained: Any, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of labels that the network predicts, in evaluation mode."""
    params, _, statistics = trained
    model: Any = nnx.merge(graph, params, statistics)
    model.eval()
    return float(jnp.mean(jnp.argmax(model(images), -1) == labels))


def train(folder: Path, steps: int, stop_after: int | None = None) -> dict[str, Any]:
    """Trains, or resumes what the folder holds.

    Args:
      folder: of the checkpoints.
      steps: of the whole training; the schedule depends on it, so it stays the same on resuming.
      stop_after: steps after which this call ends, as if it were stopped; None: all.

    Returns:
      The trained weights, and the accuracy on the test images.
    """
    mesh = make_mesh()
    images, labels = digits()
    data = batches(images[:TRAINED_ON], labels[:TRAINED_ON])
    model = make_model()
    model.train()
    split: Any = nnx.split(model, nnx.Param, ...)
    graph, params, statistics = split
    params = place(mesh, nnx.to_pure_dict(params))
    statistics = jax.device_put(nnx.to_pure_dict(statistics), NamedSharding(mesh, P()))
    tx = make_optimizer(steps)
    # `init` gives flip state and momentum the sharding of their weights; counts are whole.
    state = jax.tree.map(
        lambda x: x if x.ndim else jax.device_put(x, NamedSharding(mesh, P())), tx.init(params)
    )
    trained: Any = params, state, statistics

    options = ocp.CheckpointManagerOptions(max_to_keep=2, save_interval_steps=SAVE_EVERY)
    with ocp.CheckpointManager(folder.absolute(), options=options) as checkpoints:
        first = checkpoints.latest_step() or 0
        if first:
            like = jax.tree.map(ocp.utils.to_shape_dtype_struct, trained)
            restored = checkpoints.restore(
                first,
                args=ocp.args.Composite(
                    trained=ocp.args.StandardRestore(like),
                    data=grain.checkpoint.CheckpointRestore(data),
                ),
            )
            trained = restored.trained
        step = make_step(graph, tx, mesh)
        over_all = NamedSharding(mesh, P(("data", "model")))
        for number in range(first + 1, min(steps, stop_after or steps) + 1):
            # Pod: from the parts that processes hold, an array of all of them.
            batch = [jax.make_array_from_process_local_data(over_all, part) for part in next(data)]
            trained, loss = step(trained, *batch)
            checkpoints.save(
                number,
                args=ocp.args.Composite(
                    trained=ocp.args.StandardSave(trained),
                    data=grain.checkpoint.CheckpointSave(data),
                ),
            )
            if number % SAVE_EVERY == 0 and jax.process_index() == 0:
                flips = ovsw.flip_metrics(trained[1])["total"]
                print(
                    f"step {number}: loss {loss:.3f}, flipped {flips['flip_ratio']:.2%}, "
                    f"silent {flips['silent_ratio']:.1%}, "
                    f"never flipped {flips['never_flipped_ratio']:.1%}",
                    flush=True,
                )
    reached = accuracy(graph, trained, images[TRAINED_ON:], labels[TRAINED_ON:])
    return {"params": trained[0], "state": trained[1], "accuracy": reached}


def main() -> None:
    """Reads the command line and trains."""
    options = argparse.ArgumentParser(description="Trains a binary network on a mesh of devices.")
    options.add_argument("--folder", type=Path, required=True, help="of the checkpoints")
    options.add_argument("--steps", type=int, default=300, help="of the whole training")
    options.add_argument("--stop-after", type=int, help="end here, to resume later")
    chosen = options.parse_args()
    trained = train(chosen.folder, chosen.steps, chosen.stop_after)
    print(f"{trained['accuracy']:.1%} of the test images")


if __name__ == "__main__":
    main()
