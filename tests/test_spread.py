"""A training whose batches, and large kernels, are divided among devices is that of one device."""

import jax
import numpy as np
import pytest

import ovsw_jax as ovsw
from experiments import layout
from experiments.configs import Config
from experiments.data import Dataset
from experiments.feeds import feed_of
from experiments.layout import BatchApart, MembersApart
from experiments.networks import Network
from experiments.steps import Steps

pytestmark = pytest.mark.usefixtures("compile_quickly", "small_is_large")

BATCH, STEPS, IMAGES, TEST_IMAGES = 16, 4, 67, 24
SHAPE = (8, 8, 1)
BAD = 255  # the value of every pixel of an image that makes the loss NaN
KERNEL = 3 * 3 * 8 * 8
LAYOUTS = {"1": (1, 1), "2": (2, 1), "8": (8, 1), "4x2": (8, 2)}  # devices, model_devices
VALUES = {"learning_rate": [0.1, 0.02]}
SEEDS = [3, 4]


class OneStage(ovsw.models.SmallResNet):
    """Quick to compile."""

    def __init__(self, classes, *, in_channels, rngs):
        super().__init__(classes, in_channels=in_channels, widths=(8,), rngs=rngs)


@pytest.fixture(scope="module")
def small_is_large():
    """Divides the kernels of the binary layers here, and nothing that is smaller."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "LARGE", KERNEL)
        yield


@pytest.fixture(scope="module")
def network():
    return Network("test_spread:OneStage", 3, SHAPE)


def dataset(test_images=TEST_IMAGES, bad=()):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, BAD, (IMAGES, *SHAPE), dtype=np.uint8)
    pixels[list(bad)] = BAD
    labels = rng.integers(0, 3, IMAGES).astype(np.int32)
    ones = np.ones(1, np.float32)
    test = pixels[:test_images], labels[:test_images]
    return Dataset("tiny", pixels, labels, *test, ("a", "b", "c"), ones, ones)


def divided(name):
    count, model_devices = LAYOUTS[name]
    return BatchApart(jax.devices()[:count], model_devices, BATCH)


def steps_on(network, where, kind=Steps, of=None, **fields):
    config = Config(batch_size=BATCH, **fields)
    return kind(network, "ovsw", config, feed_of(of or dataset(), config), layout=where)


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
    return host(state), jax.device_get((sums, steps.standing(state))), steps.evaluate(state)


@pytest.fixture(scope="module")
def one_device(network):
    with jax.enable_x64(True):
        steps = steps_on(network, MembersApart(jax.devices()[:1]), augment=True)
        return results(steps, *trained(steps))


def assert_close(actual, expected):
    """Codes, counts and keys exactly, floats to 1e-9."""

    def compare(x, y):
        assert x.dtype == y.dtype
        if np.issubdtype(x.dtype, np.floating):
            # Some metrics are float32.
            tolerance = 1e-9 if x.dtype == np.float64 else 1e-6
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(x, y)

    jax.tree.map(compare, actual, expected)


@pytest.fixture(params=LAYOUTS, scope="module")
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
    """Kernel, momentum and flip codes on `model`; all else whole on every device."""
    name, steps, state, sums = run
    data_devices = LAYOUTS[name][0] // LAYOUTS[name][1]
    split = LAYOUTS[name][1] > 1
    flips = next(s for s in state.opt_state if hasattr(s, "history"))
    kernels, codes = ovsw.latent_mask(state.params), flips.history
    for is_latent, weight, code in zip(
        *(jax.tree.leaves(t, is_leaf=lambda x: x is None) for t in (kernels, state.params)),
        jax.tree.leaves(codes, is_leaf=lambda x: not isinstance(x, dict | list)),
        strict=True,
    ):
        assert weight.sharding.is_fully_replicated == (not (is_latent and split))
        if is_latent:
            assert code.sharding.is_equivalent_to(weight.sharding, weight.ndim)
            parts = {tuple((s.start, s.stop) for s in x.index) for x in code.addressable_shards}
            assert len(parts) == (2 if split else 1)
    large = [x for x in jax.tree.leaves(state) if x.size // len(x) >= KERNEL]
    assert len(large) == 3 * sum(jax.tree.leaves(kernels))  # weight, momentum, code
    assert all(x.sharding.is_fully_replicated != split for x in large)
    small = [x for x in jax.tree.leaves((state, sums)) if x.size // len(x) < KERNEL]
    assert all(x.sharding.is_fully_replicated for x in small)
    for resident in steps._shared[0]:
        count = LAYOUTS[name][0]
        assert len(resident) == -(-IMAGES // count) * count
        sizes = {len(s.data) for s in resident.addressable_shards}
        assert sizes == {len(resident) // count}
    assert data_devices * LAYOUTS[name][1] == LAYOUTS[name][0]
