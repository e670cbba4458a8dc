import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from image_data import write_cifar
from PIL import Image

from experiments import data, prepare
from experiments.data import cifar, cifar_source

REPOSITORY = Path(__file__).parents[1]
WARNED = ": results are not comparable with published ones\n"


def succeed(capsys, *arguments):
    """Standard output of the command."""
    assert prepare.main([*map(str, arguments)]) == 0
    return capsys.readouterr().out


def fail(capsys, *arguments):
    """The message the command ends with, without the progress bars above it."""
    assert prepare.main([*map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err[captured.err.index("error: ") :].rstrip("\n")


@pytest.fixture
def images(tmp_path):
    return write_cifar(tmp_path / "images")


def test_folder_becomes_a_set_that_load_reads(images, tmp_path, capsys):
    printed = succeed(capsys, "cifar10", images, "--data-dir", tmp_path / "tfds")
    folder = tmp_path / "tfds" / "cifar10" / "3.0.2"
    assert printed == (
        f"cifar10 is ready: 20 train and 10 test images in {folder}\n"
        f"note: 20 train images, where cifar10 has 50,000{WARNED}"
        f"note: 10 test images, where cifar10 has 10,000{WARNED}"
        "next: python -m experiments.train cifar10-resnet20-short "
        f"--data-dir {tmp_path / 'tfds'}\n"
    )
    loaded = data.load("cifar10", data_dir=tmp_path / "tfds")
    source = data.load(str(images))
    one, other = (
        sorted((x.tobytes(), y) for x, y in zip(of.train_images, of.train_labels, strict=True))
        for of in (loaded, source)
    )
    assert one == other
    assert sorted(p.name for p in (tmp_path / "tfds").iterdir()) == ["cifar10"]


def test_cifar100_in_the_default_data_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    printed = succeed(capsys, "cifar100", write_cifar(tmp_path / "images", cifar.CIFAR100))
    assert f"cifar100 is ready: 200 train and 100 test images in {tmp_path}/tfds/cifar" in printed
    assert "next: python -m experiments.train cifar10-resnet20-short --data cifar100\n" in printed
    loaded = data.load("cifar100")
    assert loaded.classes == cifar.CIFAR100.classes
    assert np.bincount(loaded.train_labels).tolist() == [2] * 100
    mean, std = data.channel_statistics(loaded.train_images)
    np.testing.assert_array_equal(loaded.mean, mean)
    np.testing.assert_array_equal(loaded.std, std)


def test_lossy_files_are_pointed_out(tmp_path, capsys):
    images = write_cifar(tmp_path / "images", suffix="jpg")
    printed = succeed(capsys, "cifar10", images, "--data-dir", tmp_path / "tfds")
    assert "note: 30 of 30 images come from files of a lossy format (JPEG, WEBP)" in printed


def test_gray_images_become_rgb(images):
    gray = np.random.default_rng(1).integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(gray).save(images / "train" / "cat" / "000.png")
    source = cifar_source.open_source(cifar.CIFAR10, images)
    examples = [pixels for pixels, labels in source.examples("train") if labels["label"] == 3]
    np.testing.assert_array_equal(examples[0], np.stack([gray] * 3, axis=-1))


def another_class(images):
    for split in ("train", "test"):
        (images / split / "cat").rename(images / split / "Cats")


def few_classes(images):
    for folder in images.glob("*/[!cd]*"):
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (another_class, r"has a class 'Cats' that cifar10 has not \(did you mean 'cat'"),
        (
            lambda images: shutil.rmtree(images / "train" / "cat"),
            "test has classes that .*train has not: cat",
        ),
        (few_classes, "no images of 7 of the 10 classes of cifar10: airplane, au"),
        (
            lambda images: Image.new("RGB", (64, 48)).save(images / "test" / "dog" / "000.png"),
            r"dog/000\.png is 64x48, but images of cifar10 are 32x32",
        ),
    ],
)
def test_images_that_are_not_of_the_set(change, message, images, tmp_path):
    change(images)
    with pytest.raises(ValueError, match=message):
        prepare.prepare("cifar10", images, data_dir=tmp_path / "tfds")
    assert not [*(tmp_path / "tfds").glob("*")]


# Where it goes


