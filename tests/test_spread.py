"""A training whose batches, and large kernels, are divided among devices is that of one device."""

import math
import os
import re
from functools import partial

import jax
import numpy as np
import pytest
from image_data import of_two_classes, write_folder
from longer import long_but
from tiny_data import Spoilt, dataset

from experiments import data, train
from experiments.config import Config
from experiments.data import image_file
from experiments.data.batches import feed_of
from experiments.process import distributed
from experiments.training import sharding
from experiments.training.networks import Network
from experiments.training.sharding import BatchApart, MembersApart
from experiments.training.step import Steps, latent_weights

pytestmark = pytest.mark.usefixtures("small_is_large")

BATCH, STEPS, IMAGES, TEST_IMAGES = 16, 4, 67, 24
SHAPE = (8, 8, 1)
KERNEL = 3 * 3 * 8 * 8
LAYOUTS = {  # devices, model_devices, fsdp
    "1": (1, 1, False),
    "2": (2, 1, False),
    "8": (8, 1, False),
    "4x2": (8, 2, False),
    "fsdp": (8, 1, True),
    "2x2 fsdp": (4, 2, True),
}
VALUES = {"learning_rate": [0.1, 0.02]}
SEEDS = [3, 4]


@pytest.fixture(scope="module")
def small_is_large():
    """Divides the kernels of the binary layers here, and nothing that is smaller."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "LARGE", KERNEL)
        yield


@pytest.fixture(scope="module")
def network():
    return Network("tiny_networks:OneStage", 3, SHAPE)


def divided(name):
    count, model_devices, fsdp = LAYOUTS[name]
    return BatchApart(jax.devices()[:count], model_devices, BATCH, fsdp)


def steps_on(network, where, kind=Steps, of=None, **fields):
    config = Config(batch_size=BATCH, **fields)
    return kind(
        network, "ovsw", config, feed_of(of or dataset(IMAGES, TEST_IMAGES), config), layout=where
    )


def in_float64(_, *trees):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), trees)


def host(state):
    """Random keys as numbers, all of every device in one."""
    tree = state._replace(key=jax.random.key_data(state.key))
    return jax.tree.map(np.asarray, tree)


def trained(steps, calls=(1,) * STEPS, start=in_float64):
    """Where an epoch of two members leads to."""
    values = steps.place(VALUES)
    state, batches = steps.batches(steps.init(SEEDS, values, start), SEEDS, 1)
    batches, sums = list(batches), None
    done = 0
    for count in calls:
        state, sums = steps.train_step(state, sums, batches[done], values, count=count)
        done += count
    return state, sums


def results(steps, state, sums):
    return host(state), jax.device_get((sums, steps.standing(state))), steps.evaluate(state).metrics


@pytest.fixture(scope="module")
def one_device(network):
    with jax.enable_x64(True):
        steps = steps_on(network, MembersApart(jax.devices()[:1]), augment=True)
        return results(steps, *trained(steps))


def assert_close(actual, expected, tolerance=1e-9):
    """Codes, counts and keys exactly, floats to the tolerance, and to 1e-6 in float32."""

    def compare(x, y):
        assert x.dtype == y.dtype
        if np.issubdtype(x.dtype, np.floating):
            allowed = tolerance if x.dtype == np.float64 else 1e-6
            np.testing.assert_allclose(x, y, rtol=allowed, atol=allowed)
        else:
            np.testing.assert_array_equal(x, y)

    jax.tree.map(compare, actual, expected)


@pytest.fixture(params=long_but(LAYOUTS, "4x2", "fsdp"), scope="module")
def run(request, network):
    """Steps on some devices, and where an epoch of them leads to."""
    with jax.enable_x64(True):
        steps = steps_on(network, divided(request.param), augment=True)
        return request.param, steps, *trained(steps)


@pytest.mark.usefixtures("float64")
def test_an_epoch_is_that_of_one_device(run, one_device):
    _, steps, state, sums = run
    assert_close(results(steps, state, sums), one_device)


@pytest.mark.usefixtures("float64")
def test_where_arrays_lie(run):
    """Kernel, momentum and flip codes in parts; all else whole on every device."""
    name, steps, state, sums = run
    count, model_devices, fsdp = LAYOUTS[name]
    expected = count if fsdp else model_devices
    split = expected > 1
    flips = next(s for s in state.opt_state if hasattr(s, "history"))
    kernels, codes = latent_weights(state.params), latent_weights(flips.history)
    for layer, kernel in kernels.items():
        assert codes[layer].sharding.is_equivalent_to(kernel.sharding, kernel.ndim)
        parts = {str(part.index) for part in codes[layer].addressable_shards}
        assert len(parts) == expected
    large = [x for x in jax.tree.leaves(state) if x.size // len(x) >= KERNEL]
    assert len(large) == 3 * len(kernels) > 0  # weight, momentum, code
    assert all(x.sharding.is_fully_replicated != split for x in large)
    small = [x for x in jax.tree.leaves((state, sums)) if x.size // len(x) < KERNEL]
    assert all(x.sharding.is_fully_replicated for x in small)
    for resident in steps._shared[0]:
        assert len(resident) == -(-IMAGES // count) * count
        sizes = {len(s.data) for s in resident.addressable_shards}
        assert sizes == {len(resident) // count}


@pytest.mark.long
@pytest.mark.usefixtures("float64")
def test_several_steps_a_call(network, one_device):
    """In calls of three and one."""
    steps = steps_on(network, divided("4x2"), augment=True)
    state, sums = trained(steps, calls=(3, 1))
    assert_close(host(state), one_device[0])
    assert_close(jax.device_get(sums), one_device[1][0])


@pytest.mark.long
def test_a_step_is_skipped_on_all_devices(network):
    """One bad image, which lies on one device only, and one member that it spoils."""
    steps = steps_on(network, divided("4x2"), Spoilt, of=dataset(IMAGES, bad=(5,)))
    values = steps.place(VALUES)
    state, batches = steps.batches(steps.init(SEEDS, values), SEEDS, 1)
    skipped = 0
    for batch in batches:
        order, step = batch
        bad = np.any(np.asarray(order)[:, step] == 5, axis=1)
        before, placed = host(state), jax.tree.map(lambda x: x.sharding, state)
        state, sums = steps.train_step(state, None, batch, values)
        assert sums.skipped.tolist() == [int(bad[0]), 0]
        changed = jax.tree.map(lambda x, y: not np.array_equal(x[0], y[0]), before, host(state))
        trees = changed.params, changed.statistics, changed.opt_state
        assert any(jax.tree.leaves(trees)) == (not bad[0])
        jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim) or 1 / 0, state, placed)
        skipped += bad[0]
    assert skipped == 1


@pytest.mark.long
def test_the_data_set_stays_where_it_is(network):
    """Of the images, a step sends no more than those of its batch."""
    steps = steps_on(network, divided("8"))
    state, batches = steps.batches(steps.init(SEEDS, steps.place(VALUES)), SEEDS, 1)
    step = steps._training(1)
    lowered = step.lower(
        state, steps.no_metrics(state), *next(batches), steps.place(VALUES), steps._shared
    )
    sent = re.findall(
        r"= u8\[([\d,]+)\]\S* (?:all-|reduce-|collective-)\w", lowered.compile().as_text()
    )
    assert sent
    of_batch = len(SEEDS) * BATCH * np.prod(SHAPE)
    assert all(np.prod([int(n) for n in shape.split(",")]) <= of_batch for shape in sent)


@pytest.mark.parametrize("fsdp", [False, True])
def test_a_step_gathers_kernels_and_no_activations(network, fsdp):
    """Of one training: XLA does not divide the grouped convolutions of several by the batch."""
    steps = steps_on(network, BatchApart(jax.devices(), 2, BATCH, fsdp))
    state, batches = steps.batches(steps.init([3]), [3], 1)
    lowered = steps._training(1).lower(
        state, steps.no_metrics(state), *next(batches), {}, steps._shared
    )
    text = lowered.compile().as_text()
    assert not re.findall(r"(all-to-all|collective-permute)\(", text)
    gathered = re.findall(r"= f32\[([\d,]+)\]\S* all-gather\(", text)
    sizes = {math.prod(map(int, shape.split(","))) for shape in gathered}
    assert sizes == {KERNEL}


@pytest.mark.parametrize(
    ("shape", "model", "fsdp", "spec"),
    [
        ((3, 3, 64, 128), 4, False, (None, None, None, "model")),
        ((3, 3, 64, 126), 4, False, (None,) * 4),
        ((3, 3, 64, 128), 1, True, (None, None, None, ("model", "data"))),
        ((3, 3, 64, 126), 1, True, (None, None, "data", None)),
        ((3, 3, 63, 126), 1, True, (None,) * 4),
        ((3, 3, 64, 4), 4, True, (None, None, "data", "model")),
        ((64, 128), 4, False, (None, "model")),
        ((8, 8), 4, True, (None, None)),
        ((2**16,), 4, True, (None,)),
    ],
)
def test_where_kernels_are_kept(shape, model, fsdp, spec):
    grid = sharding.Grid.of(jax.devices(), model, fsdp)
    wanted = jax.sharding.NamedSharding(grid.mesh, jax.sharding.PartitionSpec(*spec))
    assert grid.kept(shape).is_equivalent_to(wanted, len(shape))
    assert grid.kept((3, *shape), leading=1).shard_shape((3, *shape)) == (
        3,
        *wanted.shard_shape(shape),
    )


@pytest.mark.parametrize(
    ("count", "model_devices", "batch", "message"),
    [
        (8, 3, 16, "model_devices=3 does not divide the 8 devices of a process: give another"),
        (8, 2, 12, "batch_size=12 can't be divided over 8 devices: .* a multiple of 8"),
    ],
)
def test_what_cannot_be_divided(count, model_devices, batch, message):
    with pytest.raises(ValueError, match=message):
        BatchApart(jax.devices()[:count], model_devices, batch)


def test_what_a_config_must_say():
    with pytest.raises(ValueError, match=r"model_devices=2 has no effect with spread=members: giv"):
        Config(model_devices=2)
    with pytest.raises(ValueError, match="spread=images is out of range: it must be members or b"):
        Config(spread="images")
    with pytest.raises(ValueError, match="model_devices=0 is out of range: it must be at least 1"):
        Config(spread="batch", model_devices=0)
    with pytest.raises(ValueError, match="fsdp=True has no effect with spread=members: give"):
        Config(fsdp=True)
    with pytest.raises(
        ValueError, match=r"=64 can't be divided into batch_norm_groups=3 equal par"
    ):
        Config(batch_norm_groups=3)
    with pytest.raises(ValueError, match="batch_norm_groups=0 is out of range"):
        Config(batch_norm_groups=0)


# Batch norm of parts of a batch


@pytest.mark.usefixtures("float64")
def test_batch_norm_of_parts_is_the_same_on_any_devices():
    parts = Network("tiny_networks:OneStage", 3, SHAPE, batch_norm_groups=4)
    steps = [steps_on(parts, where) for where in (MembersApart(jax.devices()[:1]), divided("4x2"))]
    one, several = (host(trained(s, calls=(1, 1))[0]) for s in steps)
    assert_close(several, one)
    whole = Network("tiny_networks:OneStage", 3, SHAPE)
    other = host(trained(steps_on(whole, divided("1")), calls=(1, 1))[0])
    assert not all(jax.tree.leaves(jax.tree.map(np.allclose, other.statistics, one.statistics)))


def test_parts_need_batch_norms_that_know_them():
    with pytest.raises(ValueError, match=r"batch_norm_groups=2 needs batch norms .* some are not"):
        Network("tiny_networks:Tiny", 3, SHAPE, batch_norm_groups=2)


# Order of what devices send


def test_devices_of_a_cpu_send_in_one_order(monkeypatch):
    """The flag is set before JAX starts, once, and not against the user."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_other=1")
    stopped = ValueError("stopped here")
    monkeypatch.setattr(train, "train", lambda *_: (_ for _ in ()).throw(stopped))
    for _ in range(2):
        assert train.main(["digits", "--spread", "batch"]) == 2
    flag = "--xla_cpu_enable_concurrency_optimized_scheduler"
    assert os.environ["XLA_FLAGS"] == f"--xla_other=1 {flag}=false"
    monkeypatch.setenv("XLA_FLAGS", f"{flag}=true")
    distributed.in_one_order()
    assert os.environ["XLA_FLAGS"] == f"{flag}=true"


