import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_data import write_cifar
from prepared_sets import with_fault
from sklearn.datasets import load_digits

from experiments import data
from experiments.data import cifar, tfds_source
from experiments.data.subset import train_and_held_out
from experiments.prepare import prepare

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data folder with a small cifar10 in it, and the image folder it comes from."""
    base = tmp_path_factory.mktemp("prepared")
    prepare("cifar10", write_cifar(base / "images", train=3, test=2), data_dir=base / "tfds")
    return base


def as_set(images, labels):
    return sorted(
        (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    )


# Digits


def test_digits_are_scikit_learns_on_the_scale_of_bytes():
    digits = data.load("digits")
    assert digits.train_images.shape == (1437, 8, 8, 1)
    assert digits.test_images.shape == (360, 8, 8, 1)
    assert digits.train_images.dtype == digits.test_images.dtype == np.uint8
    assert digits.train_labels.dtype == digits.test_labels.dtype == np.int32
    assert digits.classes == tuple("0123456789")
    source = load_digits()
    # v * 255 / 16, rounded by hand.
    levels = np.array([0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255])
    expected = levels[source.images.astype(int)].astype(np.uint8)
    assert as_set(
        np.concatenate([digits.train_images, digits.test_images]),
        np.concatenate([digits.train_labels, digits.test_labels]),
    ) == as_set(expected, source.target)


def test_digits_split_is_stratified_and_always_the_same():
    digits, again = data.load("digits"), data.load("digits")
    share = np.bincount(digits.test_labels) / np.bincount(load_digits().target)
    np.testing.assert_allclose(share, 0.2, atol=0.005)
    np.testing.assert_array_equal(digits.train_images, again.train_images)
    np.testing.assert_array_equal(digits.test_labels, again.test_labels)


# Statistics and subsets


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_against_numpy_in_float64(channels):
    images = np.random.default_rng(0).integers(0, 256, (2_345, 5, 7, channels), dtype=np.uint8)
    mean, std = data.channel_statistics(images)
    assert mean.dtype == std.dtype == np.float32
    assert mean.shape == std.shape == (channels,)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)), rtol=1e-6)


def test_statistics_of_a_channel_that_never_changes_can_be_divided_by():
    mean, std = data.channel_statistics(np.full((4, 2, 2, 1), 51, np.uint8))
    np.testing.assert_allclose(mean, 0.2, rtol=1e-6)
    assert std == 1


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.data())
def test_subsets_are_balanced_and_nested(labels, draw):
    labels = np.array(labels, np.int32)
    small = draw.draw(st.integers(0, len(labels)))
    large = draw.draw(st.integers(small, len(labels)))
    kept = data.balanced_subset(labels, small)
    assert len(set(kept)) == small
    assert (np.diff(kept) > 0).all()
    assert set(kept) <= set(data.balanced_subset(labels, large))
    np.testing.assert_array_equal(kept, data.balanced_subset(labels, small))
    available, taken = np.bincount(labels), np.bincount(labels[kept], minlength=labels.max() + 1)
    # A class may give fewer than another by more than one only if it has no more.
    assert ((taken >= taken.max() - 1) | (taken == available)).all()


def test_train_images_keeps_a_subset_of_the_training_split_only():
    whole, part = data.load("digits"), data.load("digits", train_images=205)
    assert part.train_images.shape == (205, 8, 8, 1)
    assert np.ptp(np.bincount(part.train_labels)) == 1
    everything = as_set(whole.train_images, whole.train_labels)
    assert set(as_set(part.train_images, part.train_labels)) <= set(everything)
    np.testing.assert_array_equal(part.test_images, whole.test_images)
    np.testing.assert_array_equal(part.mean, whole.mean)
    np.testing.assert_array_equal(part.std, whole.std)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.data())
def test_held_out_images_are_of_every_class(sizes, draw):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    most = len(labels) - len(sizes)
    held_out = draw.draw(st.integers(0, most))
    trained, others = train_and_held_out("", labels, len(sizes), None, held_out)
    assert sorted([*trained, *others]) == [*range(len(labels))]
    taken = np.bincount(labels[others], minlength=len(sizes))
    assert taken.sum() == held_out
    assert (taken < sizes).all()  # each class is still trained on
    if held_out >= len(sizes):
        assert (taken >= np.minimum(np.array(sizes) - 1, 1)).all()
    # In proportion, but for what rounding and the two rules above make of it.
    assert (np.abs(taken - np.array(sizes) * held_out / len(labels)) <= len(sizes)).all()


def test_held_out_images_of_classes_of_different_sizes():
    labels = np.repeat([0, 1, 2], [1000, 100, 10])
    _, others = train_and_held_out("", labels, 3, None, 111)
    assert np.bincount(labels[others]).tolist() == [100, 10, 1]


@pytest.mark.parametrize("held_out", [1, 7, 20, 33])
def test_held_out_images_of_equal_classes_are_those_that_a_subset_leaves(held_out):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(5), 20))
    trained, _ = train_and_held_out("", labels, 5, None, held_out)
    np.testing.assert_array_equal(trained, data.balanced_subset(labels, 100 - held_out))


def test_train_images_out_of_range():
    with pytest.raises(ValueError, match=r"train_images=1,438 is more than the 1,437 training im"):
        data.load("digits", train_images=1438)
    with pytest.raises(
        ValueError, match=r"train_images=9 is less than one image for each of the 10"
    ):
        data.load("digits", train_images=9)
    assert len(data.load("digits", train_images=1437).train_labels) == 1437


# Names


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("cifr10", "cifar10 or cifar100"), ("DIGITS", "digits"), ("digit", "digits")],
)
def test_unknown_name_with_the_nearest_ones(name, nearest):
    with pytest.raises(ValueError, match=f"unknown data set '{name}'.*did you mean {nearest}\\?"):
        data.load(name)


def test_unknown_name_like_no_other(tmp_path):
    with pytest.raises(
        ValueError, match="none of digits, cifar10, cifar100, and no image"
    ) as error:
        data.load("imagenet")
    assert "did you mean" not in str(error.value)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="it is a file"):
        data.load(str(tmp_path / "file"))


# CIFAR as TFDS keeps it


def test_cifar10_comes_back_as_it_was_prepared(prepared):
    loaded = data.load("cifar10", data_dir=prepared / "tfds")
    source = data.load(str(prepared / "images"))
    assert loaded.classes == source.classes == cifar.CIFAR10.classes
    for of in (
        lambda d: (d.train_images, d.train_labels),
        lambda d: (d.test_images, d.test_labels),
    ):
        assert as_set(*of(loaded)) == as_set(*of(source))
    assert loaded.train_images.shape == (30, 32, 32, 3)
    assert loaded.train_labels.dtype == np.int32
    np.testing.assert_array_equal(loaded.mean, np.float32([0.491, 0.482, 0.447]))
    np.testing.assert_array_equal(loaded.std, np.float32([0.247, 0.243, 0.262]))


def test_default_data_dir_is_that_of_tfds(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared / "tfds"))
    assert data.load("cifar10").test_images.shape == (20, 32, 32, 3)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="cifar10 is not prepared") as error:
        data.load("cifar10")
    assert str(tmp_path / "cifar10" / "3.0.2") in str(error.value)
    assert "--data-dir" not in str(error.value)  # none was given
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", "/home/someone")
    assert tfds_source.default_data_dir() == Path("/home/someone/tensorflow_datasets")


FAILS_AT_ONCE = """
import sys
def refuse(event, _):
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request"):
        print("NETWORK", event)
