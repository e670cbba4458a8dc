"""The compiled parts of training: initial state, one step and evaluation, for several members.

A member is one training of a sweep: a seed and values of the hyperparameters that vary. Members
are `vmap`ped, so they share one program.
"""

import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

import ovsw_jax as ovsw
from experiments.config import Config
from experiments.data.augment import standardise
from experiments.data.batches import Batch, Feed
from experiments.run.predictions import Predictions
from experiments.run.weights import Data
from experiments.training.initialisation import initialise_latent
from experiments.training.inspection import Inspector
from experiments.training.latent_histograms import count
from experiments.training.losses import cross_entropy, distillation
from experiments.training.make_optimizer import make_optimizer
from experiments.training.networks import Network
from experiments.training.sharding import Layout, MembersApart
from experiments.training.skipping import Skips, if_made, look_at, no_skips
from experiments.training.trained import Trained

TOP5_FROM = 20  # classes: with fewer, top-5 tells little

Values = Mapping[str, jax.Array]  # (members,) numbers by field of the config
# Of the state, not of a step: computed at the end of an epoch only.
_STANDING = ("silent_ratio", "never_flipped_ratio")


Compiler = Callable[..., Any]  # of a jitted function and its arguments, `jax.stages.Compiled`


def _compiled_here(function: Any, *arguments: Any) -> Any:
    return function.lower(*arguments).compile()


class TrainState(NamedTuple):
    """Everything that a step changes; every leaf has a leading axis of members."""

    params: Any
    statistics: Any  # of batch norm
    opt_state: Any
    key: jax.Array
    skips: Skips


class StepMetrics(NamedTuple):
    """What steps measured, for each member: mean loss, top-1 (0 to 1) and `ovsw.flip_metrics`.

    `layers` is empty if the weights are not binary. Skipped steps are counted and add nothing else.
    """

    loss: jax.Array
    top1: jax.Array
    layers: dict[str, dict[str, jax.Array]]
    skipped: jax.Array


class Evaluation(NamedTuple):
    """The results on the test set.

    Attributes:
      metrics: (members,) `test_top1` and, with twenty classes or more, `test_top5`, from 0 to 1.
      predictions: by member.
    """

    metrics: dict[str, np.ndarray]
    predictions: list[Predictions]


