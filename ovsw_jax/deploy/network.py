"""A frozen network: a graph, and what its users have to know."""

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovsw_jax.deploy.graph import Graph
from ovsw_jax.deploy.preprocessing import Preprocessing
from ovsw_jax.deploy.run_jax import run


class FrozenNetwork:
    """A trained network as a small graph with one bit per binary weight.

    `ovsw.deploy.freeze` makes one of a network, `ovsw.deploy.load` of a file. It does not change.

    Attributes:
      graph: the operations and their constants, as plain data and NumPy arrays.
      classes: names of the outputs, or None.
      preprocessing: how raw images become the input, or None.
      source: what it was made of: the network's class, and versions of the libraries.
      input_shape: of one sample, without the batch axis.
      output_shape: of one sample.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> from flax import nnx
      >>> layer = ovsw.nn.BinaryDense(64, 2, rngs=nnx.Rngs(0))
      >>> frozen = ovsw.deploy.freeze(layer, (1, 64), classes=["cat", "dog"])
      >>> frozen.input_shape, frozen.output_shape, frozen.classes
      ((64,), (2,), ('cat', 'dog'))
      >>> frozen(jnp.ones((5, 64))).shape
      (5, 2)

    Source: ours.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        classes: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
        source: Mapping[str, str] | None = None,
    ):
        """Made by `freeze` and `load`.

        Raises:
          ValueError: if `classes` or `preprocessing` do not fit the graph.
        """
        self.graph = graph
        self.input_shape = graph.input.shape
        self.output_shape = graph.type_of(graph.output).shape
        self.classes = _checked_classes(classes, self.output_shape)
        self.preprocessing = preprocessing
        self.source = dict(source or {})
        channels = self.input_shape[-1] if self.input_shape else 1
        if preprocessing is not None and len(preprocessing.mean) not in (1, channels):
            raise ValueError(
                f"preprocessing has {len(preprocessing.mean)} channels, and the input of the "
                f"network {channels}: give one mean and std, or one per channel."
            )
        # Compiled with the weights as constants, for each batch size that it meets.
        self._compiled = jax.jit(functools.partial(run, graph))

    def __call__(self, x: Any) -> jax.Array:
        """Evaluates the network with JAX.

        Args:
          x: (batch, *input_shape), real; preprocessed as the network was trained.

        Returns:
          (batch, *output_shape), float32.

        Raises:
          ValueError: if `x` has another shape.
          TypeError: if it is no real array.
        """
        x = x if isinstance(x, jax.Array) else np.asarray(x)
        real = any(jnp.issubdtype(x.dtype, kind) for kind in (jnp.floating, jnp.integer))
        if not real:
            raise TypeError(f"images of {x.dtype} are no real numbers: give a float32 array.")
        if x.ndim == 0 or x.shape[1:] != self.input_shape:
            raise ValueError(
                f"images of shape {x.shape} do not fit: this network takes (batch, "
                f"{', '.join(map(str, self.input_shape))})."
            )
        return self._compiled(x.astype(np.float32))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one file, of tensors and text, that `ovsw.deploy.load` reads.

        Args:
          path: of the file, such as `"net.safetensors"`; an older one is replaced.
        """
        from ovsw_jax.deploy.file import save

        save(self, path)

    def to_onnx(self, path: str | os.PathLike[str]) -> None:
        """Writes an ONNX model of opset 18, whose binary weights are packed in its file.

        Its input `images` and its output `output` have the shapes of this network's. The graph
        unpacks the weights; onnxruntime does so once, when it loads the file. It computes with
        float32 then: the file is small, its speed is that of a float network.

        Args:
          path: of the file, such as `"net.onnx"`; an older one is replaced.

        Raises:
          ImportError: if the package onnx is missing; the extra `deploy` has it.
        """
        from ovsw_jax.deploy.onnx_model import save_onnx

        save_onnx(self, path)

    def to_c(
        self,
        folder: str | os.PathLike[str],
        *,
        name: str = "network",
        integer: bool = False,
        calibration: Any = None,
    ) -> None:
        """Writes C99 that computes this network, without a library and without malloc.

        `NAME.c` and `NAME.h` are all that a program needs. `main.c` classifies the image in a file;
        `Makefile` and `CMakeLists.txt` build it, and `memory.md` says what each layer takes. The
        results have the same bits on every processor with IEEE floats, if no activation is a
        function of C's mathematics library.

        Args:
          folder: for the files; made if need be. Older files of the same names are replaced.
          name: of the network, in front of all names of the header: small letters, digits and
            underscores.
          integer: computes without a single float, for processors that have none: real
            numbers and weights have at most 16 bits. Input and output are int16 numbers then.
          calibration: (images, *input_shape), real; with `integer=True` alone. Images of the
            training set, preprocessed, which say how large the numbers become.

        Raises:
          ValueError: if `name` is no name in C, or the network has an operation that C has no
            kernel for; the error names the layer and the operation. Or if `integer` and
            `calibration` do not come together, or the images do not fit the network.
          TypeError: if `calibration` holds no real numbers.
        """
        from ovsw_jax.deploy.c.calibration import checked_calibration
        from ovsw_jax.deploy.c.project import write_c

        if integer != (calibration is not None):
            raise ValueError(
                f"integer={integer!r} and calibration={'images' if integer is False else None} do "
                "not fit: C without floats needs calibration=images, and no other C takes them."
            )
        images = checked_calibration(self, calibration) if integer else None
        write_c(self, folder, name, images)

    def __repr__(self) -> str:
        name = self.source.get("network", "network")
        return (
            f"<frozen {name}: {list(self.input_shape)} to {list(self.output_shape)}, "
            f"{len(self.graph.nodes)} operations>"
        )


def _checked_classes(
    classes: Sequence[str] | None, output_shape: tuple[int, ...]
) -> tuple[str, ...] | None:
    if classes is None:
        return None
    names = tuple(classes)
    if isinstance(classes, str) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"classes={classes!r} must be a sequence of names.")
    if output_shape[-1:] != (len(names),):
        raise ValueError(
            f"classes has {len(names)} names, and a sample has outputs of shape {output_shape}: "
            "give one name for each of the last axis."
        )
    return names
