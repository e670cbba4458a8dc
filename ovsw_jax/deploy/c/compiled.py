"""A frozen network as a function on NumPy arrays, compiled by the C compiler at hand."""

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ovsw_jax.deploy.c.project import write_c
from ovsw_jax.deploy.network import FrozenNetwork

# -ffp-contract: fused multiplication and addition would round differently.
FLAGS = ("-std=c99", "-O3", "-ffp-contract=off", "-fPIC", "-shared")
_NAME = "network"


def compile(network: FrozenNetwork) -> "CompiledNetwork":  # noqa: A001 - ovsw.deploy.compile
    """Compiles a frozen network for this machine, by the C that `to_c` writes.

    The compiler is `$CC`, or else the first there is of cc, gcc and clang.

    Args:
      network: that `freeze` or `load` gave.

    Returns:
      A function of (batch, *input_shape) or of one sample, real numbers that are preprocessed as
      the network was trained. It gives (batch, *output_shape) or the output of one sample, float32.
      Several threads may call it at once. Its `path` says which instructions count products.

    Raises:
      RuntimeError: if there is no C compiler, or it fails.
      TypeError: if `network` is no frozen network.
      ValueError: if the network has an operation that C has no kernel for.

    >>> import ovsw_jax as ovsw
    >>> from flax import nnx
    >>> layer = ovsw.nn.BinaryDense(64, 8, rngs=nnx.Rngs(0))
    >>> frozen = ovsw.deploy.freeze(layer, (1, 64))
    >>> run = ovsw.deploy.compile(frozen)  # doctest: +SKIP
    >>> run(np.ones((5, 64), np.float32)).shape  # doctest: +SKIP
    (5, 8)

    Source: ours.
    """
    if not isinstance(network, FrozenNetwork):
        raise TypeError(
            f"network={network!r} is no frozen network: give what ovsw.deploy.freeze or "
            "ovsw.deploy.load returns."
        )
    compiler = _compiler()
    with tempfile.TemporaryDirectory() as folder:
        write_c(network, folder, _NAME)
        library = Path(folder, f"{_NAME}.so")
        command = [compiler[0], *FLAGS, *compiler[1:], f"{_NAME}.c", "-o", library.name, "-lm"]
        try:
            made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        except OSError as error:
            raise RuntimeError(f"the C compiler {compiler[0]!r} did not start: {error}.") from error
        if made.returncode:
            raise RuntimeError(
                f"the C compiler failed: {shlex.join(command)}\n{made.stderr[-2000:].strip()}\n"
                "Set the variable CC to another one."
            )
        # Its code stays in memory when the file is gone.
        return CompiledNetwork(network, ctypes.CDLL(os.fspath(library)))


class CompiledNetwork:
    """What `compile` returns: see there.

    Attributes:
      input_shape: of one sample.
      output_shape: of one sample.
      path: which instructions count products: portable, avx2, avx512bw, avx512 or neon.
    """

    def __init__(self, network: FrozenNetwork, library: ctypes.CDLL):
        """Made by `compile`."""
        self.input_shape, self.output_shape = network.input_shape, network.output_shape
        path = library[f"{_NAME}_path"]
        path.restype = ctypes.c_char_p
        self.path: str = path().decode()
        arena = library[f"{_NAME}_arena_bytes"]
        arena.restype = ctypes.c_size_t
        self._arena_bytes: int = arena()
        self._run = library[f"{_NAME}_run_in"]
        self._run.restype = None
        self._run.argtypes = [ctypes.c_void_p] * 3

    def __call__(self, x: Any) -> np.ndarray:
        """Evaluates the network.

        Args:
          x: (batch, *input_shape) or input_shape, real.

        Returns:
          (batch, *output_shape) or output_shape, float32.

        Raises:
          ValueError: if `x` has another shape.
          TypeError: if it holds no real numbers.
        """
        x = np.asarray(x)
        if not (np.issubdtype(x.dtype, np.floating) or np.issubdtype(x.dtype, np.integer)):
            raise TypeError(f"images of {x.dtype} are no real numbers: give a float32 array.")
        if self.input_shape not in (x.shape, x.shape[1:]):
            sizes = ", ".join(map(str, self.input_shape))
            raise ValueError(
                f"images of shape {x.shape} do not fit: this network takes (batch, {sizes}), or "
                f"({sizes}) for one."
            )
        samples = np.ascontiguousarray(x, np.float32).reshape(-1, *self.input_shape)
        y = np.empty((len(samples), *self.output_shape), np.float32)
        arena = np.empty(self._arena_bytes, np.uint8)
        for sample, output in zip(samples, y, strict=True):
            self._run(arena.ctypes.data, sample.ctypes.data, output.ctypes.data)
        return y if x.ndim > len(self.input_shape) else y[0]


def _compiler() -> list[str]:
    given = shlex.split(os.environ.get("CC", ""))
    found = next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)
    if not given and found is None:
        raise RuntimeError(
            "ovsw.deploy.compile needs a C compiler, and there is no cc, gcc or clang: install "
            "one, or set the variable CC to its command. frozen(images) needs none."
        )
    return given or [str(found)]
