"""Networks that come trained: whole, as accurate as their cards say, and the same in both forms."""

import hashlib
import re

import jax
import numpy as np
import pytest
from flax import nnx

import ovsw_jax as ovsw
from experiments import data
from experiments.export.frozen import classes_of
from experiments.publish.files import PACKAGE, SUMS, TESTS
from ovsw_jax.deploy.graph import Signs
from ovsw_jax.models.trained_networks import NAMES

MAX_BYTES = 4_500_000  # of a wheel of at most 5 MB


def test_files_are_those_that_were_published():
    listed = dict(line.split("  ")[::-1] for line in (PACKAGE / SUMS).read_text().splitlines())
    files = {p.relative_to(PACKAGE).as_posix(): p for p in PACKAGE.glob("*/*")}
    assert listed == {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()
    }
    assert {name.partition("/")[0] for name in files} == set(NAMES)
    assert sum(path.stat().st_size for path in files.values()) < MAX_BYTES


def test_an_unknown_name_is_answered_by_the_known_ones():
    with pytest.raises(ValueError, match=r"no network called 'cifar'.*'digits'"):
        ovsw.models.pretrained("cifar")


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_are_one_network(name):
    """Freezing the latent weights gives the one-bit file again, constant by constant."""
    net = ovsw.models.pretrained(name)
    shape = (1, *net.frozen.input_shape)
    again = ovsw.deploy.freeze(net.model(), shape).graph
    assert again.nodes == net.frozen.graph.nodes
    for key, tensor in net.frozen.graph.tensors.items():
        found = again.tensors[key]
        if isinstance(tensor, Signs):
            np.testing.assert_array_equal(found.bits, tensor.bits)
        else:
            np.testing.assert_allclose(found, tensor, rtol=1e-5, atol=1e-6)


def same(first, second):
    pairs = zip(*(jax.tree.leaves(nnx.state(model)) for model in (first, second)), strict=True)
    return [bool((x == y).all()) for x, y in pairs]


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_a_module_of_its_own_goes_on_to_train(name):
    net = ovsw.models.pretrained(name)
    model = net.model()
    optimizer = nnx.Optimizer(model, ovsw.ovsw_sgd(0.1), wrt=nnx.Param)
    images = net.preprocessing(np.full((2, *net.frozen.input_shape), 50, np.uint8))
    model.train()
    optimizer.update(model, nnx.grad(lambda model: model(images)[:, 0].sum())(model))
    assert not all(same(model, net.model()))
    assert all(same(net.model(), net.model()))


def test_digits_are_read_as_when_they_were_published():
    images = data.load("digits")
    net = ovsw.models.pretrained("digits")
    found = net.predict(images.test_images)
    assert net.classes == images.classes
    np.testing.assert_array_equal(found, np.load(TESTS / "digits.npy"))
    np.testing.assert_array_equal(
        found, classes_of(net.frozen, net.preprocessing, images.test_images)
    )
    top1 = 100 * np.mean(found == images.test_labels)
    assert re.search(r"\*\*this file\*\* \(OvSW\) \| ([\d.]+) \|", net.card)[1] == f"{top1:.2f}"
    assert top1 > 95
