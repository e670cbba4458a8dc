"""`--compile-for`: what a training needs on devices that are absent."""

import dataclasses
import io
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments import train
from experiments.accelerators import Collectives, Reading, Target, environments
from experiments.config import Config
from experiments.data import load
from experiments.data.batches import feed_of
from experiments.data.sizes import Sizes, sizes_of, without_images
from experiments.estimate import command, trainings, worker
from experiments.estimate.batch import largest_fitting, limit_by_line, try_batches
from experiments.estimate.records import (
    Doing,
    Failed,
    Machine,
    Step,
    Tried,
    from_json,
    to_json,
)
from experiments.estimate.report import report
from experiments.estimate.trainings import Trainings
from experiments.training.sharding import BatchApart, MembersApart

SIZES = Sizes("cifar10", 10, (32, 32, 3), 50_000, streamed=False)
SLICE = Machine("v5e:2x2", "tpu", 4, 1, 16 * 10**9, 1.5e9, {"jax": "0.10.2"})
GPU = Machine("h100", "cuda", 1, 1, 80 * 10**9, None, {"jax": "0.10.2"})


def reading(temporaries=10**9, **fields):
    numbers = {
        "arguments": 2 * 10**8,
        "output": 10**6,
        "alias": 10**6,
        "moved": 67 * 10**8,
        "flops": 0,
        "cycles": 3 * 10**6,
        "kernels": 600,
        "collectives": {"all-reduce": Collectives(30, 10**6), "all-gather": Collectives(2, 10**6)},
    }
    return Reading(temporaries=temporaries, where=(), **numbers | fields)


def step(name="SGD", found=None, **fields):
    numbers = {"trainings": 3, "at_once": 2, "devices": 1, "batch_size": 128, "steps": 90_000}
    return Step(name=name, reading=found, **numbers | fields)


def lines(machine, *steps, tried=None):
    """The rows of a report by their label, its notes, and its verdict."""
    tried = tried or Tried("SGD", {128: 12 * 10**8}, 1, 50_000)
    found = report(machine, steps, tried)
    rows = dict(zip(found.labels, zip(*found.columns, strict=True), strict=True))
    return rows, " ".join(found.notes), found.verdict


def test_a_tpu_is_estimated():
    rows, notes, verdict = lines(
        SLICE, step(found=reading()), step("OvSW", reading(cycles=6 * 10**6))
    )
    assert rows[""] == ("SGD", "OvSW")
    assert rows["memory a device"] == ("1.20 GB", "1.20 GB")
    assert rows["of 16 GB"] == ("7.5 %", "7.5 %")
    # 3 million cycles at 1.5 GHz are 2 ms, for 2 trainings of 128 images.
    assert rows["images/s"] == ("128,000", "64,000")
    assert rows["all epochs"] == ("3 minutes", "6 minutes")
    assert rows["collectives"] == ("32, 2.0 MB",) * 2
    assert "1.50 GHz" in notes
    assert verdict.startswith(
        "Fits: it needs 1.20 GB of 16 GB a device, and computes about 9 minutes"
    )
    assert "uses 1 of 4 devices" in verdict


def test_a_gpu_is_bounded():
    rows, notes, verdict = lines(GPU, step(found=reading(collectives={})))
    assert rows["images/s, at most"] == ("128,000",)  # 6.7 GB at 3.35 TB/s are 2 ms, too
    assert rows["moved, kernels"] == ("6.70 GB, 600",)
    assert rows["collectives"] == ("none",)
    assert "workspaces" in notes
    assert "computes at least 3 minutes in all." in verdict
    assert "images/s" not in rows


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (reading(13 * 10**9), "May not fit: it needs 13.2 GB of 16 GB a device"),
        (None, "Does not fit: the compiler refuses a step that needs more than 16 GB a device"),
    ],
)
def test_what_does_not_fit(found, says):
    rows, _, verdict = lines(SLICE, step(found=reading()), step("OvSW", found))
    assert verdict.startswith(says)
    assert rows["memory a device"][1] == ("13.2 GB" if found else "too much")


