"""Every recipe makes a step: on synthetic images of full shape, with its network and optimizers.

One recipe of each small network is compiled and run. The others are traced: their networks take
long to compile, and their blocks are trained in other tests.
"""

from types import SimpleNamespace

import chex
import jax
import numpy as np
import pytest
from longer import long_but

from experiments.data import Dataset
from experiments.data.batches import Streamed, feed_of
from experiments.recipes import RECIPES
from experiments.sweep.members import programs
from experiments.training.networks import Network
from experiments.training.step import Steps

BATCH = 2  # of full-shape images; the recipes' own batches need an accelerator
SHAPES = {  # (height, width, channels), classes
    "digits": ((8, 8, 1), 10),
    "cifar10": ((32, 32, 3), 10),
    "cifar100": ((32, 32, 3), 100),
    "imagenet2012": ((224, 224, 3), 1000),
}


def feed_for(config, shape, classes):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, *shape), dtype=np.uint8)
    labels = rng.integers(0, classes, BATCH).astype(np.int32)
    mean, std = (np.full(shape[-1], x, np.float32) for x in (0.45, 0.25))
    if config.image_size is None:
        dataset = Dataset("", images, labels, images, labels, ("",) * classes, mean, std)
        return feed_of(dataset, config)
    assert config.image_size == shape[0]
    batches = lambda *_: (pair for pair in [(images, labels)])  # noqa: E731
    dataset = SimpleNamespace(train_count=BATCH, mean=mean, std=std, train_batches=batches)
    return Streamed(dataset, config)


RUN = {
    recipe.network: name
    for name, recipe in reversed(RECIPES.items())
    if recipe.network in ("small", "tiny")
}.values()


def step_of(name):
    """The last optimizer of a comparison is the one that the recipe is about."""
    program = programs(RECIPES[name])[-1]
    config = program.config.at({"batch_size": BATCH})
    shape, classes = SHAPES[config.data]
    network = Network(config.network, classes, shape, binary=config.binary, dtype=config.dtype)
    steps = Steps(network, program.optimizer, config, feed_for(config, shape, classes))
    member = program.members[0]
    values = steps.place({field: [member.point[field]] for field in program.varying})
    return steps, member.seed, values


def program_of(name):
    """What a recipe's last program is compiled from; recipes of one differ in numbers alone."""
    last = programs(RECIPES[name])[-1]
    config = last.config
    arithmetic = config.network, config.data, config.binary, config.dtype, config.augment
    return *arithmetic, config.image_size, config.flip_state, last.optimizer, last.varying


# The first recipe of each program.
TRACED = {program_of(n): n for n in reversed(RECIPES) if n not in RUN}.values()


@pytest.mark.parametrize("name", long_but(TRACED, "imagenet-resnet18"))
def test_a_step_is_traced(name):
    steps, seed, values = step_of(name)

    def step():
        state, batches = steps.batches(steps.init([seed], values), [seed], 1)
        return state, steps.train_step(state, None, next(batches), values)

    before, (after, _) = jax.eval_shape(step)
    chex.assert_trees_all_equal_shapes_and_dtypes(before, after)


@pytest.mark.parametrize("name", long_but(RUN, "digits"))
def test_a_step_is_made(name):
    steps, seed, values = step_of(name)
    state = steps.init([seed], values)
    before = jax.device_get(state.params)
    state, batches = steps.batches(state, [seed], 1)
    state, sums = steps.train_step(state, None, next(batches), values)
    assert np.isfinite(sums.loss).all()
    after = jax.device_get(state.params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after))
    moved = jax.tree.map(lambda a, b: a.ndim == 2 or (a != b).any(), before, after)
    still = [jax.tree_util.keystr(p) for p, m in jax.tree.leaves_with_path(moved) if not m]
    # A step may be too small for vectors (and the axis of members): batch norms that start at 1e-8
    # have gradients of 1e-15.
    assert still == []
