"""Training in two steps, with a teacher: from the command line, and the parts."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from run_folders import rows

from experiments import train
from experiments.config import Config
from experiments.data import load
from experiments.data.batches import feed_of
from experiments.run import weights
from experiments.training.losses import cross_entropy, distillation
from experiments.training.networks import Network
from experiments.training.step import Steps
from experiments.training.trained import load_teacher, load_trained

SHORT = ["--train-images", "64", "--epochs", "1", "--batch-size", "32", "--seeds", "3", "5"]
SHORT += ["--members-at-once", "2", "--network", "tiny_networks:OneStage"]
OWN = ["tiny_networks:OneStage", "tiny_networks:WithDropout"]


def run(folder, *arguments):
    assert train.main(["digits", *SHORT, *arguments, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A teacher, a network with binary activations that it taught, and one of both."""
    root = tmp_path_factory.mktemp("runs")
    real = ["--optimizers", "sgd"]
    teacher = run(root / "teacher", *real, "--binary", "none")
    taught = ["--teacher", str(teacher)]
    step1 = run(root / "step1", *real, *taught, "--binary", "activations")
    step2 = run(root / "step2", *taught, "--start", str(step1), "--distillation", "0.5")
    return teacher, step1, step2


def arrays(folder, name):
    with np.load(folder / "weights" / f"{name}.npz") as found:
        return dict(found)


@pytest.mark.long
def test_every_run_keeps_the_weights_of_all_its_trainings(runs):
    teacher, step1, step2 = runs
    for folder in (teacher, step1):
        kept = {p.name for p in (folder / "weights").iterdir()}
        assert kept == {"sgd-seed3.npz", "sgd-seed5.npz"}
        assert "params/layer1/0/conv1/kernel" in arrays(folder, "sgd-seed3")
    of_both = arrays(step2, "ovsw-seed5")
    assert "params/layer1/0/conv1/latent_kernel" in of_both
    assert of_both["statistics/bn1/mean"].shape == (8,)


def test_real_weights_have_no_flips_in_rows_table_or_figures(runs):
    for folder in runs[:2]:
        for row in rows(folder):
            assert 0 <= row["test_top1"] <= 1
            assert not [key for key in row if "flip" in key or "silent" in key]
            assert row["layers"] == {}
        summary = json.loads((folder / "summary.json").read_text())
        assert "never_flipped" not in summary["sgd"]
        page = (folder / "summary.md").read_text()
        activations = " and the activations" if folder == runs[0] else ""
        assert f"The weights{activations} are real, so there are no flips." in page
        assert sorted(p.name for p in (folder / "figures").iterdir()) == [
            *("convergence.csv", "convergence.png")
        ]
        assert not (folder / "latent.npz").exists()
    assert "never_flipped" in json.loads((runs[2] / "summary.json").read_text())["ovsw"]


def test_the_second_step_starts_at_the_weights_of_the_first(runs):
    """Of the same seed, for every optimizer; latent.npz holds where the first seed started."""
    started = np.load(runs[2] / "latent.npz")
    first = arrays(runs[1], "sgd-seed3")
    for optimizer in ("sgd", "ovsw"):
        initial = started[f"{optimizer}|layer1/0/conv1|initial"]
        np.testing.assert_array_equal(initial, first["params/layer1/0/conv1/kernel"])


def network(binary, **options):
    return Network("tiny_networks:OneStage", 10, (8, 8, 1), binary=binary, **options)


def test_each_seed_and_its_statistics_are_found_again(runs):
    both = network("both")
    assert weights.find(runs[1], "ovsw", 5).name == "sgd-seed5.npz"  # it has no ovsw
    assert weights.find(runs[1], "sgd", 8).name == "sgd-seed3.npz"  # nor seed 8
    assert weights.find(runs[2], "ovsw", 5).name == "ovsw-seed5.npz"
    params, statistics = weights.load(weights.find(runs[1], "sgd", 5), *both.shapes)
    stored = arrays(runs[1], "sgd-seed5")
    flat = traverse_util.flatten_dict({"params": params, "statistics": statistics})
    assert len(flat) == len([name for name in stored if not name.startswith("data/")])
    for path, value in flat.items():
        name = "/".join(map(str, path)).replace("latent_kernel", "kernel")
        np.testing.assert_array_equal(value, stored[name], err_msg=name)


def test_no_other_training_stands_in_for_one_that_is_asked_for(runs):
    for optimizer, seed in (("lars", 3), ("sgd", 4)):
        with pytest.raises(ValueError, match=rf"{optimizer}-seed{seed}\.npz \(there are: sgd-"):
            load_trained(runs[0], optimizer, seed, OWN)