@pytest.mark.parametrize(
    ("needed", "says"),
    [
        (
            {128: 10**9, 1024: 5 * 10**9},
            "1024 fits: compiled for SGD, it needs 5 GB a device (256 images on each).",
        ),
        ({128: 10**9, 256: 2 * 10**9}, "Estimate: up to about 1,640 (410 images on each)"),
        ({128: 10**9, 256: 10**9 + 10**6}, "Estimate: all 50,000 training images would fit"),
        ({128: None, 32: None}, "No batch that was compiled fits, down to --batch-size 32."),
    ],
)
def test_the_batch_that_fits(needed, says):
    assert says in lines(SLICE, step(found=reading()), tried=Tried("SGD", needed, 4, 50_000))[1]


def test_several_hosts_are_launched():
    machine = dataclasses.replace(SLICE, target="v5e:4x4", devices=16, processes=4)
    found = report(machine, [step(found=reading(), devices=16)], Tried("SGD", {128: 1}, 16, 50_000))
    assert "16 devices of 4 hosts" in found.title
    assert "experiments.launch" in found.verdict


def affine(fixed, each, refused_from=10**9):
    """Measures as a network does; notes what it was asked."""
    asked = []

    def measure(batch):
        asked.append(batch)
        return None if batch >= refused_from else fixed + each * batch

    return measure, asked


@pytest.mark.parametrize(
    ("fixed", "each", "first", "asked"),
    [
        (0, 100, 100, [6400]),  # the largest is found at once, and 12,800 known not to fit
        (500_000, 100, 100, [200, 1600]),
        (0, 100, 30_000, [7500]),
        (790_000, 100, 100, [200]),  # only to draw a line
        (810_000, 100, 100, [50, 25]),  # even weights alone do not fit
    ],
)
def test_two_more_batches_are_enough(fixed, each, first, asked):
    """The largest of the doubled batches that fits, where memory is a line."""
    measure, found = affine(fixed, each)
    known = try_batches(first, measure(first), measure, usable=800_000, multiple=1, most=10**6)
    fits = [
        b for b in (first * 2.0**k for k in range(-9, 15)) if b % 1 == 0 and fixed + each * b <= 8e5
    ]
    if fixed < 8e5:
        assert largest_fitting(known, 800_000) == max(fits)
    assert len(found) <= 3
    assert list(known) == found


def test_refused_batches_are_made_smaller():
    measure, _ = affine(0, 100, refused_from=2_000)
    known = try_batches(4_096, None, measure, usable=150_000, multiple=8, most=10**6)
    assert known == {4_096: None, 1_024: 102_400, 2_048: None}
    known = try_batches(16, None, affine(0, 1, 1)[0], usable=9, multiple=8, most=99)
    assert known == {16: None, 8: None}


def test_no_batch_is_larger_than_the_data_set_or_indivisible():
    measure, asked = affine(0, 1)
    try_batches(96, 96, measure, usable=10**9, multiple=32, most=1_000)
    assert asked == [768]


def test_a_line_that_does_not_rise_says_nothing():
    assert limit_by_line({1: 5, 2: 5}, 10) is None
    assert limit_by_line({1: 5, 2: None}, 10) is None


def test_records_survive_json():
    for record in (
        SLICE,
        Doing("x"),
        Failed("y", no_compiler=True),
        Tried("SGD", {1: 2, 4: None}, 1, 9),
        step(found=reading()),
        step(),
    ):
        assert from_json(to_json(record)) == record


def test_configs_survive_json():
    config = Config(seeds=(3, 4), teacher=Path("runs/x"), optimizers=("adam",), grids=("lam=1",))
    fields = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    assert worker._config(fields) == config


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_sizes_that_are_known_need_no_files(name, tmp_path):
    found = sizes_of(name, data_dir=tmp_path, train_images=1_000, held_out=500)
    assert (found.image_shape, found.train_count) == ((32, 32, 3), 1_000)
    assert found.classes == int(name.removeprefix("cifar"))


def test_sizes_of_imagenet_and_of_what_is_read():
    assert sizes_of("imagenet2012", image_size=224, held_out=167) == Sizes(
        "imagenet2012", 1_000, (224, 224, 3), 1_281_000, streamed=True
    )
    digits = load("digits")
    assert sizes_of("digits") == Sizes("digits", 10, digits.image_shape, digits.train_count, False)
    with pytest.raises(ValueError, match="unknown data set 'no-folder'"):
        sizes_of("no-folder")
    with pytest.raises(ValueError, match="held in memory"):
        sizes_of("cifar10", image_size=32)


def here(count):
    """Devices of this machine as a target."""
    return Target("here", "tpu", tuple(jax.devices()[:count]), memory=10**9, clock=1e9)