class Steps:
    """Training of one network with one optimizer, compiled once for a number of members.

    `config` holds the numbers that all members share, `teacher` a trained network to learn from;
    `network` is an attribute too.
    The default `layout` is the first device.
    """

    def __init__(
        self,
        network: Network,
        optimizer: str,
        config: Config,
        feed: Feed,
        *,
        layout: Layout | None = None,
        teacher: Trained | None = None,
    ):
        self.network, self._optimizer, self._config = network, optimizer, config
        self._feed, self.steps_per_epoch = feed, feed.steps_per_epoch
        self._teacher = None if teacher is None else (teacher.network, teacher.data)
        self.binary_weights = config.binary == "both"
        self._layout: Layout = layout or MembersApart(jax.devices()[:1])
        self._inspector = Inspector(network, config, feed, self._layout)
        taught = () if teacher is None else (teacher.params, teacher.statistics)
        self._shared = self._layout.images(feed.resident), self._layout.shared(taught)
        self._init = self._layout.compiled(self._init_one, "mmmm")
        self._shuffle = self._layout.compiled(self._shuffle_one, "m")
        self._no_metrics = self._layout.compiled(self._no_metrics_one, "m")
        self._train: dict[int, Any] = {}  # by number of steps
        self._standing = self._layout.compiled(self._standing_one, "m")
        self._histograms = self._layout.compiled(self._histograms_one, "mm")
        self._answer = self._layout.compiled(self._answer_one, "maa")

    def place(self, values: Mapping[str, Sequence[float]]) -> Values:
        """(members,) numbers of each varying field, on the devices of their members."""
        arrays = {name: jnp.asarray(v, jnp.float32) for name, v in values.items()}
        return self._layout.members(arrays)

    def on_host(self, tree: Any) -> Any:
        return self._layout.on_host(tree)

    def init(
        self,
        seeds: Sequence[int],
        values: Values | None = None,
        start: Callable[[int, Any, Any], tuple[Any, Any]] | None = None,
    ) -> TrainState:
        """Initial states for (members,) seeds and values of the varying fields, from `place`.

        `start` takes a member's number and its random parameters and statistics, and returns those
        to start from.
        """
        made, keys = self._random(jnp.asarray(seeds))
        if start is not None:
            of_members = [start(i, *take_member(made, i)) for i in range(len(seeds))]
            made = jax.tree.map(lambda *leaves: jnp.stack(leaves), *of_members)
        return self._init(*self._layout.members((*made, keys)), dict(values or {}))

    def _random(self, seeds: jax.Array) -> tuple[Any, jax.Array]:
        """Parameters and statistics for (members,) seeds, and the keys they came from."""
        keys = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)))(seeds)
        return self.network.init(keys[:, 0]), keys

    def batches(
        self, state: TrainState, seeds: Sequence[int], epoch: int
    ) -> tuple[TrainState, Generator[Batch]]:
        """The batches of an epoch in a new order, and the state after drawing it."""
        key, order = self._shuffle(state.key)
        return state._replace(key=key), self._batches(order, seeds, epoch, 0)

    def batches_from(
        self, order_key: jax.Array, seeds: Sequence[int], epoch: int, start: int
    ) -> Generator[Batch]:
        """The same batches from step `start` on; `order_key` is `state.key` before the draw."""
        return self._batches(self._shuffle(order_key)[1], seeds, epoch, start)

    def _batches(
        self, order: jax.Array, seeds: Sequence[int], epoch: int, start: int
    ) -> Generator[Batch]:
        rows = self._layout.rows(self._config.batch_size)
        batches = self._feed.batches(order, seeds, epoch, start, rows)
        with contextlib.closing(batches):
            for batch in batches:
                yield self._layout.batch(batch) if self._feed.streamed else batch

    def no_metrics(self, state: TrainState) -> StepMetrics:
        """Sums before the first step, placed as those of later ones: the step compiles once."""
        return self._layout.members(self._no_metrics(state.opt_state))

    def train_step(
        self,
        state: TrainState,
        sums: StepMetrics | None,
        batch: Batch,
        values: Values | None = None,
        *,
        count: int = 1,
    ) -> tuple[TrainState, StepMetrics]:
        """One step of every member, or `count` steps in one call.

        A member whose loss, gradients or statistics are not finite skips the step, alone: its
        parameters, statistics and optimizer state stay bit for bit the same.

        `state` and `sums` are donated.

        Args:
          state: of the members.
          sums: of the metrics of the epoch's earlier steps; None at its first.
          batch: from `batches`; for several steps, which need images in memory, that of the first.
          values: of the varying fields, from `place`.
          count: number of steps.

        Returns:
          The new state, and `sums` with the metrics of these steps added.
        """
        sums = self.no_metrics(state) if sums is None else sums
        return self._training(count)(state, sums, *batch, dict(values or {}), self._shared)

    def standing(self, state: TrainState) -> dict[str, dict[str, jax.Array]]:
        """Silent and never-flipped share by layer and in total, of each member."""
        return self._standing(state.opt_state)

    def histograms(self, state: TrainState) -> dict[str, dict[str, jax.Array]]:
        """Counts of latent weights by layer, of each member, for `experiments.run.histograms`."""
        return self._histograms(state.params, state.opt_state)

    def inspect(self, state: TrainState) -> Any:
        """What `ovsw.inspect` finds, with an axis of members; errors as of `Inspector.inspect`."""
        return self._inspector.inspect(state.params, state.statistics)

    def evaluate(self, state: TrainState, between: Callable[[], None] = lambda: None) -> Evaluation:
        """Evaluates every member on every test image, including those of the last partial batch.

        `between` is called after each batch and may raise to end the evaluation.
        """
        answers = []
        streamed = self._feed.streamed
        for batch in self._feed.test_batches(self._layout.rows(self._config.batch_size)):
            placed = self._layout.batch(batch) if streamed else batch
            answers.append(self.on_host(self._answer(state, *placed)))
            between()
        whole = jax.tree.map(lambda *parts: np.concatenate(parts, axis=-1), *answers)
        there = whole["label"][0] >= 0  # what fills the last batch has label -1
        found = {name: x[:, there] for name, x in whole.items()}
        metrics = {"test_top1": np.mean(found["predicted"] == found["label"], axis=-1)}
        if "in_top5" in found:
            metrics["test_top5"] = np.mean(found.pop("in_top5"), axis=-1)
        members = range(len(found["label"]))
        return Evaluation(
            metrics, [Predictions(**{name: x[i] for name, x in found.items()}) for i in members]
        )

    def step_and_shapes(self, varying: Iterable[str], members: int) -> tuple[Any, tuple[Any, ...]]:
        """What a call of `train_step` compiles: the jitted function, and its arguments as shapes.

        Nothing is computed, so the devices of the layout may be absent.

        Args:
          varying: fields that differ from member to member.
          members: that train together.
        """
        place = self._layout.members
        values = place({name: jax.ShapeDtypeStruct((members,), jnp.float32) for name in varying})
        seeds = jax.ShapeDtypeStruct((members,), jnp.int32)
        made, keys = jax.eval_shape(self._random, seeds)
        state = place(jax.eval_shape(self._init, *made, keys, values))
        sums = place(jax.eval_shape(self._no_metrics, state.opt_state))
        batch = self._feed.batch_of(place(jax.eval_shape(self._shuffle, state.key)[1]))
        batch = self._layout.batch(batch) if self._feed.streamed else batch
        arguments = state, sums, *batch, values, self._shared
        return self._training(self._config.steps_per_call), arguments

    def bytes_a_member(self, varying: Iterable[str], compiled: Compiler = _compiled_here) -> int:
        """Memory of one more member's step, from compiling it for a single one.

        Args:
          varying: fields that differ from member to member.
          compiled: compiles a jitted function for arguments.
        """
        step, arguments = self.step_and_shapes(varying, members=1)
        memory = compiled(step, *arguments).memory_analysis()
        if memory is None:
            raise ValueError(
                "this backend does not say how much memory a step takes: give --members-at-once."
            )
        shared = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(self._shared))
        return memory.temp_size_in_bytes + 2 * (memory.argument_size_in_bytes - shared)

    def _training(self, count: int) -> Any:
        if count not in self._train:
            steps = self._train_one if count == 1 else partial(self._train_several, count)
            self._train[count] = self._layout.compiled(
                steps, f"mm{self._feed.axes}ma", donate=(0, 1)
            )
        return self._train[count]

    def _transform(self, values: Values) -> optax.GradientTransformation:
        config = self._config.at(values)
        axes = self.network.axes
        return make_optimizer(self._optimizer, config, self.steps_per_epoch, axes)

    def _init_one(
        self, params: Any, statistics: Any, keys: jax.Array, values: Values
    ) -> TrainState:
        config = self._config.at(values)
        params = initialise_latent(
            params, keys[0], config.init, config.init_scale, self.network.axes
        )
        opt_state = self._transform(values).init(params)
        return TrainState(params, statistics, opt_state, keys[1], no_skips(params))

    def _shuffle_one(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        next_key, order_key = jax.random.split(key)
        return next_key, self._feed.shuffle(order_key)

    def _train_one(
        self,
        state: TrainState,
        sums: StepMetrics,
        first: jax.Array,
        second: jax.Array,
        values: Values,
        shared: tuple[Any, Any],
    ) -> tuple[TrainState, StepMetrics]:
        resident, taught = shared
        key, augment_key = jax.random.split(state.key)
        images, labels = self._layout.spread(
            self._feed.images(augment_key, (first, second), resident)
        )

        def loss_fn(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
            params = self._layout.gathered(params)
            logits, statistics = self.network.train(params, state.statistics, images)
            return self._loss(logits, labels, images, taught, values), (logits, statistics)

        (loss, (logits, statistics)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params
        )
        updates, opt_state = self._transform(values).update(
            gradients, state.opt_state, state.params
        )
        params = optax.apply_updates(state.params, updates)
        top1 = jnp.mean(jnp.argmax(logits, -1) == labels, dtype=jnp.float32)
        layers = _of_steps(self._flip_metrics(opt_state))
        measured = StepMetrics(loss, top1, layers, jnp.zeros((), jnp.int32))
        made, skips = look_at(state.skips, loss, statistics, gradients, self._config.max_skipped)
        new = TrainState(params, statistics, opt_state, key, skips)
        old = state._replace(key=key, skips=skips)
        added = if_made(made, jax.tree.map(jnp.add, sums, measured), sums)
        added = added._replace(skipped=sums.skipped + ~made)
        return if_made(made, new, old), added

    def _train_several(
        self,
        count: int,
        state: TrainState,
        sums: StepMetrics,
        order: jax.Array,
        first: jax.Array,
        values: Values,
        shared: tuple[Any, Any],
    ) -> tuple[TrainState, StepMetrics]:
        def step(so_far: tuple[TrainState, StepMetrics], number: jax.Array) -> tuple[Any, None]:
            return self._train_one(*so_far, order, number, values, shared), None

        return jax.lax.scan(step, (state, sums), first + jnp.arange(count))[0]

    def _loss(
        self, logits: jax.Array, labels: jax.Array, images: jax.Array, taught: Any, values: Values
    ) -> jax.Array:
        if self._teacher is None:
            return cross_entropy(logits, labels)
        config = self._config.at(values)
        network, data = self._teacher
        params, statistics = taught
        answers = network.evaluate(params, statistics, self._standardised_as(data, images))
        learned = distillation(logits, answers, config.temperature)
        share = config.distillation
        return share * learned + (1 - share) * cross_entropy(logits, labels)

    def _standardised_as(self, data: Data, images: jax.Array) -> jax.Array:
        """Standardises images as for the teacher, whose mean and deviation may differ."""
        here, mean, std = self._feed, jnp.asarray(data.mean), jnp.asarray(data.std)
        if np.array_equal(here.mean, mean) and np.array_equal(here.std, std):
            return images
        return (images * here.std + here.mean - mean) / std

    def _no_metrics_one(self, opt_state: Any) -> StepMetrics:
        layers = jax.tree.map(jnp.zeros_like, _of_steps(self._flip_metrics(opt_state)))
        return StepMetrics(jnp.zeros(()), jnp.zeros(()), layers, jnp.zeros((), jnp.int32))

    def _flip_metrics(self, opt_state: Any) -> dict[str, dict[str, jax.Array]]:
        return ovsw.flip_metrics(opt_state) if self.binary_weights else {}

    def _standing_one(self, opt_state: Any) -> dict[str, dict[str, jax.Array]]:
        metrics = self._flip_metrics(opt_state)
        return {layer: {k: m[k] for k in _STANDING} for layer, m in metrics.items()}

    def _histograms_one(self, params: Any, opt_state: Any) -> dict[str, dict[str, jax.Array]]:
        masks = ovsw.silent_mask(opt_state), ovsw.never_flipped_mask(opt_state)
        return count(latent_weights(params), *map(latent_weights, masks))

    def _answer_one(
        self, state: TrainState, images: jax.Array, labels: jax.Array
    ) -> dict[str, jax.Array]:
        images, labels = self._layout.spread((images, labels))
        images = standardise(images, self._feed.mean, self._feed.std)
        params = self._layout.gathered(state.params)
        logits = self.network.evaluate(params, state.statistics, images)
        answered = ~jnp.any(jnp.isnan(logits), -1)  # else argmax gives the first NaN
        answer = {
            "label": labels,
            "predicted": jnp.where(answered, jnp.argmax(logits, -1), logits.shape[-1]),
            "probability": jnp.max(jax.nn.softmax(logits), -1),
        }
        if logits.shape[-1] >= TOP5_FROM:
            of_five = jax.lax.top_k(logits, 5)[1] == labels[:, None]
            answer["in_top5"] = jnp.any(of_five, -1) & answered
        return answer


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


def take_member(trees: Any, i: int) -> Any:
    """One member's arrays, from arrays with a leading axis of members."""
    return jax.tree.map(lambda x: x[i], trees)
