"""What a run keeps for a report: histograms, predictions, example images, the network's cost."""

import json

import numpy as np
import pytest
from flax import nnx
from run_folders import rows
from sklearn.metrics import accuracy_score
from tiny_networks import Tiny

import ovsw_jax as ovsw
from experiments import train
from experiments.data import load
from experiments.run import examples, histograms, predictions
from experiments.training.latent_histograms import count
from experiments.training.trained import load_trained

LAYER = "conv"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    command = "--network tiny_networks:Tiny --train-images 200 --epochs 3 --evaluate-every 2"
    command += " --optimizers ovsw --seeds 4 5 --out"
    assert train.main([*command.split(), str(folder)]) == 0
    return folder


def kept(folder, seed):
    return histograms.read(histograms.file_of(folder, "ovsw", seed))


def last_row(folder, seed):
    return next(r for r in rows(folder) if (r["seed"], r["epoch"]) == (seed, 3))


@pytest.mark.long
@pytest.mark.parametrize("seed", [4, 5])
def test_histograms_count_every_weight_as_numpy_does(run, seed):
    with np.load(run / "weights" / f"ovsw-seed{seed}.npz") as weights:
        latent = {
            name.removeprefix("params/").removesuffix("/latent_kernel"): w.ravel()
            for name, w in weights.items()
            if name.endswith("latent_kernel")
        }
    found = kept(run, seed)[3]["layers"]
    assert found.keys() == latent.keys()
    for layer, w in latent.items():
        limit = found[layer]["limit"]
        assert limit == pytest.approx(4 * np.sqrt(np.mean(w**2)), rel=1e-5)
        counts = np.sum([found[layer][kind] for kind in histograms.KINDS], axis=0)
        inside = np.clip(w, -limit, limit * (1 - 1e-7))
        wanted, _ = np.histogram(inside, histograms.BINS, (-limit, limit))
        assert np.abs(np.cumsum(counts) - np.cumsum(wanted)).max() <= 1  # rounding at a border
        assert counts.sum() == w.size


@pytest.mark.long
@pytest.mark.parametrize("seed", [4, 5])
def test_histograms_of_each_evaluated_epoch_agree_with_the_metrics(run, seed):
    by_epoch = kept(run, seed)
    assert {epoch: x["step"] for epoch, x in by_epoch.items()} == {0: 0, 2: 6, 3: 9}
    found = by_epoch[3]["layers"]
    for layer, metrics in last_row(run, seed)["layers"].items():
        size = sum(sum(found[layer][kind]) for kind in histograms.KINDS)
        never, silent = (sum(found[layer][kind]) / size for kind in ("never_flipped", "silent"))
        assert never == pytest.approx(metrics["never_flipped_ratio"], abs=1e-6)
        assert never + silent == pytest.approx(metrics["silent_ratio"], abs=1e-6)
    for layer in by_epoch[0]["layers"].values():  # nothing has flipped before the first step
        assert sum(layer["flipping"]) == sum(layer["silent"]) == 0 < sum(layer["never_flipped"])


def test_weights_that_are_no_numbers_are_in_no_interval():
    w = np.array([np.nan, np.inf, 0.5, -0.5, 0.0], np.float32)
    none = np.zeros(5, bool)
    (found,) = count({LAYER: w[2:]}, {LAYER: none[2:]}, {LAYER: none[2:]}).values()
    assert found["counts"].sum(axis=1).tolist() == [3, 0, 0]
    (found,) = count({LAYER: w}, {LAYER: none}, {LAYER: none}).values()
    assert found["counts"].sum() <= 3
    zero = np.zeros(5, np.float32)
    (found,) = count({LAYER: zero}, {LAYER: none}, {LAYER: none}).values()
    assert found["counts"][0, histograms.BINS // 2] == 5


def test_a_line_that_was_cut_off_costs_only_itself(tmp_path):
    path = histograms.file_of(tmp_path, "sgd", 0)
    counts = {LAYER: {"limit": 1.0, "counts": np.ones((3, histograms.BINS), int)}}
    histograms.append(path, 0, 0, counts)
    histograms.append(path, 1, 10, counts)
    path.write_bytes(path.read_bytes()[:-30])
    assert list(histograms.read(path)) == [0]
    histograms.append(path, 1, 20, counts)  # the resumed run trains the epoch again
    assert {epoch: x["step"] for epoch, x in histograms.read(path).items()} == {0: 0, 1: 20}


@pytest.mark.long
@pytest.mark.parametrize("seed", [4, 5])
def test_predictions_are_those_of_the_trained_weights(run, seed):
    with np.load(predictions.file_of(run, "ovsw", seed)) as found:
        label, predicted, probability = map(found.get, ("label", "predicted", "probability"))
    assert accuracy_score(label, predicted) == pytest.approx(last_row(run, seed)["test_top1"])
    digits = load("digits")
    assert np.array_equal(label, digits.test_labels)
    trained = load_trained(run, seed=seed, own=["tiny_networks:Tiny"])
    logits = np.asarray(trained.logits(digits.test_images), np.float64)
    assert np.array_equal(predicted, logits.argmax(-1))
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(probability, softmax.max(-1), rtol=2e-3)


@pytest.mark.parametrize("seed", [4, 5])
def test_examples_are_test_images_in_their_places(run, seed):
    index, images = examples.read(examples.file_of(run, f"ovsw-seed{seed}"))
    assert np.array_equal(images, load("digits").test_images[index])
    answered = predictions.read(predictions.file_of(run, "ovsw", seed))
    wrong = (answered.label != answered.predicted)[index]
    assert 0 < wrong.sum() <= examples.EACH
    assert sorted(wrong, reverse=True) == wrong.tolist()


def test_the_cost_of_the_network_is_that_of_the_summary(run):
    (name,), (found,) = zip(*json.loads((run / "network.json").read_text()).items(), strict=True)
    model = nnx.eval_shape(lambda: Tiny(10, in_channels=1, rngs=nnx.Rngs(0)))
    assert name == "tiny_networks:Tiny"
    assert found == json.loads(json.dumps(ovsw.summary(model, (1, 8, 8, 1)).to_dict()))