def kl(p, q):
    return np.sum(p * (np.log(p) - np.log(q)), axis=-1)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_is_the_divergence_from_the_teacher(temperature):
    rng = np.random.default_rng(0)
    student, teacher = 3 * rng.normal(size=(2, 6, 5))
    with jax.enable_x64(True):
        logits = jnp.asarray(student), jnp.asarray(teacher)
        loss, both = jax.value_and_grad(distillation, (0, 1))(*logits, temperature)
    gradient, to_teacher = both
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    np.testing.assert_allclose(loss, temperature**2 * kl(p, q).mean(), rtol=1e-12)
    np.testing.assert_allclose(gradient, temperature * (q - p) / 6, rtol=1e-9, atol=1e-15)
    np.testing.assert_array_equal(to_teacher, 0)


def first_step(digits, config, teacher):
    """The loss of a student's first step; its logits, images and labels, and their numbers."""
    student, feed = network("both"), feed_of(digits, config)
    steps = Steps(student, "sgd", config, feed, teacher=teacher)
    state, batches = steps.batches(steps.init([0]), [0], 1)
    batch = next(batches)
    params, statistics = jax.tree.map(lambda x: x[0], (state.params, state.statistics))
    images, labels = feed.images(jax.random.key(0), (batch[0][0], 0), feed.resident)
    logits, _ = student.train(params, statistics, images)
    loss = float(steps.train_step(state, None, batch)[1].loss[0])
    return loss, logits, images, labels, batch[0][0][0]


@pytest.mark.long
def test_the_loss_of_a_step_is_the_stated_mixture(runs):
    """Against both parts computed outside, on the very images of the step."""
    digits = load("digits", train_images=64)
    config = Config(batch_size=32, teacher=runs[0], distillation=0.25, temperature=2.0)
    teacher = load_teacher(runs[0], weights.data_for(digits), OWN)
    loss, logits, images, labels, _ = first_step(digits, config, teacher)
    answers = teacher.network.evaluate(teacher.params, teacher.statistics, images)
    hard = float(cross_entropy(logits, labels))
    soft = float(distillation(logits, answers, 2.0))
    assert abs(soft - hard) > 0.1 * hard
    assert loss == pytest.approx(0.25 * soft + 0.75 * hard, rel=0.02)


@pytest.mark.long
def test_a_teacher_sees_images_standardised_as_its_own(runs):
    """Those of a folder are, by its pixels; those that are streamed are by ImageNet's."""
    digits = load("digits", train_images=64)
    config = Config(batch_size=32, teacher=runs[0], distillation=1.0)
    teacher = load_teacher(runs[0], weights.data_for(digits), OWN)
    data = teacher.data
    other = teacher._replace(data=data._replace(mean=data.mean + 0.5, std=data.std / 4))
    loss, logits, *_, numbers = first_step(digits, config, other)
    expected, unlike = (
        float(distillation(logits, t.logits(digits.train_images[numbers]), 1.0))
        for t in (other, teacher)
    )
    assert abs(expected - unlike) > 0.1 * expected
    assert loss == pytest.approx(expected, rel=0.02)


@pytest.mark.long
def test_compute_in_bfloat16_keeps_float32_state():
    digits = load("digits", train_images=64)
    config = Config(batch_size=32, dtype="bfloat16")
    net = network("both", dtype="bfloat16")
    steps = Steps(net, "ovsw", config, feed_of(digits, config))
    state, batches = steps.batches(steps.init([0]), [0], 1)
    before = jax.tree.map(lambda x: x.dtype, state)
    for batch in batches:
        state, sums = steps.train_step(state, None, batch)
    assert jax.tree.map(lambda x: x.dtype, state) == before
    assert {str(x.dtype) for x in jax.tree.leaves(state.params)} == {"float32"}
    assert np.isfinite(sums.loss).all()


def wrong(runs):
    teacher, step1, _ = map(str, runs)
    return {
        r"optimizer ovsw acts on the latent weights .* use sgd or adam": ["--binary", "none"],
        r"optimizer bop acts": ["--binary", "activations", "--optimizers", "bop"],
        r"nowhere is no run folder": ["--start", "nowhere"],
        r"elsewhere is no run folder": ["--teacher", "elsewhere"],
        r"do not fit the network: params/.* They are of network .*: use the same network": [
            *("--start", step1, "--network", "small")
        ],
        r"distillation=1.5 is out of range: it must be from 0 to 1": ["--distillation", "1.5"],
        r"distillation=0.5 has no effect without a teacher": ["--distillation", "0.5"],
        r"temperature=2.0 has no effect without a teacher": ["--temperature", "2"],
        r"teacher_network=a:B has no effect without a teacher": ["--teacher-network", "a:B"],
        r"init=uniform has no effect on trained weights": ["--init", "uniform", "--start", "x"],
        r"init=uniform has no effect with binary=none": ["--binary", "none", "--init", "uniform"],
        r"init_scale=0.1 has no effect with binary=activations": [
            *("--binary", "activations", "--grids", "optimizer=sgd init_scale=0.1"),
        ],
        r"flip_state=ema has no effect with binary=none": [
            *("--binary", "none", "--flip-state", "ema"),
        ],
        r"workers=3 has no effect on images in memory": ["--workers", "3"],
        r"augment=True has no effect with image_size=8": ["--image-size", "8", "--augment"],
        r"'digits' is held in memory, uncropped: omit --image-size": ["--image-size", "8"],
        r"temperature=0.0 is out of range": ["--teacher", teacher, "--temperature", "0"],
        r"made as Class\(classes, in_channels=..., conv=..., rngs=...\)": [
            *("--network", "tiny_networks:Tiny", "--binary", "activations", "--optimizers", "sgd")
        ],
    }


