"""C without a single float: exact where 16 bits hold the numbers, and loud where it can't be."""

import ctypes
import re
import subprocess

import c_paths
import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from c_paths import STRICT
from flax import nnx
from frozen_networks import Drawn, designs, exact, images
from hypothesis import given
from hypothesis import strategies as st

import ovsw_jax as ovsw

pytestmark = pytest.mark.skipif(c_paths.COMPILER is None, reason="there is no C compiler")
RNGS = nnx.Rngs(0)
CASES = max(1, hypothesis.settings().max_examples // 20)


def outputs(frozen, x, folder, *, calibration=None):
    """Outputs of C with integers alone as real numbers, and what their last bit stands for."""
    calibration = x if calibration is None else calibration
    frozen.to_c(folder, name="net", integer=True, calibration=calibration)
    command = [c_paths.COMPILER, *STRICT, "-O0", "-DOVSW_PATH=1", "-shared", "-fPIC"]
    subprocess.run([*command, "net.c", "-o", "net.so"], cwd=folder, check=True)
    run, header = ctypes.CDLL(folder / "net.so").net_run, (folder / "net.h").read_text()
    bits = [int(re.search(rf"{of}_BITS (-?\d+)", header)[1]) for of in ("INPUT", "OUTPUT")]
    inputs = np.clip(np.rint(x * 2.0 ** bits[0]), -(2**15) + 1, 2**15 - 1).astype(np.int16)
    y = np.zeros((len(x), *frozen.output_shape), np.int16)
    for sample, output in zip(inputs, y, strict=True):
        run(ctypes.c_void_p(sample.ctypes.data), ctypes.c_void_p(output.ctypes.data))
    return y / 2.0 ** bits[1], 2.0 ** -bits[1]


class Several(nnx.Module):
    """Drawn networks side by side, which takes one compilation."""

    channels = 33

    def __init__(self, all_designs):
        self.designs = nnx.static(all_designs)
        self.networks = nnx.List([Drawn(design) for design in all_designs])

    def __call__(self, x):
        pairs = zip(self.networks, self.designs, strict=True)
        each = [net(x[..., : d["channels"]]) for net, d in pairs]
        return sum(y * 2.0**-n for n, y in enumerate(each))


@hypothesis.settings(max_examples=CASES, phases=[hypothesis.Phase.generate])
@given(drawn=st.lists(designs(), min_size=3, max_size=3))
def test_random_networks_differ_by_rounding_alone(drawn, tmp_path_factory):
    model = exact(Several(drawn), drawn[0]["seed"])
    x = images((2, *Drawn.size, Several.channels), drawn[0]["seed"])
    frozen = ovsw.deploy.freeze(model, x.shape)
    try:
        got, last = outputs(frozen, x, tmp_path_factory.mktemp("net"))
    except ValueError as error:
        hypothesis.assume("with integers alone" not in str(error))
        raise
    # A wrong sign anywhere moves an output by much more.
    np.testing.assert_allclose(got, np.asarray(frozen(x)), rtol=0, atol=2 * last)


class Pieces(nnx.Module):
    """What the drawn networks do not have."""

    def __init__(self):
        self.depthwise = nnx.Conv(4, 8, (3, 3), feature_group_count=4, rngs=RNGS)
        self.wide = nnx.Conv(8, 6, (1, 1), rngs=RNGS)
        self.binary = ovsw.nn.BinaryConv(6, 16, (3, 3), scale=None, rngs=RNGS)
        self.norm = ovsw.nn.BatchNorm(16, rngs=RNGS)
        self.dense = ovsw.nn.BinaryDense(16, 6, rngs=RNGS)
        self.head = nnx.Linear(6 * 5 * 5, 3, rngs=RNGS)

    def __call__(self, x):
        x = jnp.pad(self.depthwise(x), ((0, 0), (1, 0), (0, 1), (0, 0)), constant_values=0.5)
        x = nnx.max_pool(nnx.leaky_relu(self.wide(x), 0.25), (2, 2))
        x = self.norm(self.binary(x[:, ::-1])).transpose(0, 2, 1, 3)
        x = self.dense(nnx.avg_pool(x, (2, 2)))
        return self.head((x - 0.5).reshape(len(x), -1))


def test_other_layers_differ_by_rounding_alone(tmp_path):
    x = images((3, 6, 6, 4))
    frozen = ovsw.deploy.freeze(exact(Pieces()), x.shape)
    got, last = outputs(frozen, x, tmp_path)
    np.testing.assert_allclose(got, np.asarray(frozen(x)), rtol=0, atol=2 * last)


def test_what_is_larger_than_the_calibration_ends_at_the_limit(tmp_path):
    x = np.full((1, 2), 1.0, np.float32)
    frozen = ovsw.deploy.freeze(Scaled(), x.shape)
    got, last = outputs(frozen, 1.5 * x, tmp_path, calibration=x)
    np.testing.assert_allclose(got, 6, atol=last)
    (tmp_path / "more").mkdir()
    got, last = outputs(frozen, 9 * x, tmp_path / "more", calibration=x)
    np.testing.assert_allclose(got, 8, atol=5 * last)


class Scaled(nnx.Module):
    def __call__(self, x):
        return 4 * x


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"integer": True}, ValueError, "C without floats needs calibration=images"),
        ({"calibration": np.ones((1, 2))}, ValueError, "no other C takes them"),
        ({"integer": True, "calibration": np.ones((1, 3))}, ValueError, r"\(images, 2\)"),
        ({"integer": True, "calibration": np.ones((0, 2))}, ValueError, "does not fit"),
        ({"integer": True, "calibration": 3.0}, ValueError, "does not fit"),
        ({"integer": True, "calibration": np.full((1, 2), np.nan)}, ValueError, "not finite"),
        ({"integer": True, "calibration": np.array([["a", "b"]])}, TypeError, "no real numbers"),
    ],
)
def test_bad_calibrations_are_refused(arguments, error, said, tmp_path):
    frozen = ovsw.deploy.freeze(Scaled(), (1, 2))
    with pytest.raises(error, match=said):
        frozen.to_c(tmp_path, **arguments)


class Smooth(nnx.Module):
    def __init__(self):
        self.inner = Squashed()

    def __call__(self, x):
        return self.inner(x)


class Squashed(nnx.Module):
    def __call__(self, x):
        return nnx.sigmoid(x)


def test_operations_without_a_form_in_integers_are_refused_by_name(tmp_path):
    frozen = ovsw.deploy.freeze(Smooth(), (1, 2))
    with pytest.raises(ValueError, match="the operation sigmoid with integers alone"):
        frozen.to_c(tmp_path, integer=True, calibration=np.ones((1, 2)))
