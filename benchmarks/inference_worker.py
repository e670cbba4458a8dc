"""A network that answers a batch, in one of several ways, as a worker of `benchmarks.inference`."""

import functools
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

import ovsw_jax as ovsw
from benchmarks import worker

REAL = functools.partial(nnx.Conv, use_bias=False)


def _layer(features: int, conv: Any = ovsw.nn.BinaryConv, **_: Any) -> nnx.Module:
    """A 3x3 convolution alone, with the sign of its input."""
    layer: nnx.Module = conv(features, features, (3, 3), padding=1, rngs=nnx.Rngs(0))
    return layer


NETWORKS: Mapping[str, tuple[Callable[..., nnx.Module], tuple[int, int, int]]] = {
    "resnet18-224": (functools.partial(ovsw.models.ResNet18, 1000), (224, 224, 3)),
    "cifar-resnet18": (functools.partial(ovsw.models.CifarResNet18, 10), (32, 32, 3)),
    "cifar-resnet20": (functools.partial(ovsw.models.CifarResNet20, 10), (32, 32, 3)),
    "vgg-small": (functools.partial(ovsw.models.VGGSmall, 10), (32, 32, 3)),
    "small": (functools.partial(ovsw.models.SmallResNet, 10), (32, 32, 3)),
    "layer-64x56": (functools.partial(_layer, 64), (56, 56, 64)),
    "layer-128x28": (functools.partial(_layer, 128), (28, 28, 128)),
    "layer-256x14": (functools.partial(_layer, 256), (14, 14, 256)),
}


class Inference:
    """A network with random weights in evaluation, on the same random images each time."""

    def __init__(self, network: str, way: str, batch_size: int, threads: int):
        """Makes it ready and lets it answer once.

        Args:
          network: key of `NETWORKS`.
          way: key of `WAYS`.
          batch_size: images in a call.
          threads: how many at most.
        """
        make, shape = NETWORKS[network]
        images = np.random.default_rng(0).standard_normal((batch_size, *shape), np.float32)
        self._answer, about = WAYS[way](functools.partial(make, rngs=nnx.Rngs(0)), images, threads)
        self._images, self._last = images, self._answer(images)
        self.info: dict[str, Any] = {"threads": threads, **about}

    def step(self) -> None:
        """Starts one answer."""
        self._last = self._answer(self._images)

    def wait(self) -> None:
        """Returns when all are there."""
        jax.block_until_ready(self._last)


Answer = Callable[[np.ndarray], Any]
Made = tuple[Answer, dict[str, Any]]  # and what a table should say of it


def _float(make: Callable[..., nnx.Module]) -> nnx.Module:
    return make(conv=REAL, activation=nnx.relu)


def _jax(model: nnx.Module) -> Made:
    model.eval()
    graph, state = nnx.split(model)
    answer = jax.jit(lambda state, images: nnx.merge(graph, state)(images))
    return functools.partial(answer, state), {}


def _frozen(model: nnx.Module, images: np.ndarray) -> ovsw.deploy.FrozenNetwork:
    return ovsw.deploy.freeze(model, (1, *images.shape[1:]))


def _onnx(model: nnx.Module, images: np.ndarray, threads: int, int8: bool = False) -> Made:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.onnx")
        _frozen(model, images).to_onnx(path)
        if int8:
            path = _quantized(path, images)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0], {"version": onnxruntime.__version__}


def _quantized(path: Path, images: np.ndarray) -> Path:
    """The same model with int8 weights and activations, calibrated on the images."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Once(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{"images": images[:8]}]

        def get_next(self) -> Any:
            return self.left.pop() if self.left else None

    quantized = path.with_name("int8.onnx")
    quantize_static(path, quantized, Once(), quant_format=QuantFormat.QDQ, per_channel=True)
    return quantized


def _c(model: nnx.Module, images: np.ndarray) -> Made:
    run = ovsw.deploy.compile(_frozen(model, images))
    return run, {"path": run.path}


WAYS: Mapping[str, Callable[[Callable[..., nnx.Module], np.ndarray, int], Made]] = {
    "onnxruntime-float": lambda make, x, threads: _onnx(_float(make), x, threads),
    "onnxruntime-int8": lambda make, x, threads: _onnx(_float(make), x, threads, int8=True),
    "jax-float": lambda make, x, threads: _jax(_float(make)),
    "jax": lambda make, x, threads: _jax(make()),
    "jax-frozen": lambda make, x, threads: (_frozen(make(), x), {}),
    "onnxruntime-frozen": lambda make, x, threads: _onnx(make(), x, threads),
    "c": lambda make, x, threads: _c(make(), x),
}


def build(network: str, way: str, batch_size: int, threads: int) -> Inference:
    """On as many cores as threads: JAX's thread pool asks how many it may use."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    return Inference(network, way, batch_size, threads)


if __name__ == "__main__":
    worker.serve(build)
