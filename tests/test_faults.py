"""Full disks, folders that can't be written, images that vanish: said clearly, and nothing is lost.

The run is real, from the command line to its files. A disk is full from some call on: the system
then refuses every write to a file, of Python and of TensorStore, as it does without a fault.
"""

import errno
import gc
import os
import re
import resource
import shutil

import numpy as np
import pytest
from image_data import write_cifar, write_folder
from longer import long_but
from run_folders import arrays, untimed

from experiments import prepare, train
from experiments.report import summary
from experiments.run import weights
from experiments.run.checkpoint import Checkpoints
from experiments.run.events import EventFile
from experiments.run.folder import RunFolder
from experiments.training.step import Steps

CLASSES, IMAGES, BATCH = ("ant", "bee"), 24, 4
STEPS = len(CLASSES) * IMAGES // BATCH  # an epoch
FULL = os.strerror(errno.EFBIG)  # a disk says that it is full; a limit of this process, this


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "images"
    counts = {"train": dict.fromkeys(CLASSES, IMAGES), "test": dict.fromkeys(CLASSES, 3)}
    write_folder(root, counts, size=(20, 18))
    return root


@pytest.fixture(scope="module")
def command(images):
    return [
        *("--data", str(images), "--image-size", "16", "--workers", "1"),
        *("--network", "tiny_networks:Tiny", "--optimizers", "ovsw", "--seeds", "0"),
        *("--epochs", "2", "--batch-size", str(BATCH)),
    ]


