"""The compiled parts of training: initial state, one step and evaluation, for several members.

A member is one training of a sweep: a seed and values of the hyperparameters that vary. Members
are `vmap`ped on each device and spread over the devices, so they share one program.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import ovsw_jax as ovsw
from experiments.augment import crop_and_flip, standardise
from experiments.configs import Config
from experiments.data import Dataset
from experiments.initialisation import initialise_latent
from experiments.networks import Network
from experiments.optimizers import make_optimizer

EVALUATION_BATCH = 500

Values = Mapping[str, jax.Array]  # (members,) numbers by field of the config
# How things stand, not what a step did: computed at the end of an epoch only.
_STANDING = ("silent_ratio", "never_flipped_ratio")


class TrainState(NamedTuple):
    """Everything that a step changes; every leaf has a leading axis of members."""

    params: Any
    statistics: Any  # of batch norm
    opt_state: Any
    key: jax.Array


class StepMetrics(NamedTuple):
    """What steps measured, for each member: mean loss, top-1 (0 to 1) and `ovsw.flip_metrics`."""

    loss: jax.Array
    top1: jax.Array
    layers: dict[str, dict[str, jax.Array]]


class Steps:
    """Training of one network with one optimizer, compiled once for a number of members."""

    def __init__(
        self,
        network: Network,
        optimizer: str,
        config: Config,
        dataset: Dataset,
        *,
        devices: Sequence[jax.Device] | None = None,
    ):
        """Puts the data on the devices; nothing is compiled yet.

        Args:
          network: the network.
          optimizer: key of the optimizer.
          config: the numbers that all members share.
          dataset: the images.
          devices: where members go, the same number of them on each; None is the first device.
        """
        self._network, self._optimizer, self._config = network, optimizer, config
        self._images = len(dataset.train_labels)
        self.steps_per_epoch = self._images // config.batch_size
        devices = devices or jax.devices()[:1]
        self._mesh = Mesh(np.array(devices), ("members",), axis_types=(AxisType.Auto,))
        everywhere = NamedSharding(self._mesh, PartitionSpec())
        self._by_member = NamedSharding(self._mesh, PartitionSpec("members"))
        # Data goes into compiled functions as an argument: a constant would be compiled in.
        self._train = jax.device_put((dataset.train_images, dataset.train_labels), everywhere)
        self._test = _padded_batches(dataset.test_images, dataset.test_labels)
        self._mean, self._std = jnp.asarray(dataset.mean), jnp.asarray(dataset.std)
        self._init = self._compiled(self._init_one, "mmmm")
        self._shuffle = self._compiled(self._shuffle_one, "m")
        self._no_metrics = self._compiled(self._no_metrics_one, "m")
        self._train_step = self._compiled(self._train_one, "mmmama", donate=(0, 1))
        self._standing = self._compiled(self._standing_one, "m")
        self._count_correct = self._compiled(self._count_correct_one, "maa")

    def place(self, values: Mapping[str, Sequence[float]]) -> Values:
        """(members,) numbers of each field that varies, where their members train."""
        arrays = {name: np.asarray(v, np.float32) for name, v in values.items()}
        return jax.device_put(arrays, self._by_member)

    def init(self, seeds: Sequence[int], values: Values | None = None) -> TrainState:
        """Initial states for (members,) seeds and values of what varies."""
        keys = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)))(jnp.asarray(seeds))
        made = jax.device_put((*self._network.init(keys[:, 0]), keys), self._by_member)
        return self._init(*made, dict(values or {}))

    def shuffle(self, state: TrainState) -> tuple[TrainState, jax.Array]:
        """A new order of the images: (members, steps_per_epoch, batch) indices.

        The last few that fill no batch wait for another epoch's order.
        """
        key, order = self._shuffle(state.key)
        return state._replace(key=key), order

    def train_step(
        self,
        state: TrainState,
        sums: StepMetrics | None,
        order: jax.Array,
        step: int,
        values: Values | None = None,
    ) -> tuple[TrainState, StepMetrics]:
        """Step number `step` of an epoch, from 0, of every member.

        `state` and `sums` are donated: their buffers are used for the new ones.

        Args:
          state: where the members stand.
          sums: of the metrics of the epoch's earlier steps; None at its first.
          order: from `shuffle`.
          step: which batch of it.
          values: of what varies, from `place`.

        Returns:
          The new state, and `sums` with the metrics of this step added.
        """
        sums = self._no_metrics(state.opt_state) if sums is None else sums
        return self._train_step(state, sums, order, step, dict(values or {}), self._train)

    def standing(self, state: TrainState) -> dict[str, dict[str, jax.Array]]:
        """Silent and never-flipped share by layer and in total, of each member."""
        return self._standing(state.opt_state)

    def evaluate(self, state: TrainState) -> np.ndarray:
        """Test top-1 (0 to 1) of every member, over every test image."""
        correct = [
            np.asarray(self._count_correct(state, images, labels))
            for images, labels in zip(*self._test, strict=True)
        ]
        return np.sum(correct, axis=0) / sum(np.sum(labels >= 0) for labels in self._test[1])

    def bytes_a_member(self, values: Values) -> int:
        """Memory of one more member's step, from compiling it for a single one."""
        one = {name: jnp.zeros(1, jnp.float32) for name in values}
        state = jax.eval_shape(self.init, [0], one)
        _, order = jax.eval_shape(self.shuffle, state)
        sums = jax.eval_shape(self._no_metrics, state.opt_state)
        lowered = self._train_step.lower(state, sums, order, 0, one, self._train)
        memory = lowered.compile().memory_analysis()
        if memory is None:
            raise ValueError(
                "this backend does not say how much memory a step takes: give --members-at-once."
            )
        data = sum(x.nbytes for x in self._train)
        return memory.temp_size_in_bytes + 2 * (memory.argument_size_in_bytes - data)

    def _compiled(
        self, function: Callable[..., Any], axes: str, donate: tuple[int, ...] = ()
    ) -> Any:
        """`function` of one member for all; `axes` has m for arguments that each has, a for one."""
        specs = tuple(PartitionSpec("members") if a == "m" else PartitionSpec() for a in axes)
        together = jax.shard_map(
            jax.vmap(function, tuple(0 if a == "m" else None for a in axes)),
            mesh=self._mesh,
            in_specs=specs,
            out_specs=PartitionSpec("members"),
        )
        return jax.jit(together, donate_argnums=donate)

    def _transform(self, values: Values) -> optax.GradientTransformation:
        config = self._config.at(values)
        return make_optimizer(self._optimizer, config, self.steps_per_epoch)

    def _init_one(
        self, params: Any, statistics: Any, keys: jax.Array, values: Values
    ) -> TrainState:
        config = self._config.at(values)
        params = initialise_latent(params, keys[0], config.init, config.init_scale)
        return TrainState(params, statistics, self._transform(values).init(params), keys[1])

    def _shuffle_one(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        next_key, order_key = jax.random.split(key)
        order = jax.random.permutation(order_key, self._images)
        used = order[: self.steps_per_epoch * self._config.batch_size]
        return next_key, used.reshape(self.steps_per_epoch, self._config.batch_size)

    def _train_one(
        self,
        state: TrainState,
        sums: StepMetrics,
        order: jax.Array,
        step: jax.Array,
        values: Values,
        data: tuple[jax.Array, jax.Array],
    ) -> tuple[TrainState, StepMetrics]:
        key, augment_key = jax.random.split(state.key)
        batch = order[step]
        images = standardise(data[0][batch], self._mean, self._std)
        if self._config.augment:
            images = crop_and_flip(augment_key, images)
        labels = data[1][batch]

        def loss_fn(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
            logits, statistics = self._network.train(params, state.statistics, images)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.mean(losses), (logits, statistics)

        (loss, (logits, statistics)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params
        )
        updates, opt_state = self._transform(values).update(
            gradients, state.opt_state, state.params
        )
        params = optax.apply_updates(state.params, updates)
        top1 = jnp.mean(jnp.argmax(logits, -1) == labels, dtype=jnp.float32)
        measured = StepMetrics(loss, top1, _of_steps(ovsw.flip_metrics(opt_state)))
        measured = jax.tree.map(jnp.add, sums, measured)
        return TrainState(params, statistics, opt_state, key), measured

    def _no_metrics_one(self, opt_state: Any) -> StepMetrics:
        layers = jax.tree.map(jnp.zeros_like, _of_steps(ovsw.flip_metrics(opt_state)))
        return StepMetrics(jnp.zeros(()), jnp.zeros(()), layers)

    def _standing_one(self, opt_state: Any) -> dict[str, dict[str, jax.Array]]:
        metrics = ovsw.flip_metrics(opt_state)
        return {layer: {k: m[k] for k in _STANDING} for layer, m in metrics.items()}

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


def _of_steps(metrics: dict[str, dict[str, jax.Array]]) -> dict[str, dict[str, jax.Array]]:
    return {
        layer: {k: v for k, v in of_layer.items() if k not in _STANDING}
        for layer, of_layer in metrics.items()
    }


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
