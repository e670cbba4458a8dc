"""A run goes on with the images that it began with, and with no others.

Nothing is trained here: `begun` opens the run folder as `experiments.train` does, and ends.
"""

import json
import shutil

import numpy as np
import pytest
from image_data import write_folder
from PIL import Image

from experiments import train
from experiments.data import fingerprint, load
from experiments.run.folder import RunFolder

COUNTS = {"train": {"ant": 4, "bee": 4}, "test": {"ant": 2, "bee": 3}}
STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["in memory", "streamed"])


@pytest.fixture
def images(tmp_path):
    """PNGs of noise; no two have as many bytes, since a streamed run knows them by that."""
    root, sizes = tmp_path / "images", set()
    write_folder(root, COUNTS, size=(8, 8))
    for file in sorted(root.rglob("*.png")):
        while file.stat().st_size in sizes:
            file.write_bytes(file.read_bytes() + b"\0")  # behind the end of the image
        sizes.add(file.stat().st_size)
    return root


@pytest.fixture
def begun(tmp_path, monkeypatch, capsys):
    """Begins or goes on with a run; what is printed, or the error."""
    monkeypatch.setattr(train._Run, "train", lambda self, signals: None)

    def run(images, streamed=False, *options):
        command = ["--data", str(images), "--out", str(tmp_path / "run"), "--batch-size", "4"]
        command += ["--image-size", "8"] if streamed else []
        failed = train.main([*command, "--optimizers", "sgd", "--seeds", "0", *options])
        captured = capsys.readouterr()
        return captured.err if failed else captured.out

    return run


def moved(split):
    (split / "ant" / "001.png").rename(split / "bee" / "moved.png")


def swapped(split):
    one, other = split / "ant" / "000.png", split / "bee" / "000.png"
    other.rename(split / "between")
    one.rename(other)
    (split / "between").rename(one)


def replaced(split):
    shutil.copy(split / "ant" / "001.png", split / "ant" / "000.png")


def renamed(split):
    """In an other order, and so in other batches."""
    (split / "ant" / "000.png").rename(split / "ant" / "zebra.png")


@STREAMED
@pytest.mark.parametrize(
    ("split", "change"),
    [("train", moved), ("test", swapped), ("train", replaced), ("test", renamed)],
)
def test_other_images_are_noticed(change, split, streamed, images, begun, tmp_path):
    assert "writing to" in begun(images, streamed)
    change(images / split)
    run = tmp_path / "run"
    assert begun(images, streamed) == (
        f"error: the data set has changed since run folder {run} was begun: {split} images are "
        "others, or have other names or classes. A run does not resume with other images. Restore "
        "them, or give another --out; or, if only unreadable images were replaced, "
        f"remove {run}/data.json.\n"
    )


@STREAMED
def test_the_same_images_of_another_copy_go_on(streamed, images, begun):
    before = begun(images, streamed)
    shutil.copytree(images, images.with_name("copy"), copy_function=shutil.copyfile)
    shutil.rmtree(images)
    images.with_name("copy").rename(images)
    assert begun(images, streamed) == before


def test_all_that_has_changed_is_named(images, begun):
    begun(images)
    (images / "test" / "bee" / "002.png").unlink()
    replaced(images / "train")
    assert (
        "begun: test_images were 5 and are 4; train images are others, or have other names or "
        "classes; test images are others" in begun(images)
    )


def test_images_that_only_give_the_mean_count_too(images, begun):
    begun(images, False, "--train-images", "4")
    used = {image.tobytes() for image in load(str(images), train_images=4).train_images}
    files = sorted((images / "train").glob("*/*.png"))
    unused = [f for f in files if np.asarray(Image.open(f)).tobytes() not in used]
    assert len(unused) == 4
    Image.new("RGB", (8, 8)).save(unused[0])
    assert "train images are others" in begun(images, False, "--train-images", "4")


@STREAMED
def test_without_its_test_split_a_run_on_held_out_images_goes_on(streamed, images, begun):
    first = begun(images, streamed, "--held-out", "2")
    shutil.rmtree(images / "test")
    assert begun(images, streamed, "--held-out", "2") == first


@STREAMED
def test_a_folder_of_version_0_1_goes_on_and_remembers_from_then_on(
    streamed, images, begun, tmp_path
):
    begun(images, streamed)
    file = tmp_path / "run" / "data.json"
    whole = json.loads(file.read_text())
    fields = ("train_images", "test_images", "classes")
    file.write_text(json.dumps({name: whole[name] for name in fields}))
    assert "writing to" in begun(images, streamed)
    assert json.loads(file.read_text()) == whole
    swapped(images / "train")
    assert "train images are others" in begun(images, streamed)


def test_what_could_not_be_read_may_be_mended(images, begun, tmp_path):
    """As it is when the loop of a training finds an image damaged."""
    config = train.read(["--data", str(images), "--image-size", "8", "--out", str(tmp_path / "a")])
    data = {"train_images": 8, "test_images": 5, "train_fingerprint": "0", "test_fingerprint": "1"}
    with RunFolder(config, data=data) as run:
        run.forget_images()
    mended = {**data, "train_fingerprint": "2"}
    RunFolder(config, data=mended).close()
    with pytest.raises(ValueError, match="train_images were 8 and are 9"):
        RunFolder(config, data={**mended, "train_images": 9})
    with pytest.raises(ValueError, match="test images are others"):
        RunFolder(config, data={**mended, "test_fingerprint": "3"})


def test_fingerprints_tell_arrays_apart():
    x = np.arange(6, dtype=np.uint8)
    others = [x.reshape(2, 3), x.astype(np.int32), x[::-1], x[:5], np.arange(1, 7, dtype=np.uint8)]
    prints = [fingerprint.of_arrays(a) for a in (x, *others)]
    assert len(set(prints)) == len(prints)
    assert prints[0] == fingerprint.of_arrays(x.copy())
    assert fingerprint.of_texts(["ab", "c"]) != fingerprint.of_texts(["a", "bc"])
