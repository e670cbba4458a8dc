"""Trained networks in a program: predictions, sizes of images, training for other classes."""

import io
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from rich.console import Console
from run_folders import rows
from tiny_data import dataset

from experiments import train
from experiments.data import load, load_streamed
from experiments.run import predictions, weights
from experiments.trained import load_trained
from experiments.training.networks import Network

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
    assert isinstance(model, nnx.Module)
    assert model.bn1.use_running_average
    np.testing.assert_allclose(model(shown), trained.logits(images), rtol=1e-4, atol=1e-5)
    model.linear.bias[...] = jnp.full(10, jnp.nan)  # a copy
    assert np.isfinite(trained.logits(images)).all()


def test_images_of_other_sizes_are_refused_where_the_run_resized_none(digits_run):
    trained = load_trained(digits_run, own=OWN)
    for images in (np.zeros((2, 16, 16, 1), np.uint8), [np.zeros((9, 8, 1), np.uint8)]):
        with pytest.raises(ValueError, match=r"must have \(batch, 8, 8, 1\).*resize other sizes"):
            trained.predict(images)
    one = np.zeros((8, 8, 1), np.uint8)
    assert len(trained.predict([one, one])) == 2


def test_images_of_any_size_are_resized_as_the_run_did(photo_run, photos):
    trained = load_trained(photo_run, own=OWN)
    files = sorted((photos / "test").glob("*/*.png"))
    images = [np.atleast_3d(np.asarray(Image.open(file))) for file in files]
    data = load_streamed(str(photos), image_size=16)
    cropped = np.concatenate([batch for batch, _ in data.test_batches(5)])
    np.testing.assert_array_equal(trained.preprocess.sized(images), cropped)
    np.testing.assert_array_equal(trained.preprocess.sized(images[3][None]), cropped[3:4])
    predicted = trained.predict(images)
    np.testing.assert_array_equal(predicted, trained.predict(cropped))
    with np.load(predictions.file_of(photo_run, "ovsw", 0)) as kept:
        np.testing.assert_array_equal(predicted, kept["predicted"])


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 20, 20, 4), np.uint8),
        [np.zeros((20, 20), np.uint8)],
        np.zeros((16, 16, 3), np.uint8),
        np.zeros((1, 0, 9, 3), np.uint8),
    ],
    ids=["four channels", "no channel axis", "no batch axis", "empty"],
)
def test_what_is_no_image_to_resize(photo_run, images):
    trained = load_trained(photo_run, own=OWN)
    with pytest.raises(ValueError, match=r"any height and width with 1 or 3 channels"):
        trained.predict(images)


def test_one_line_says_what_it_is(digits_run, photo_run):
    count = sum(x.size for x in jax.tree.leaves(load_trained(digits_run, own=OWN).params))
    assert repr(load_trained(digits_run, seed=5, own=OWN)) == (
        f"Trained('{digits_run}', ovsw, seed 5: tiny_networks:OneStage, {count:,} parameters, "
        "10 classes; uint8 images (8, 8, 1), others refused)"
    )
    assert repr(load_trained(photo_run, own=OWN)).endswith(
        "2 classes; uint8 images (16, 16, 3), others resized (shorter side 18) and cropped)"
    )


# ---- other classes


@pytest.fixture(scope="module")
def tuned(digits_run, tmp_path_factory):
    """The network of digits, trained for three classes of other images."""
    root, out = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("runs") / "tuned"
    data = dataset(48)
    for split, images, labels in (
        ("train", data.train_images, data.train_labels),
        ("test", data.test_images, data.test_labels),
    ):
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            place = root / split / "abc"[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(place / f"{i}.png")
    command = ["--data", str(root), "--batch-size", "16", "--seeds", "5"]
    return run(out, *command, "--start", str(digits_run))


def test_a_head_of_other_classes_starts_anew_and_all_else_does_not(tuned, digits_run):
    folder, printed = tuned
    assert re.search(
        r"note: .*ovsw-seed5.npz was trained on other classes \(10 there, 3 here\): the head "
        r"\(linear\) is initialised anew, all other layers start from its weights",
        printed,
    )
    with np.load(digits_run / "weights" / "ovsw-seed5.npz") as there:
        first = dict(there)
    with np.load(folder / "latent.npz") as started:
        for layer in ("layer1/0/conv1", "layer1/0/conv2"):
            initial = started[f"ovsw|{layer}|initial"]
            np.testing.assert_array_equal(initial, first[f"params/{layer}/latent_kernel"])
    trained = load_trained(folder, own=OWN)
    assert trained.data.classes == ("a", "b", "c")
    assert trained.params["linear"]["kernel"].shape == (8, 3)


def test_the_head_is_what_depends_on_the_number_of_classes():
    network = Network("tiny_networks:OneStage", 10, (8, 8, 1))
    assert network.head == {"params/linear/kernel", "params/linear/bias"}
    assert Network("resnet18", 10, (32, 32, 3)).head == {"params/fc/kernel", "params/fc/bias"}


def test_only_the_head_keeps_its_initial_numbers(digits_run):
    network = Network("tiny_networks:OneStage", 4, (8, 8, 1))
    params, statistics = network.shapes
    path = weights.file_of(digits_run, "ovsw", 3)
    loaded, _ = weights.load(path, params, statistics, network.head)
    assert loaded["linear"] == params["linear"]  # its shapes, as given
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