def traced(monkeypatch):
    """Steps are traced instead of compiled; returns the shapes of their arguments."""
    found = []

    def compile_for(target, function, *arguments):
        found.append((arguments, function.trace(*arguments)))

    monkeypatch.setattr(trainings, "compile_for", compile_for)
    monkeypatch.setattr(trainings, "read", lambda compiled: reading())
    return found


@pytest.mark.parametrize(
    ("options", "at_once", "devices"),
    [
        ({"members_at_once": 2}, 2, 2),
        ({"members_at_once": 3}, 3, 1),
        ({"members_at_once": 8}, 3, 1),
        ({"spread": "batch"}, 1, 2),
    ],
)
def test_a_step_is_the_one_that_trains(monkeypatch, options, at_once, devices):
    """The same arguments, shapes and shardings as those that a training passes."""
    passed = traced(monkeypatch)
    config = Config(batch_size=16, epochs=2, train_images=50, **options)
    sizes = sizes_of("digits", train_images=50)
    found = Trainings(config, sizes, here(2))
    made = found.step(found.programs[1])
    calls = -(-3 // at_once) * 2 * (50 // 16)
    assert (made.at_once, made.devices, made.steps, made.name) == (at_once, devices, calls, "OvSW")
    ((shapes, _),) = passed
    steps = _steps_of_training(config, made)
    state, batches = steps.batches(steps.init([0] * at_once), [0] * at_once, 1)
    sums = steps.no_metrics(state)
    arrays = state, sums, *next(batches), {}, steps._shared
    same = jax.tree.map(lambda s, x: np.shape(s) == np.shape(x), shapes, arrays)
    assert all(jax.tree.leaves(same))
    given, real = (
        jax.tree.leaves((shapes[:2], shapes[-1])),
        jax.tree.leaves((arrays[:2], arrays[-1])),
    )
    for a, b in zip(given, real, strict=True):
        assert a.dtype == b.dtype
        assert a.sharding.is_equivalent_to(b.sharding, a.ndim)


def _steps_of_training(config, made):
    """As `experiments.train` makes them, on as many devices."""
    network = train.Network("small", 10, (8, 8, 1))
    devices = jax.devices()[:2]
    layout = (
        BatchApart(devices, 1, 16)
        if config.spread == "batch"
        else MembersApart(devices[: made.devices])
    )
    feed = feed_of(load("digits", train_images=50), config)
    return train.Steps(network, "ovsw", config, feed, layout=layout)


def test_a_streamed_batch_is_divided(monkeypatch):
    passed = traced(monkeypatch)
    sizes = Sizes("imagenet2012", 7, (32, 32, 3), 100, streamed=True)
    config = Config("imagenet2012", image_size=32, network="tiny", batch_size=8, spread="batch")
    found = Trainings(config, sizes, here(4))
    assert found.step(found.programs[0], batch_size=16).batch_size == 16
    ((_, _, images, labels, *_), _), *_ = passed
    assert (images.shape, images.dtype, labels.shape) == ((16, 32, 32, 3), np.uint8, (16,))
    assert images.sharding.shard_shape(images.shape)[0] == 4


def test_images_are_not_made():
    feed = feed_of(without_images(SIZES), Config(batch_size=100))
    assert feed.steps_per_epoch == 500
    assert feed.resident[0].strides == (0, 0)


def test_devices_of_several_hosts_divide_batches(monkeypatch):
    monkeypatch.setattr(trainings, "processes_of", lambda devices: 2)
    found = Trainings(Config(network="tiny", batch_size=8), SIZES, here(4))
    assert (found.config.spread, found.data_devices) == ("batch", 4)
    with pytest.raises(ValueError, match="batch_size=6 can't be divided over 4 devices"):
        Trainings(Config(network="tiny", batch_size=6), SIZES, here(4))


def test_memory_that_does_not_suffice_is_no_error(monkeypatch):
    def refused(*arguments):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory on HBM")

    monkeypatch.setattr(trainings, "compile_for", refused)
    found = Trainings(Config(network="tiny", members_at_once=1), SIZES, here(1))
    assert found.step(found.programs[0]).reading is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("digits --compile-for v7:2x2", "target 'v7:2x2' is unknown"),
        ("digits --compile-for h100:0", "target 'h100:0' is unknown"),
        ("digits --compile-for v5e", "target 'v5e' is unknown"),
        ("digits --compile-for h100 --data nowhere", "unknown data set 'nowhere'"),
        ("digits --compile-for h100 --batch-size 2000", "is more than the 1437 training images"),
    ],
)
def test_a_wrong_command_is_named(words, says, capsys):
    assert train.main(words.split()) == 2
    assert says in capsys.readouterr().err