def test_a_prepared_set_is_replaced_only_on_request(tmp_path, capsys):
    target = tmp_path / "tfds"
    first = write_cifar(tmp_path / "first")
    second = write_cifar(tmp_path / "second", train=3)
    prepare.prepare("cifar10", first, data_dir=target)
    assert fail(capsys, "cifar10", second, "--data-dir", target) == (
        f"error: {target}/cifar10/3.0.2 is already there: add --overwrite to replace it"
    )

    # A source that turns out damaged half-way leaves the old set untouched.
    (second / "test" / "truck" / "000.png").write_bytes(b"damaged")
    message = fail(capsys, "cifar10", second, "--data-dir", target, "--overwrite")
    assert message.startswith(f"error: {second}/test/truck/000.png cannot be decoded")
    assert len(data.load("cifar10", data_dir=target).train_labels) == 20

    Image.new("RGB", (32, 32)).save(second / "test" / "truck" / "000.png")
    printed = succeed(capsys, "cifar10", second, "--data-dir", target, "--overwrite")
    assert "cifar10 is ready: 30 train" in printed
    assert len(data.load("cifar10", data_dir=target).train_labels) == 30
    assert [p.name for p in target.iterdir()] == ["cifar10"]
    assert [p.name for p in (target / "cifar10").iterdir()] == ["3.0.2"]


def test_interrupted(images, tmp_path, capsys, monkeypatch):
    def interrupt(pixels):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "_png", interrupt)
    assert prepare.main(["cifar10", str(images), "--data-dir", str(tmp_path / "tfds")]) == 130
    assert capsys.readouterr().err.endswith("interrupted: nothing was written\n")
    assert list((tmp_path / "tfds").iterdir()) == []


def test_an_interruption_while_a_set_is_replaced_keeps_the_old_one(tmp_path, capsys, monkeypatch):
    target, replace, calls = tmp_path / "tfds", os.replace, []
    prepare.prepare("cifar10", write_cifar(tmp_path / "first"), data_dir=target)

    def interrupt_the_second(here, there):
        calls.append(there)
        if len(calls) == 2:
            raise KeyboardInterrupt
        replace(here, there)

    monkeypatch.setattr(os, "replace", interrupt_the_second)
    second = write_cifar(tmp_path / "second", train=3)
    arguments = ["cifar10", str(second), "--data-dir", str(target), "--overwrite"]
    assert prepare.main(arguments) == 130
    assert capsys.readouterr().err.endswith("interrupted: nothing was written\n")
    assert len(calls) == 3
    assert len(data.load("cifar10", data_dir=target).train_labels) == 20


def test_a_data_folder_that_cannot_be_written(images, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    message = fail(capsys, "cifar10", images, "--data-dir", tmp_path / "file" / "tfds")
    assert message == (
        f"error: data folder {tmp_path}/file/tfds cannot be written (Not a directory): "
        "name another one with --data-dir"
    )


def test_source_is_missing(tmp_path, capsys):
    message = fail(capsys, "cifar100", tmp_path / "nothing", "--data-dir", tmp_path)
    assert message.startswith(
        f"error: SOURCE {tmp_path}/nothing does not exist: give an image folder"
    )
    assert "cifar-100-binary.tar.gz" in message


@pytest.mark.parametrize(
    ("name", "nearest"), [("CIFAR-10", "Did you mean 'cifar10' or 'cifar100'? "), ("mnist", "")]
)
def test_unknown_name(tmp_path, capsys, name, nearest):
    message = fail(capsys, name, tmp_path)
    assert message == (f"error: data set {name!r} is unknown. {nearest}Known: cifar10, cifar100.")


REFUSES_NETWORK = """
import runpy, sys
def refuse(event, _):
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request"):
        sys.exit(f"opened a connection: {event}")
sys.addaudithook(refuse)
sys.argv = ["prepare", *sys.argv[1:]]
runpy.run_module("experiments.prepare", run_name="__main__")
assert "tensorflow" not in sys.modules
"""


@pytest.mark.long
def test_command_line_without_network_or_tensorflow(images, tmp_path):
    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", REFUSES_NETWORK, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=REPOSITORY,
            timeout=120,
        )

    good = call("cifar10", images, "--data-dir", tmp_path / "tfds")
    assert good.returncode == 0, good.stderr
    assert "cifar10 is ready: 20 train and 10 test images" in good.stdout
    assert "Downloading" not in good.stdout + good.stderr
    assert "train" in good.stderr  # the progress bars
    bad = call("cifar10", tmp_path / "nothing", "--data-dir", tmp_path / "other")
    assert bad.returncode == 2
    assert bad.stderr.startswith("error: SOURCE")
    assert not (tmp_path / "other").exists()
