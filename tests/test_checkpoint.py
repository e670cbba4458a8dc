"""Checkpoints: what was saved comes back, from the newest that is undamaged, or with a reason."""

import errno
import os
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.run.checkpoint import Checkpoints, _checksum

CONFIG = {"config": {"network": "small", "flip_state": "packed"}}


def tree(seed, codes=jnp.uint16):
    rng = np.random.default_rng(seed)
    return {
        "weights": jnp.asarray(rng.normal(size=(3, 3, 4, 8)), jnp.float32),
        "half": jnp.asarray(rng.normal(size=(5,)), jnp.bfloat16),
        "history": jnp.asarray(rng.integers(0, 200, (3, 3, 4, 8)), codes),
        "flipped": jnp.asarray(rng.integers(0, 2, (7, 3)), bool),
        "count": jnp.asarray(seed, jnp.int32),
        "key": jax.random.split(jax.random.key(seed)),
    }


def plain(x):
    return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(plain(x), plain(y))


@pytest.fixture
def folder(tmp_path):
    """Of the two that are kept of three."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for number in (1, 2, 3):
        checkpoints.save(number, tree(number), {**CONFIG, "step": number})
    checkpoints.close()
    return tmp_path / "checkpoints"


def restored(folder, like=None, expected=CONFIG):
    said = []
    checkpoints = Checkpoints(folder)
    found = checkpoints.restore(tree(0) if like is None else like, expected, said.append)
    checkpoints.close()
    return found, said


def test_the_newest_two_are_kept_and_the_newest_comes_back(folder):
    assert Checkpoints(folder).numbers() == [3, 2]
    (back, about), said = restored(folder)
    assert_same(back, tree(3))
    assert about["step"] == 3
    assert not said


def test_leaves_come_back_to_their_places(folder):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    specs = {"weights": P(None, None, None, "model"), "history": P(None, None, "data", "model")}
    like = {
        name: jax.device_put(leaf, NamedSharding(mesh, specs.get(name, P())))
        for name, leaf in tree(0).items()
    }
    (back, _), _ = restored(folder, like)
    assert_same(back, tree(3))
    for name, leaf in like.items():
        assert back[name].sharding.is_equivalent_to(leaf.sharding, leaf.ndim), name


def test_what_was_saved_may_be_donated_at_once(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jnp.zeros(1000)
    for number in range(5):
        checkpoints.save(number, x, CONFIG)
        x = add(x)
    checkpoints.close()
    found, _ = restored(tmp_path / "checkpoints", x)
    assert_same(found[0], jnp.full(1000, 4.0))


def test_no_checkpoint(tmp_path):
    assert restored(tmp_path / "none") == (None, [])
    assert not (tmp_path / "none").exists()


def damage(path, kind):
    content = path.read_bytes()
    middle = len(content) // 2
    if kind == "removed":
        path.unlink()
    elif kind == "cut":
        path.write_bytes(content[:middle])
    else:
        flipped = bytes([content[middle] ^ 16]) if content else b"x"
        path.write_bytes(content[:middle] + flipped + content[middle + 1 :])


@pytest.mark.parametrize("kind", ["removed", "cut", "flipped"])
def test_whatever_is_damaged_nothing_wrong_comes_back(folder, tmp_path, kind):
    """Of each file in turn: the newest one unharmed, or the one before, and it is said."""
    files = [path.relative_to(folder) for path in (folder / "3").rglob("*") if path.is_file()]
    fell_back = 0
    for file in files:
        copy = tmp_path / "copy" / "checkpoints"
        shutil.copytree(folder, copy)
        damage(copy / file, kind)
        (back, about), said = restored(copy)
        assert_same(back, tree(about["step"]))
        if about["step"] == 2:
            fell_back += 1
            assert not said or "checkpoint 3 is damaged" in said[0]
            assert (copy.parent / "checkpoints.damaged" / "3").exists() == bool(said)
        shutil.rmtree(copy.parent)
    assert fell_back >= 3


def test_if_all_are_damaged_there_is_none(folder):
    for number in "23":
        damage(folder / number / "about" / "metadata", "cut")
    found, said = restored(folder)
    assert found is None
    assert len(said) == 2
    assert said[0].startswith("checkpoint 3 is damaged")
    assert said[0].endswith("The one before is used")
    assert said[1].startswith("checkpoint 2 is damaged")
    assert said[1].endswith("There is none before")


PASSING = {
    "the disk": (OSError(errno.EIO, "x"), os.strerror(errno.EIO)),
    "TensorStore": (ValueError("UNKNOWN: [os_error_code='24']"), os.strerror(errno.EMFILE)),
    "memory": (MemoryError(), "there is not enough memory"),
    "the device": (RuntimeError("RESOURCE_EXHAUSTED: out of memory"), "RESOURCE_EXHAUSTED: out of"),
}


@pytest.mark.parametrize("name", PASSING)
@pytest.mark.parametrize("function", ["_read_about", "_arrays"])
def test_what_may_be_readable_later_is_not_damaged(folder, monkeypatch, name, function):
    error, said = PASSING[name]

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, function, fail)
        message = rf"checkpoint .*3 can't be read: {re.escape(said)}.*the same command resumes"
        with pytest.raises(ValueError, match=message):
            restored(folder)
    (_, about), said = restored(folder)
    assert about["step"] == 3
    assert not said


def test_put_aside(folder):
    """Whatever was put aside before stays."""
    for place in ("checkpoints.unused", "checkpoints.unused1"):
        copy = shutil.copytree(folder, folder.with_name("copy"))
        assert Checkpoints(folder).put_aside() == folder.with_name(place)
        assert not folder.exists()
        assert Checkpoints(folder.with_name(place)).numbers() == [3, 2]
        copy.rename(folder)


def test_another_config_is_refused_with_what_differs(folder):
    other = {"config": {"network": "vgg-small", "flip_state": "packed"}}
    with pytest.raises(
        ValueError, match=r"network is small there and vgg-small here.*move it away"
    ):
        restored(folder, expected=other)
    assert Checkpoints(folder).numbers() == [3, 2]


def test_another_flip_state_is_refused_with_what_differs(folder):
    like = {**tree(0, jnp.float32), "more": jnp.zeros(2)}
    message = (
        r"history is uint16\[3, 3, 4, 8\] there and float32\[3, 3, 4, 8\] here; more is nothing"
    )
    with pytest.raises(ValueError, match=message):
        restored(folder, like)


def test_removed(folder):
    checkpoints = Checkpoints(folder)
    checkpoints.save(4, tree(4), CONFIG)
    checkpoints.remove()
    assert not list(folder.parent.iterdir())
    checkpoints.remove()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.uint8])
def test_each_changed_bit_of_a_word_changes_the_checksum(dtype):
    words = np.arange(4, dtype=f"uint{8 * jnp.dtype(dtype).itemsize}")
    bits = 8 * words.itemsize
    changed = np.array(
        [words ^ (np.eye(4, dtype=words.dtype)[i] << b) for i in range(4) for b in range(bits)]
    )
    sums = jax.vmap(_checksum)(jnp.asarray(changed).view(dtype))
    assert not np.any(sums == _checksum(jnp.asarray(words).view(dtype)))
