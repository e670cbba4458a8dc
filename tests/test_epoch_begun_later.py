"""An epoch begun at a later step has the batches that it has from there on when begun at 0."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from image_data import of_two_classes, write_folder
from tiny_data import dataset

from experiments import data
from experiments.config import Config
from experiments.data import image_file
from experiments.data.batches import feed_of
from experiments.training.networks import Network
from experiments.training.step import Steps, TrainState

BATCH, STEPS, MEMBERS = 4, 5, 2


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    root = tmp_path_factory.mktemp("noise")
    count = BATCH * STEPS // 2 + 1
    write_folder(root, of_two_classes(count, count), size=lambda i: (14 + i, 20))
    return data.load_streamed(str(root), image_size=8)


@pytest.fixture(params=["in memory", "streamed"])
def steps(request):
    in_memory = partial(dataset, BATCH * STEPS + 3, 5, shape=(8, 8, 3), classes="ab")
    images = in_memory() if request.param == "in memory" else request.getfixturevalue("streamed")
    config = Config(batch_size=BATCH)
    return Steps(Network("small", 2, (8, 8, 3)), "sgd", config, feed_of(images, config))


def seen(steps, batches):
    """What the network sees, of each batch: images and labels, of each member where they differ."""
    feed = steps._feed
    images = partial(feed.images, jax.random.key(3))
    axes = tuple(0 if a == "m" else None for a in feed.axes)
    if 0 in axes:
        images = jax.vmap(images, (axes, None))
    resident = jax.tree.map(jnp.asarray, feed.resident)
    return [jax.tree.map(np.asarray, images(batch, resident)) for batch in batches]


@pytest.mark.parametrize("start", [0, 2, STEPS])
def test_batches_are_the_same(steps, start):
    """Bit for bit, from the key that the state had before the epoch's shuffle."""
    keys = jax.random.split(jax.random.key(7), MEMBERS)
    state = TrainState(None, None, None, keys, None)
    after, batches = steps.batches(state, [3, 4], 2)
    whole = seen(steps, batches)
    assert len(whole) == STEPS
    assert not np.array_equal(*(jax.random.key_data(k) for k in (after.key, keys)))
    later = seen(steps, steps.batches_from(keys, [3, 4], 2, start))
    assert len(later) == STEPS - start
    jax.tree.map(np.testing.assert_array_equal, later, whole[start:])
    other = seen(steps, steps.batches(after, [3, 4], 3)[1])
    assert not np.array_equal(other[0][0], whole[0][0])


def test_images_before_are_not_read(streamed, monkeypatch):
    decoded = []
    plain = image_file.decode_crop

    def decode(file, name, *rest):
        decoded.append(file)
        return plain(file, name, *rest)

    monkeypatch.setattr(image_file, "decode_crop", decode)
    assert len(list(streamed.train_batches(0, 1, BATCH, 3))) == STEPS - 3
    assert len(set(decoded)) == len(decoded) == BATCH * (STEPS - 3)