def test_bad_commands_end_with_an_explanation(runs, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for message, arguments in wrong(runs).items():
        try:
            status = train.main(["digits", *SHORT, *arguments])
        except SystemExit as ended:  # a value that the command line itself refuses
            status = ended.code
        assert status == 2, message
        error = re.sub(r"\s+", " ", capsys.readouterr().err)
        assert re.search(message, error), error
        assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_real_network_for_imagenet_starts_with_batch_norms_at_one():
    """At 1e-8, where signs don't notice it, a real-valued network would learn nothing."""
    for binary, scale in (("activations", 1e-8), ("none", 1.0)):
        net = Network("imagenet-resnet18", 10, (32, 32, 3), binary=binary)
        start = jax.jit(lambda key, net=net: net.init(key)[0]["layer1"][0]["bn1"]["scale"])
        found = start(jax.random.split(jax.random.key(0), 1))  # all else is not even compiled
        np.testing.assert_allclose(found, scale, rtol=1e-6)


def test_other_classes_or_shapes_are_refused(runs, tmp_path):
    there = weights.data_of(weights.find(runs[1], "sgd", 3))
    weights.check_same_data(runs[1], there, there)
    for change, message in (
        ({"classes": there.classes[::-1]}, r"other classes \(10 there, 10 here: 0 there is"),
        ({"image_shape": (16, 16, 1)}, r"images of \(8, 8, 1\), these are \(16, 16, 1"),
    ):
        with pytest.raises(ValueError, match=f"trained on {message}"):
            weights.check_same_data(runs[1], there, there._replace(**change))


def test_a_run_whose_trainings_never_ended_starts_nothing(tmp_path):
    (tmp_path / "config.json").write_text('{"optimizers": ["sgd"], "seeds": [1]}')
    with pytest.raises(ValueError, match=r"holds no trained weights weights/sgd-seed1\.npz"):
        weights.find(tmp_path, "ovsw", 1)


def test_damaged_weights_are_named(runs, tmp_path):
    path = tmp_path / "sgd-seed0.npz"
    path.write_bytes((runs[1] / "weights" / "sgd-seed3.npz").read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"trained weights .*sgd-seed0\.npz can't be read"):
        weights.load(path, *network("both").shapes)


@pytest.mark.long
def test_networks_with_dropout_teach_and_are_started_from(tmp_path):
    own = ["--network", "tiny_networks:WithDropout", "--optimizers", "sgd"]
    first = run(tmp_path / "first", *own)
    run(tmp_path / "second", *own, "--start", str(first), "--teacher", str(first))
    digits = load("digits")
    assert load_trained(first, own=OWN).logits(digits.test_images[:4]).shape == (4, 10)


@pytest.mark.long
def test_a_training_that_is_done_by_its_rows_has_its_weights(tmp_path, monkeypatch):
    """Killed right behind the last row, where nothing would train it again."""

    def killed(self, row):
        assert (tmp_path / "run" / "weights" / "sgd-seed3.npz").exists()
        raise SystemExit

    monkeypatch.setattr("experiments.run.folder.RunFolder.write_metrics", killed)
    with pytest.raises(SystemExit):
        run(tmp_path / "run", "--optimizers", "sgd")


KERNEL = "params/stem/kernel"
# In place of what a file of weights holds under this name, or of the kernel.
STRANGE = {
    "data/classes": (np.array("ant"), r"data/classes of type <U3 and shape \(\)"),
    "data/image_shape": (np.array([np.inf]), r"data/image_shape of type float64"),
    "data/mean": (np.array(["x"]), r"data/mean of type <U1"),
    "text": (np.full((2, 2), "x"), f"{KERNEL} is <U1"),
    "NaN": (np.full((2, 2), np.nan, np.float32), f"hold NaN, in {KERNEL}: that training"),
    "int32": (np.ones((2, 2), np.int32), f"{KERNEL} is int32 there and float32 in the network"),
    "no data": (None, r"lack data/classes: they are of no run of this version"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_weights_that_no_run_writes(tmp_path, name):
    path = weights.file_of(tmp_path, "sgd", 0)
    params = {"stem": {"kernel": np.ones((2, 2), np.float32)}}
    data = weights.Data(("ant",), (4, 4, 1), np.zeros(1), np.ones(1))
    weights.save(path, (params, {}), data)
    array, message = STRANGE[name]
    with np.load(path) as stored:
        changed = {**stored, name if name in stored else KERNEL: array}
    if array is None:
        changed = {"weight": np.zeros(3)}
    np.savez(path, **changed)
    with pytest.raises(ValueError, match=message):
        weights.data_of(path), weights.load(path, params, {})