# Streamed images


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    """36 training images, which make two batches, and 22 test images."""
    root = tmp_path_factory.mktemp("noise")
    write_folder(root, of_two_classes(18, 11), size=lambda i: (20, 12 + i))
    return data.load_streamed(str(root), image_size=8, workers=2)


@pytest.mark.parametrize("which", ["train", "test"])
def test_processes_read_their_own_rows(streamed, which, monkeypatch):
    """What four processes read makes up the whole batches, and nobody reads another's images."""
    read = []
    for name in ("decode_crop", "decode_centre"):
        plain = getattr(image_file, name)

        def decode(file, *rest, plain=plain):
            read.append(file)
            return plain(file, *rest)

        monkeypatch.setattr(image_file, name, decode)
    batches = partial(streamed.train_batches, 1, 2) if which == "train" else streamed.test_batches
    whole = list(batches(BATCH))
    read_of_whole = sorted(read)
    read.clear()
    parts = [list(batches(BATCH, rows=slice(4 * p, 4 * p + 4))) for p in range(4)]
    assert sorted(read) == read_of_whole
    assert len(set(read)) == len(read) == (2 * BATCH if which == "train" else 22)
    for i, batch in enumerate(whole):
        for together, of_processes in zip(
            batch, zip(*(p[i] for p in parts), strict=True), strict=True
        ):
            np.testing.assert_array_equal(np.concatenate(of_processes), together)
    assert all(len(part) == len(whole) for part in parts)


@pytest.mark.long
@pytest.mark.usefixtures("float64")
def test_streamed_training_is_that_of_one_device(streamed):
    network = Network("tiny_networks:OneStage", 2, (8, 8, 3))
    config = Config(batch_size=BATCH, image_size=8)
    found = []
    for where in (MembersApart(jax.devices()[:1]), divided("4x2")):
        steps = Steps(network, "ovsw", config, feed_of(streamed, config), layout=where)
        state, batches = steps.batches(steps.init([3], None, in_float64), [3], 1)
        sums = None
        for batch in batches:
            state, sums = steps.train_step(state, sums, batch)
        found.append(results(steps, state, sums))
    # The images are float32, whose last bit the two programs may round differently.
    assert_close(*found, tolerance=1e-7)