sys.addaudithook(refuse)
from experiments import data
try:
    data.load("cifar100", data_dir=sys.argv[1])
except ValueError as error:
    print(error)
print("tensorflow" in sys.modules)
"""


def test_missing_cifar_fails_at_once_and_says_what_to_put_where(tmp_path):
    start = time.monotonic()
    outcome = subprocess.run(
        [sys.executable, "-c", FAILS_AT_ONCE, tmp_path / "my data"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=REPOSITORY,
    )
    assert time.monotonic() - start < 5
    root = tmp_path / "my data"
    command = "python -m experiments.prepare cifar100"
    assert outcome.stdout == (
        f"cifar100 is not prepared: {root}/cifar100/3.0.2 does not hold it, and nothing is "
        "downloaded. Put the official archive "
        "(https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz) "
        f"at '{root}/cifar-100-binary.tar.gz' and run\n"
        f"    {command} '{root}/cifar-100-binary.tar.gz' --data-dir '{root}'\n"
        "or, with an image folder ROOT/{train,test}/CLASS/FILE,\n"
        f"    {command} ROOT --data-dir '{root}'\n"
        "False\n"
    )


def test_cifar_in_a_format_that_needs_tensorflow(prepared, tmp_path):
    with_fault(prepared / "tfds", tmp_path, "tfrecord")
    with pytest.raises(
        ValueError, match=r"was prepared as tfrecord, which only TensorFlow can read"
    ):
        data.load("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("fault", ["shard missing", "shard cut", "info cut"])
def test_damaged_cifar(prepared, tmp_path, fault):
    with_fault(prepared / "tfds", tmp_path, fault)
    with pytest.raises(ValueError, match=r"3\.0\.2 is damaged .*prepare it again.*--overwrite"):
        data.load("cifar10", data_dir=tmp_path)