@pytest.fixture(scope="module", autouse=True)
def whole(command, tmp_path_factory):
    """The folder of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert train.main([*command, "--out", str(folder)]) == 0
    yield folder
    gc.collect()  # what writes left behind is noticed here, and not in other files


@pytest.fixture
def no_figures(monkeypatch):
    """They take longer than the run, and are the same from the same rows."""
    monkeypatch.setattr(train.figures, "draw", lambda path: [])


class Disk:
    """One that fills up: from then on no file grows beyond `size` bytes."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_at(self, owner, name, call, size):
        """Before that call, from 1 on, of a function."""
        function, calls = getattr(owner, name), []

        def counted(*arguments, **options):
            calls.append(name)
            if len(calls) == call:
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, self.before[1]))
            return function(*arguments, **options)

        self.monkeypatch.setattr(owner, name, counted)

    def free(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


@pytest.fixture
def disk(monkeypatch):
    disk = Disk(monkeypatch)
    yield disk
    disk.free()


def assert_same(folder, whole):
    assert untimed(folder) == untimed(whole)
    found, expected = arrays(folder), arrays(whole)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert not (folder / "checkpoints").exists()


def fails(command, folder, capsys):
    """What a run that ends with an error says of it."""
    capsys.readouterr()
    assert train.main([*command, "--out", str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1, error
    return error.removeprefix("error: ").rstrip("\n")


def goes_on(command, folder, capsys):
    """What the same command says when it then comes to the end."""
    assert train.main([*command, "--out", str(folder)]) == 0
    return capsys.readouterr().out


def cannot_write(path, folder, reason=FULL):
    return (
        f"{path} can't be written: {reason}. Nothing written before is lost: make room, or fix "
        f"the cause, and the command of the run with --out {folder} resumes it."
    )


# What can't be written; from which call on; how large files may be then; rows written before.
FULL_DISKS = {
    "config.json": ((RunFolder, "_write_json", 3), 0, 0),
    "latent.npz": ((RunFolder, "write_latent", 1), 100, 0),
    "metrics.jsonl": ((RunFolder, "write_metrics", 1), 100, 0),
    "tensorboard": ((EventFile, "add_scalars", 2), 100, 2),
    "weights/ovsw-seed0.npz": ((weights, "save", 1), 1000, 1),
    "summary.json": ((summary, "summarise", 1), 0, 2),
}


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("name", long_but(FULL_DISKS, "metrics.jsonl"))
def test_a_disk_that_fills_up(name, command, whole, tmp_path, disk, capsys):
    folder, (call, size, before) = tmp_path / "run", FULL_DISKS[name]
    disk.fill_at(*call, size)
    assert fails(command, folder, capsys) == cannot_write(folder / name, folder)
    assert not list(folder.glob("**/.[!l]*"))  # but the lock; nothing half-written takes room
    if name != "config.json":
        assert untimed(folder) == untimed(whole)[:before]
    # Neither does it go on while there is no room, nor is more lost by the attempt.
    assert "can't be written" in fails(command, folder, capsys)
    disk.free()
    goes_on(command, folder, capsys)
    assert_same(folder, whole)


@pytest.mark.long
@pytest.mark.usefixtures("no_figures")
def test_a_disk_that_fills_up_in_the_background(command, whole, tmp_path, disk, capsys, caplog):
    """Of a checkpoint, whose error the next one finds; the one before is there to go on from."""
    folder, often = tmp_path / "run", [*command, "--checkpoint-seconds", "0"]
    disk.fill_at(Checkpoints, "save", 3, 100)
    assert fails(often, folder, capsys) == cannot_write(folder / "checkpoints", folder)
    assert not [record for record in caplog.records if "orbax" in record.pathname]
    assert Checkpoints(folder / "checkpoints").numbers()
    disk.free()
    said = goes_on(often, folder, capsys)
    assert "resuming after epoch 0 of 2 and" in said
    assert_same(folder, whole)


@pytest.mark.long
def test_a_disk_that_fills_up_while_figures_are_drawn(command, whole, tmp_path, disk, capsys):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "figures")
    disk.fill_at(train.figures, "draw", 1, 1000)
    picture = folder / "figures" / "headline.png"
    assert fails(command, folder, capsys) == cannot_write(picture, folder)
    disk.free()
    goes_on(command, folder, capsys)
    assert {p.name for p in (folder / "figures").iterdir()} == {
        p.name for p in (whole / "figures").iterdir()
    }
    assert_same(folder, whole)


def test_a_disk_that_fills_up_while_a_data_set_is_prepared(tmp_path, disk, capsys):
    images, place = write_cifar(tmp_path / "images", train=1), tmp_path / "tfds"
    place.mkdir()
    disk.fill_at(prepare, "_write", 1, 5000)
    given = ["cifar10", str(images), "--data-dir", str(place)]
    assert prepare.main(given) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        rf"error: data folder {place} cannot be written \(.*{FULL}\): nothing is left of it; make "
        "room, or name another one with --data-dir",
        error,
    )
    assert not list(place.iterdir())
    disk.free()
    assert prepare.main(given) == 0


def test_a_folder_in_what_is_no_folder(command, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "run"
    assert fails(command, folder, capsys) == (
        f"run folder {folder} cannot be written: Not a directory. Fix that, or give another --out, "
        "where you may write and there is room."
    )


def test_a_run_on_a_file_system_that_became_read_only(
    command, whole, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    plain = os.open

    def read_only(path, flags, *rest, **options):
        if flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(str(folder)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return plain(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", read_only)  # as root may write where permissions forbid it
    assert f"{folder} cannot be written: Read-only file system. Fix" in fails(
        command, folder, capsys
    )
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def put_back(folder):
    return (
        ". The training so far is saved: with the original images the same command with "
        f"--out {folder} resumes it."
    )


@pytest.mark.long
@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("split", long_but(["train", "test"], "train"))
def test_an_image_that_is_cut_off(split, command, whole, images, tmp_path, capsys):
    """In the middle of an epoch, or of the evaluation behind it."""
    folder, files = tmp_path / "run", sorted((images / split).glob("*/*.png"))
    order = np.random.default_rng((0, 1, 0)).permutation(STEPS * BATCH)
    file = files[order[6 * BATCH + 1] if split == "train" else -1]
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    try:
        error = fails(command, folder, capsys)
    finally:
        file.write_bytes(content)
    assert error.startswith(f"{file} cannot be decoded: it is damaged or no image")
    assert error.endswith(put_back(folder))
    done = 6 if split == "train" else STEPS
    said = goes_on(command, folder, capsys)
    assert f"resuming after epoch 0 of 2 and {done} steps" in said
    assert_same(folder, whole)


@pytest.mark.long
@pytest.mark.usefixtures("no_figures")
def test_images_that_vanish(command, whole, images, tmp_path, monkeypatch, capsys):
    """All of them, in the middle of the second epoch."""
    folder, away, steps = tmp_path / "run", images.with_name("away"), []
    plain = Steps.train_step

    def train_step(self, *arguments, **options):
        steps.append(1)
        if len(steps) == STEPS + 1:
            images.rename(away)
        return plain(self, *arguments, **options)

    monkeypatch.setattr(Steps, "train_step", train_step)
    try:
        error = fails(command, folder, capsys)
    finally:
        away.rename(images)
    assert error.startswith(f"{images}/train/")
    assert "png cannot be read (No such file or directory): put it back, or make it" in error
    assert error.endswith(put_back(folder))
    assert untimed(folder) == untimed(whole)[:1]
    assert f"resuming after epoch 1 of 2 and {len(steps) - STEPS} steps" in (
        goes_on(command, folder, capsys)
    )
    assert_same(folder, whole)
