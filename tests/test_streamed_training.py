"""Training on images that are streamed from a folder, from the command line."""

import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from run_folders import rows

from experiments import train
from experiments.data import load_streamed
from experiments.report import summary
from experiments.run import examples
from experiments.training.trained import load_trained

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


def test_examples_are_kept_as_the_network_sees_them(run, folder):
    kept = examples.read(run / "examples" / "ovsw-seed3.npz")
    wanted = load_streamed(str(folder), image_size=SIZE).test_images_at(kept.places.tolist())
    np.testing.assert_array_equal(kept.images, wanted)


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


@pytest.mark.long
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


def test_the_table_of_twenty_classes_fits_80_columns(run):
    shown = io.StringIO()
    summary.print_table(run, Console(file=shown, width=80))
    assert "SGD" in shown.getvalue()
    assert "OvSW" in shown.getvalue()
    assert "…" not in shown.getvalue()
