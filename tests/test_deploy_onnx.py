"""ONNX models of frozen networks: valid, small, and alike in two evaluators that are not ours."""

import functools
import os
import sys

import frozen_reader
import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from frozen_networks import Drawn, designs, exact, images, same
from hypothesis import given

import ovsw_jax as ovsw

onnx = pytest.importorskip("onnx", reason="the package onnx is missing: pip install -e '.[test]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is missing, likewise")
# After the skips: it imports onnx itself.
from onnx.reference import ReferenceEvaluator  # noqa: E402

CASES = max(4, hypothesis.settings().max_examples // 5)


def run(path, x):
    """By onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": x})[0]


def written(frozen, folder):
    """Paths of the ONNX model, which is valid, and of the one-bit file."""
    paths = str(folder / "net.onnx"), str(folder / "net.safetensors")
    frozen.to_onnx(paths[0])
    frozen.save(paths[1])
    onnx.checker.check_model(paths[0], full_check=True)
    return paths


@pytest.mark.filterwarnings("ignore::RuntimeWarning:onnx")
@hypothesis.settings(max_examples=CASES)
@given(design=designs())
def test_random_networks_agree_to_the_bit(design, tmp_path_factory):
    model = exact(Drawn(design), design["seed"])
    x = images((2, *Drawn.size, design["channels"]), design["seed"])
    frozen = ovsw.deploy.freeze(model, x.shape)
    path, file = written(frozen, tmp_path_factory.getbasetemp())
    want = frozen_reader.evaluate(file, x)
    assert same(want, run(path, x))
    assert same(want, ReferenceEvaluator(path).run(None, {"images": x})[0])


class Rest(nnx.Module):
    """Operations that no drawn network has."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.one = nnx.Conv(4, 6, 3, padding="REFLECT", rngs=rngs)
        self.norm = nnx.LayerNorm(6, rngs=rngs)
        self.dense = nnx.Linear(6, 8, rngs=rngs)

    def __call__(self, x):
        x = nnx.gelu(self.norm(self.one(x[:, ::-1])), approximate=False)
        x = nnx.elu(nnx.softplus(x)) + nnx.silu(x).max(1, keepdims=True)
        y = self.dense(x[:, 1:3]).transpose(0, 2, 1)
        y = jnp.pad(y, ((0, 0), (0, 0), (1, 2)), constant_values=0.5) ** 2
        y = jnp.sqrt(1 + y)
        return nnx.log_softmax(y.mean(2) - y.min((1, 2))[:, None] + abs(y).max(2))


def test_all_other_operations(tmp_path):
    x = np.random.default_rng(0).normal(size=(3, 7, 4)).astype(np.float32)
    frozen = ovsw.deploy.freeze(Rest(), x.shape)
    model, _ = written(frozen, tmp_path)
    want = np.asarray(Rest()(x))
    for got in (run(model, x), ReferenceEvaluator(model).run(None, {"images": x})[0]):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(ovsw.models.SmallResNet, in_channels=3),
        ovsw.models.VGGSmall,
    ],
    ids=["SmallResNet", "VGGSmall"],
)
def test_size_and_sums_of_networks(make, tmp_path):
    """Untrained batch norms shift nothing, so that sums of exactly 0 meet skips of exactly 0."""
    frozen = ovsw.deploy.freeze(make(rngs=nnx.Rngs(0)), (1, 32, 32, 3))
    model, file = written(frozen, tmp_path)
    binary = sum(node.type.kind == "int32" for node in frozen.graph.nodes)
    sizes = [os.path.getsize(path) for path in (model, file)]
    assert sizes[0] <= 1.1 * sizes[1] + 1000 * binary
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(run(model, x), frozen(x), rtol=1e-4, atol=1e-4)


def test_the_model_says_what_the_network_knows(tmp_path):
    frozen = ovsw.deploy.freeze(
        nnx.Linear(2, 2, rngs=nnx.Rngs(0)),
        (1, 2),
        classes=["cat", "dog"],
        preprocessing=ovsw.deploy.Preprocessing((0.5,), (0.25,)),
    )
    model = onnx.load(written(frozen, tmp_path)[0])
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about["classes"] == '["cat", "dog"]'
    assert about["preprocessing"] == '{"mean": [0.5], "std": [0.25]}'
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_a_missing_onnx_is_an_error_with_a_remedy(monkeypatch, tmp_path):
    frozen = ovsw.deploy.freeze(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), (1, 2))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'ovsw-jax\[deploy\]'"):
        frozen.to_onnx(tmp_path / "net.onnx")
