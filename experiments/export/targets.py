"""Where a frozen network goes: a row per target. Another one is one more row."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import ovsw_jax as ovsw
from experiments.export.frozen import Logits

Frozen = ovsw.deploy.FrozenNetwork


class Target(NamedTuple):
    """A way to write a network.

    Attributes:
      about: what it is, for people.
      file: where it goes in the folder of the export; a folder, if it has no suffix.
      write: writes it; ImportError if a package is missing.
      read: what was written, as a function of images; ImportError or RuntimeError if that takes
        what is not installed.
    """

    about: str
    file: str
    write: Callable[[Frozen, Path], None]
    read: Callable[[Frozen, Path], Logits]


def _onnxruntime(frozen: Frozen, path: Path) -> Logits:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"images": x})[0]


TARGETS = {
    "file": Target(
        "one-bit file",
        "net.safetensors",
        lambda frozen, path: frozen.save(path),
        lambda frozen, path: ovsw.deploy.load(path),
    ),
    "onnx": Target(
        "ONNX",
        "net.onnx",
        lambda frozen, path: frozen.to_onnx(path),
        _onnxruntime,
    ),
    "c": Target(
        "C99",
        "c",
        lambda frozen, path: frozen.to_c(path, name="network"),
        lambda frozen, path: ovsw.deploy.compile(frozen),
    ),
}


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.glob("**/*")))
