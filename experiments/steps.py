"""The compiled parts of training: initial state, one step and evaluation, for several seeds."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

import ovsw_jax as ovsw
from experiments.augment import crop_and_flip, standardise
from experiments.data import Dataset
from experiments.networks import Network

EVALUATION_BATCH = 500


class TrainState(NamedTuple):
    """Everything that a step changes; every leaf has a leading axis of seeds."""

    params: Any
    statistics: Any  # of batch norm
    opt_state: Any
    key: jax.Array


class StepMetrics(NamedTuple):
    """What a step measured, for each seed: mean loss, top-1 (0 to 1) and `ovsw.flip_metrics`."""

    loss: jax.Array
    top1: jax.Array
    layers: dict[str, dict[str, jax.Array]]


class Steps:
    """Training of one network with one optimizer, compiled once for a number of seeds.

    Seeds are `vmap`ped, so they share one program.
    """

    def __init__(
        self,
        network: Network,
        tx: optax.GradientTransformation,
        dataset: Dataset,
        *,
        batch_size: int,
        augment: bool,
    ):
        """Puts the data on the device; nothing is compiled yet."""
        self._network, self._tx, self._augment = network, tx, augment
        self._batch_size, self._images = batch_size, len(dataset.train_labels)
        self.steps_per_epoch = self._images // batch_size
        # Data goes into compiled functions as an argument: a constant would be compiled in.
        self._train = jax.device_put((dataset.train_images, dataset.train_labels))
        self._test = _padded_batches(dataset.test_images, dataset.test_labels)
        self._mean, self._std = jnp.asarray(dataset.mean), jnp.asarray(dataset.std)
        self._train_step = jax.jit(
            jax.vmap(self._train_one, in_axes=(0, 0, None)), donate_argnums=0
        )
        self._count_correct = jax.jit(jax.vmap(self._count_correct_one, in_axes=(0, None, None)))

    def init(self, seeds: jax.Array) -> TrainState:
        """Initial states for (n,) integer seeds."""
        keys = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)))(seeds)
        params, statistics = self._network.init(keys[:, 0])
        opt_state = jax.jit(jax.vmap(self._tx.init))(params)
        return TrainState(params, statistics, opt_state, keys[:, 1])

    @partial(jax.jit, static_argnums=0)
    def shuffle(self, state: TrainState) -> tuple[TrainState, jax.Array]:
        """A new order of the images: (steps_per_epoch, seeds, batch) indices.

        The last few that fill no batch wait for another epoch's order.
        """

        def shuffle_one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            next_key, order_key = jax.random.split(key)
            order = jax.random.permutation(order_key, self._images)
            used = order[: self.steps_per_epoch * self._batch_size]
            return next_key, used.reshape(self.steps_per_epoch, self._batch_size)

        keys, orders = jax.vmap(shuffle_one, out_axes=(0, 1))(state.key)
        return state._replace(key=keys), orders

    def train_step(self, state: TrainState, batch: jax.Array) -> tuple[TrainState, StepMetrics]:
        """One step of every seed on the images at `batch`, (seeds, batch) indices.

        `state` is donated: its buffers are used for the new state.
        """
        return self._train_step(state, batch, self._train)

    def evaluate(self, state: TrainState) -> np.ndarray:
        """Test top-1 (0 to 1) of every seed, over every test image."""
        correct = [
            np.asarray(self._count_correct(state, images, labels))
            for images, labels in zip(*self._test, strict=True)
        ]
        return np.sum(correct, axis=0) / sum(np.sum(labels >= 0) for labels in self._test[1])

    def _train_one(
        self, state: TrainState, batch: jax.Array, data: tuple[jax.Array, jax.Array]
    ) -> tuple[TrainState, StepMetrics]:
        key, augment_key = jax.random.split(state.key)
        images = standardise(data[0][batch], self._mean, self._std)
        if self._augment:
            images = crop_and_flip(augment_key, images)
        labels = data[1][batch]

        def loss_fn(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
            logits, statistics = self._network.train(params, state.statistics, images)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.mean(losses), (logits, statistics)

        (loss, (logits, statistics)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params
        )
        updates, opt_state = self._tx.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        top1 = jnp.mean(jnp.argmax(logits, -1) == labels, dtype=jnp.float32)
        metrics = StepMetrics(loss, top1, ovsw.flip_metrics(opt_state))
        return TrainState(params, statistics, opt_state, key), metrics

    def _count_correct_one(
        self, state: TrainState, images: jax.Array, labels: jax.Array
    ) -> jax.Array:
        images = standardise(images, self._mean, self._std)
        logits = self._network.evaluate(state.params, state.statistics, images)
        return jnp.sum(jnp.argmax(logits, -1) == labels)  # what fills a batch has label -1


def latent_weights(params: Any) -> dict[str, jax.Array]:
    """Latent weights by layer name, as `ovsw.flip_metrics` names them."""
    flat = traverse_util.flatten_dict(params)
    return {"/".join(map(str, p[:-1])): w for p, w in flat.items() if p[-1] == "latent_kernel"}


def never_flipped(opt_state: Any) -> dict[str, jax.Array]:
    """Which latent weights never flipped, by layer name."""
    return latent_weights(ovsw.never_flipped_mask(opt_state))


def _padded_batches(
    images: np.ndarray, labels: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Batches of one size; what fills up the last one has label -1."""
    batch = min(EVALUATION_BATCH, len(labels))
    missing = -len(labels) % batch
    images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)])
    labels = np.concatenate([labels, np.full(missing, -1, labels.dtype)])
    count = len(labels) // batch
    return np.split(images, count), np.split(labels, count)
