"""Training on images that are streamed from a folder, from the command line."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from experiments import train
from experiments.data import load_streamed
from experiments.report import summary
from experiments.training.trained import load_trained

pytestmark = pytest.mark.usefixtures("compile_quickly")

CLASSES, TRAIN, TEST, SIZE = 20, 3, 2, 16
SHORT = ["--image-size", str(SIZE), "--epochs", "2", "--batch-size", "16", "--seeds", "3", "5"]
SHORT += ["--network", "tiny_networks:Tiny", "--workers", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of many sizes; 40 of the test, so that the last batch of 16 is partial."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        for split, count in (("train", TRAIN), ("val", TEST)):
            place = root / split / f"class{label:02}"
            place.mkdir(parents=True)
            for i in range(count):
                height, width = rng.integers(20, 60, 2)
                pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                pixels[..., label % 3] //= 1 + label // 3
                Image.fromarray(pixels).save(place / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    command = ["digits", "--data", str(folder), *SHORT, "--out", str(out)]
    assert train.main(command) == 0
    return out


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_rows_count_every_image(run):
    written = rows(run)
    keys = [(r["optimizer"], r["seed"], r["epoch"], r["step"]) for r in written]
    assert sorted(keys) == sorted(
        (o, s, e, e * (CLASSES * TRAIN // 16))
        for o in ("sgd", "ovsw")
        for s in (3, 5)
        for e in (1, 2)
    )
    for row in written:
        for name in ("test_top1", "test_top5"):
            right = row[name] * CLASSES * TEST
            assert right == pytest.approx(round(right), abs=1e-9)
        assert row["test_top1"] <= row["test_top5"] <= 1
    assert "top-5 %" in (run / "summary.md").read_text()


def test_top1_and_top5_are_those_of_the_trained_weights(run, folder):
    """Counted by NumPy, image by image."""
    data = load_streamed(str(folder), image_size=SIZE)
    trained = load_trained(run, "ovsw", 3, own=["tiny_networks:Tiny"])
    right = {1: 0, 5: 0}
    for images, labels in data.test_batches(7):
        logits = np.asarray(trained.logits(images))
        for answer, label in zip(np.argsort(-logits, -1), labels, strict=True):
            for k in right:
                right[k] += int(label in answer[:k])
    (last,) = [r for r in rows(run) if (r["optimizer"], r["seed"], r["epoch"]) == ("ovsw", 3, 2)]
    for k, name in ((1, "test_top1"), (5, "test_top5")):
        assert last[name] * CLASSES * TEST == pytest.approx(right[k], abs=1)  # rounding


def test_both_optimizers_see_the_same_images(run, folder):
    data = load_streamed(str(folder), image_size=SIZE)
    first, second = (list(data.train_batches(3, epoch, 16)) for epoch in (1, 2))
    again = list(data.train_batches(3, 1, 16))
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0][0], second[0][0])


def test_a_damaged_image_in_an_epoch_is_named_and_nothing_earlier_lost(folder, tmp_path, capsys):
    damaged = folder / "train" / "class00" / "damaged.png"
    damaged.write_bytes((folder / "train" / "class00" / "0.png").read_bytes()[:300])
    out = tmp_path / "run"
    command = ["digits", "--data", str(folder), *SHORT, "--out", str(out)]
    try:
        assert train.main(command) == 2
    finally:
        damaged.unlink()
    assert "damaged.png cannot be decoded" in capsys.readouterr().err
    assert (out / "config.json").exists()


def test_a_folder_that_has_changed_does_not_go_on(run, folder, capsys):
    added = folder / "train" / "class00" / "added.png"
    added.write_bytes((folder / "train" / "class00" / "0.png").read_bytes())
    command = ["digits", "--data", str(folder), *SHORT, "--out", str(run)]
    try:
        assert train.main(command) == 2
    finally:
        added.unlink()
    assert "train_images were 60 and are 61" in capsys.readouterr().err


def test_the_table_of_twenty_classes_fits_80_columns(run):
    shown = io.StringIO()
    summary.print_table(run, Console(file=shown, width=80))
    assert "SGD" in shown.getvalue()
    assert "OvSW" in shown.getvalue()
    assert "…" not in shown.getvalue()
