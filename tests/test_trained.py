"""Trained networks in a program: predictions, sizes of images, training for other classes."""

import io

import jax
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from run_folders import rows

from experiments import train
from experiments.data import load
from experiments.run import predictions, weights
from experiments.trained import load_trained

OWN = ["tiny_networks:OneStage", "tiny_networks:Tiny"]
SHORT = ["--epochs", "1", "--network", "tiny_networks:OneStage", "--optimizers", "ovsw"]


def run(folder, *arguments):
    """Trains, and returns the folder and what was printed."""
    printed = Console(file=io.StringIO(), width=1000)
    config = train.read(["digits", *SHORT, *arguments, "--out", str(folder)])
    assert train.train(config, printed).finished
    return folder, printed.file.getvalue()


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """Two seeds that train together, on a part of digits."""
    seeds = ["--seeds", "3", "5", "--members-at-once", "2"]
    folder = tmp_path_factory.mktemp("runs") / "digits"
    return run(folder, *seeds, "--train-images", "128", "--batch-size", "32")[0]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images of many sizes, in two classes; the test set has partial batches."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 5)):
        for label in ("ant", "bee"):
            place = root / split / label
            place.mkdir(parents=True)
            for i in range(count):
                height, width = rng.integers(20, 60, 2)
                shape = (height, width) if i == 1 else (height, width, 3)  # one of them gray
                pixels = rng.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def photo_run(photos, tmp_path_factory):
    command = ["--data", str(photos), "--image-size", "16", "--batch-size", "8", "--seeds", "0"]
    return run(tmp_path_factory.mktemp("runs") / "photos", *command)[0]


@pytest.mark.parametrize("seed", [3, 5])
def test_the_runs_images_give_the_runs_accuracy(digits_run, seed):
    """To the image, and class by class what the run has kept."""
    trained, digits = load_trained(digits_run, seed=seed, own=OWN), load("digits")
    predicted = trained.predict(digits.test_images)
    (row,) = [r for r in rows(digits_run) if r["seed"] == seed]
    right = int((predicted == digits.test_labels).sum())
    assert right == round(row["test_top1"] * len(predicted))
    with np.load(predictions.file_of(digits_run, "ovsw", seed)) as kept:
        np.testing.assert_array_equal(predicted, kept["predicted"])
    assert trained.predict(digits.test_images[:1]).shape == (1,)
    assert trained.predict(digits.test_images[:0]).shape == (0,)


def test_the_module_takes_what_preprocess_makes(digits_run):
    trained, digits = load_trained(digits_run, own=OWN), load("digits")
    images = digits.test_images[:7]
    shown = trained.preprocess(images)
    mean, std = trained.data.mean, trained.data.std
    np.testing.assert_allclose(shown, (images / 255 - mean) / std, rtol=1e-5, atol=1e-6)
    model = trained.model
    assert isinstance(loaded["conv1"]["kernel"], jax.Array)
    with pytest.raises(ValueError, match=r"linear/kernel is \(8, 10\) there and \(8, 4\) in the"):
        weights.load(path, params, statistics)


WRONG = {
    r"params/conv1/kernel is \(3, 3, 1, 8\) there and \(3, 3, 3, 8\) in the network. They are of "
    r"network 'tiny_networks:OneStage': use the same network, on images with as many channels": [
        *("--image-size", "16")
    ],
    r"is missing there and .* in the network|is .* there and missing in the network": [
        *("--network", "tiny_networks:Tiny", "--image-size", "16")
    ],
}


@pytest.mark.parametrize("message", WRONG)
def test_all_but_the_head_must_fit(message, digits_run, photos, tmp_path):
    command = ["--data", str(photos), "--batch-size", "8", "--start", str(digits_run)]
    config = train.read(["digits", *SHORT, *command, *WRONG[message], "--out", str(tmp_path / "x")])
    with pytest.raises(ValueError, match=rf"do not fit the network: .*(?:{message})"):
        train.train(config, Console(file=io.StringIO()))
    assert not (tmp_path / "x").exists()
