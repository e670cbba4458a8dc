"""An epoch begun at a later step has the batches that it has from there on when begun at 0."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import data
from experiments.config import Config
from experiments.data import Dataset, image_file
from experiments.data.batches import feed_of
from experiments.training.networks import Network
from experiments.training.step import Steps, TrainState

BATCH, STEPS, MEMBERS = 4, 5, 2


def in_memory():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (BATCH * STEPS + 3, 8, 8, 3), dtype=np.uint8)
    labels = rng.integers(0, 2, len(pixels)).astype(np.int32)
    ones = np.ones(3, np.float32)
    return Dataset("tiny", pixels, labels, pixels[:5], labels[:5], ("a", "b"), ones, ones)


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    root = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    for path in (root / split / name for split in ("train", "test") for name in ("ant", "bee")):
        path.mkdir(parents=True)
        for i in range(BATCH * STEPS // 2 + 1):
            pixels = rng.integers(0, 256, (20, 14 + i, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path / f"{i}.png")
    return data.load_streamed(str(root), image_size=8)


@pytest.fixture(params=["in memory", "streamed"])
def steps(request):
    dataset = in_memory() if request.param == "in memory" else request.getfixturevalue("streamed")
    config = Config(batch_size=BATCH)
    return Steps(Network("small", 2, (8, 8, 3)), "sgd", config, feed_of(dataset, config))


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
