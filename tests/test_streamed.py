"""Image folders of any sizes, streamed."""

import gc
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from image_data import of_two_classes, write_folder
from PIL import Image

from experiments import data
from experiments.data import image_folder

REPOSITORY = Path(__file__).parents[1]
COUNTS = {"train": {"ant": 7, "bee": 13}, "test": {"ant": 3, "bee": 4}}
SIZES = [(40, 30), (30, 40), (64, 64), (20, 90), (25, 24)]


def colour(split, name, i):
    """Each image has one colour, by which it is known again whatever part of it is seen."""
    return (10 * i, 200 if name == "bee" else 0, 200 if split == "test" else 0)


def write(root, counts=COUNTS, sizes=SIZES):
    for split, classes in counts.items():
        for name, count in classes.items():
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                image = Image.new("RGB", sizes[i % len(sizes)], colour(split, name, i))
                image.save(root / split / name / f"{i:03d}.png")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Images in which every crop looks different."""
    root = tmp_path_factory.mktemp("noise")
    write_folder(root, of_two_classes(6, 6), size=lambda i: SIZES[i % len(SIZES)])
    return root


def stream(root, **options):
    return data.load_streamed(str(root), **({"image_size": 16} | options))


def seen(batches):
    """All (colour, label) in order; every image is of one colour, and of the right shape."""
    found = []
    for images, labels in batches:
        assert images.dtype == np.uint8
        assert labels.dtype == np.int32
        assert images.shape == (len(labels), 16, 16, 3)
        assert (images == images[:, :1, :1]).all()
        found += zip(map(tuple, images[:, 0, 0].tolist()), labels.tolist(), strict=True)
    return found


def expected(split, counts=COUNTS):
    return [
        (colour(split, name, i), label)
        for label, name in enumerate(("ant", "bee"))
        for i in range(counts[split][name])
    ]


def workers():
    return [t.name for t in threading.enumerate() if "grain" in t.name]


def workers_left():
    """Waits until no thread of the pipeline is left, at most two seconds."""
    for _ in range(200):
        if workers():
            time.sleep(0.01)
    return workers()


def test_what_it_says_of_itself(folder):
    pictures = stream(folder)
    assert repr(pictures) == (
        f"StreamedDataset({str(folder)!r}, train (20, 16, 16, 3), test (7, 16, 16, 3), 2 classes)"
    )
    assert pictures.classes == ("ant", "bee")
    assert pictures.image_shape == (16, 16, 3)
    assert (pictures.train_count, pictures.test_count) == (20, 7)
    np.testing.assert_array_equal(pictures.mean, np.float32([0.485, 0.456, 0.406]))
    np.testing.assert_array_equal(pictures.std, np.float32([0.229, 0.224, 0.225]))
    assert pictures.workers >= 1


def test_an_epoch_is_every_training_image_once(folder):
    pictures = stream(folder)
    first = seen(pictures.train_batches(seed=0, epoch=0, batch_size=4))
    assert sorted(first) == sorted(expected("train"))
    assert first != expected("train")
    assert first != seen(pictures.train_batches(seed=0, epoch=1, batch_size=4))
    assert first != seen(pictures.train_batches(seed=1, epoch=0, batch_size=4))
    # What does not fill a batch is left out, and does not change the order of the rest.
    assert seen(pictures.train_batches(seed=0, epoch=0, batch_size=6)) == first[:18]
    assert workers_left() == []


@pytest.mark.parametrize(("batch_size", "fillers"), [(7, 0), (1, 0), (3, 2), (10, 3)])
def test_every_test_image_once(folder, batch_size, fillers):
    found = seen(stream(folder).test_batches(batch_size))
    assert len(found) % batch_size == 0
    assert found == [*expected("test"), *[((0, 0, 0), -1)] * fillers]


def test_crops_follow_from_seed_and_epoch_alone(noise):
    def epoch(seed, number, **options):
        batches = stream(noise, **options).train_batches(seed, number, 12)
        return [array for batch in batches for array in batch]

    one, four, again = epoch(3, 5, workers=1), epoch(3, 5, workers=4), epoch(3, 5)
    for other in (four, again):
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, theirs)

    # Another epoch shows other crops: no image is seen twice.
    def pixels(arrays):
        return {image.tobytes() for image in arrays[0]}

    assert len(pixels(one)) == 12
    assert not pixels(one) & pixels(epoch(3, 6))
    assert not pixels(one) & pixels(epoch(4, 5))


def test_test_images_do_not_change(noise):
    (one, _), (other, _) = (next(stream(noise, workers=w).test_batches(12)) for w in (1, 3))
    np.testing.assert_array_equal(one, other)


def test_some_test_images_are_those_of_the_batches(noise):
    data = stream(noise)
    (images, _), *_ = data.test_batches(data.test_count)
    np.testing.assert_array_equal(data.test_images_at([2, 0]), images[[2, 0]])
    assert data.test_images_at([]).shape == (0, *data.image_shape)


# The folder


@pytest.mark.parametrize("name", ["val", "validation"])
def test_other_names_of_the_test_split(tmp_path, name):
    write(tmp_path)
    (tmp_path / "test").rename(tmp_path / name)
    assert seen(stream(tmp_path).test_batches(7)) == expected("test")
    assert image_folder.scan(tmp_path).files["test"][0].parts[-3] == name


def test_of_several_test_splits_the_first_with_classes(tmp_path):
    write(tmp_path, COUNTS | {"val": {"ant": 1}})
    assert stream(tmp_path).test_count == 7
    # ImageNet's own `test`, whose labels are not published.
    for i, file in enumerate(sorted((tmp_path / "test").glob("*/*"))):
        file.rename(tmp_path / "test" / f"ILSVRC2012_test_{i:08d}.JPEG")
    for name in ("ant", "bee"):
        (tmp_path / "test" / name).rmdir()
    assert stream(tmp_path).test_count == 1


def test_mixed_sizes_in_memory_name_the_remedy(folder):
    with pytest.raises(ValueError, match=r"or have them cropped while .* with --image-size 224$"):
        data.load(str(folder))


def test_subsets_are_those_of_load(tmp_path):
    write(tmp_path, sizes=[(16, 16)])
    for options in ({"train_images": 8}, {"train_images": 6, "held_out": 5}, {"held_out": 4}):
        loaded, streamed = data.load(str(tmp_path), **options), stream(tmp_path, **options)
        assert streamed.train_count == len(loaded.train_labels)
        assert streamed.test_count == len(loaded.test_labels)
        trained = seen(streamed.train_batches(0, 0, 1))
        pairs = zip(loaded.train_images[:, 0, 0].tolist(), loaded.train_labels, strict=True)
        assert sorted(trained) == sorted((tuple(c), int(y)) for c, y in pairs)
        tested = seen(streamed.test_batches(1))
        assert [c for c, _ in tested] == [*map(tuple, loaded.test_images[:, 0, 0].tolist())]
        assert not {*trained} & {*tested}


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size=0 is not at least 1"),
        ({"workers": 0}, "workers=0 is not at least 1"),
        ({"train_images": 21}, r"train_images=21 is more than the 20 training images of .*ask for"),
        ({"train_images": 1}, "train_images=1 is less than one image for each of the 2 classes"),
        ({"held_out": 20}, "held_out=20 and 1 or more images to train on are not to be had of"),
    ],
)
def test_numbers_out_of_range(folder, options, message):
    with pytest.raises(ValueError, match=message):
        stream(folder, **options)


def test_batch_sizes_out_of_range(folder):
    with pytest.raises(ValueError, match=r"^batch_size=21 is more than the 20 training images of "):
        stream(folder).train_batches(0, 0, 21)
    for batches in (lambda n: stream(folder).train_batches(0, 0, n), stream(folder).test_batches):
        with pytest.raises(ValueError, match=r"^batch_size=0 is not at least 1$"):
            batches(0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imagenet", r": only imagenet2012 .*no such folder\); did you mean imagenet2012"),
        ("cifar10", r"'cifar10' is held in memory, uncropped: omit --image-size"),
        (__file__, r"streamed \(it is a file\)$"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(ValueError, match=message):
        data.load_streamed(name, image_size=16)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_damaged_image_amid_an_epoch_is_named(tmp_path, split):
    write(tmp_path)
    (tmp_path / split / "ant" / "002.png").write_bytes(b"damaged")
    pictures = stream(tmp_path)
    train = split == "train"
    batches = pictures.train_batches(0, 0, 2) if train else pictures.test_batches(2)
    with pytest.raises(ValueError, match=rf"{split}/ant/002\.png cannot be decoded.*or remove it"):
        list(batches)
    assert workers_left() == []


# The end


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_nothing_is_left_of_an_epoch_that_is_cut_short(folder, how):
    batches = stream(folder, workers=3).train_batches(0, 0, 2)
    next(batches)
    assert workers()
    if how == "closed":
        batches.close()
        batches.close()
        with pytest.raises(StopIteration):
            next(batches)
    del batches
    gc.collect()
    assert workers_left() == []


INTERRUPTED = """
import signal, sys, time
from experiments import data
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
pictures = data.load_streamed(sys.argv[1], image_size=16)
try:
    for _ in pictures.train_batches(0, 0, 2):
        print("running", flush=True)
        while True:  # the signal comes here, not while a thread is started
            time.sleep(0.01)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_ends_it(folder):
    command = [sys.executable, "-W", "error", "-c", INTERRUPTED, str(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=REPOSITORY, **pipes)
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    lines = [line for line in err.splitlines() if "Grain multiprocess worker profiling" not in line]
    assert (process.returncode, lines) == (0, [])  # older JAX: Grain says what it can't do
    assert out.endswith("interrupted\n")
