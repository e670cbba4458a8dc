"""Short texts that tell whether a run resumes with the images that it began with.

SHA-256 of 1 GB of pixels in memory takes about a second. Of streamed images names and sizes are
hashed: 1.28 million files take some seconds more than listing them, where reading them all would
take hours. So an image replaced by one of the same name and as many bytes is not noticed there.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_DIGITS = 32


def of_arrays(*arrays: NDArray[np.generic]) -> str:
    """Of the shapes and contents of arrays in memory."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:_DIGITS]


def of_files(files: Sequence[Path]) -> str:
    """Of names and sizes of the files CLASS/FILE, in their order.

    Raises:
      OSError: one of them is gone.
    """
    return of_texts(f"{f.parent.name}/{f.name}/{f.stat().st_size}" for f in files)


def of_texts(texts: Iterable[str]) -> str:
    """Of texts in their order."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(os.fsencode(text) + b"\0")  # as file names need not be Unicode
    return digest.hexdigest()[:_DIGITS]