def test_launch_refuses_it():
    words = ["digits", "--compile-for", "v5e:4x4", "--out", "x"]
    assert train.read_command(words).compile_for == "v5e:4x4"
    with pytest.raises(ValueError, match=r"give it to experiments\.train"):
        train.read(words, several=True)


@pytest.mark.parametrize("target", ["v5e:2x2", "h100"])
def test_a_missing_compiler_names_the_commands(target, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OVSW_ACCELERATORS", str(tmp_path))
    answer = Failed("it is not installed: pip install it.", no_compiler=True)
    monkeypatch.setattr(environments, "lines_by", lambda *_, **__: iter([to_json(answer)]))
    assert train.main(["digits", "--compile-for", target]) == 2
    platform = "cuda" if target == "h100" else "tpu"
    said = capsys.readouterr().err
    assert f"pip install it. Best run `benchmarks/accelerators/environments.sh {platform}`" in said


def test_the_environment_is_asked_where_this_one_has_no_compiler(tmp_path, monkeypatch):
    made = tmp_path / "tpu" / "bin" / "python"
    made.parent.mkdir(parents=True)
    made.touch()
    monkeypatch.setenv("OVSW_ACCELERATORS", str(tmp_path))
    asked = []

    def lines_by(python, arguments, folder):
        asked.append(python)
        if python == made:
            answers = [SLICE, step(found=reading()), Tried("SGD", {128: 10**9}, 1, 50_000)]
        else:
            answers = [Failed("not here", no_compiler=True)]
        yield from map(to_json, answers)

    monkeypatch.setattr(environments, "lines_by", lines_by)
    screen = io.StringIO()
    console = Console(file=screen, width=80)
    command.estimate("v5e:2x2", Config(), SIZES, console)
    assert asked == [Path(sys.executable), made]
    assert "Nothing ran." in screen.getvalue()
    assert "Fits: it needs 1.20 GB of 16 GB a device" in screen.getvalue()


def test_what_a_failing_compiler_says_is_shown(tmp_path, monkeypatch, capsys):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho out of luck >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(ValueError, match=r"compiling for h100 failed: .* exit code 3"):
        command.estimate("h100", Config(), SIZES, Console(file=io.StringIO()))
    assert capsys.readouterr().err == "out of luck\n"


def test_this_python_says_what_it_lacks(monkeypatch):
    """The worker's answer without a compiler."""
    monkeypatch.setattr(worker, "open_target", _lacking)
    (answer,) = worker.records("h100", Config(), SIZES)
    assert answer == Failed("no compiler", no_compiler=True)


def _lacking(name):
    raise ModuleNotFoundError("no compiler")


@pytest.mark.long
@pytest.mark.parametrize("target", ["v5e:2x2", "h100"])
def test_a_small_training_is_estimated(target, tmp_path, monkeypatch):
    """Every part with the compiler itself: no images on disk, and a network of one's own."""
    platform = "cuda" if target == "h100" else "tpu"
    if not environments.python_of(platform).exists():
        pytest.skip("no compiler: benchmarks/accelerators/environments.sh makes it available")
    monkeypatch.chdir(Path(__file__).parent)  # where the network is
    options = "--network tiny_networks:Tiny --optimizers ovsw --seeds 0 1 --members-at-once 2"
    words = ["cifar10-resnet20", *options.split(), "--data-dir", str(tmp_path)]
    config = train.read(words)
    screen = io.StringIO()
    found = command.estimate(target, config, train._sizes(config), Console(file=screen, width=80))
    rows = dict(zip(found.labels, found.columns[0], strict=True))
    assert (rows[""], rows["trainings"], rows["in a step"]) == ("OvSW", "2", "2")
    assert rows["devices"] == ("1" if target == "h100" else "2")
    # The data set's 154 MB, whole on every device, and next to nothing else.
    assert 154 <= float(rows["arguments"].removesuffix(" MB")) < 165
    assert float(rows["temporaries"].removesuffix(" MB")) < 150
    assert found.verdict.startswith("Fits: ")
    assert "--batch-size " in screen.getvalue()
