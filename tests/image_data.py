"""Small image folders for tests."""

import numpy as np
from PIL import Image

from experiments.data import cifar


def write_folder(root, counts, *, size=(6, 4), mode="RGB", suffix="png"):
    """Random images; returns split -> class -> pixels (n, height, width[, 3]), by file name.

    Args:
      root: the folder, made if need be.
      counts: split -> class -> number of images.
      size: (width, height).
      mode: RGB or L.
      suffix: of the files.
    """
    rng = np.random.default_rng(0)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    written = {}
    for split, classes in counts.items():
        for name, count in classes.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            pixels = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
            for i, image in enumerate(pixels):
                Image.fromarray(image).save(folder / f"{i:03d}.{suffix}")
            written.setdefault(split, {})[name] = pixels
    return written


def write_cifar(root, which=cifar.CIFAR10, *, train=2, test=1, suffix="png"):
    """An image folder with `train` and `test` images of every class; returns `root`."""
    counts = {
        "train": dict.fromkeys(which.classes, train),
        "test": dict.fromkeys(which.classes, test),
    }
    write_folder(root, counts, size=(32, 32), suffix=suffix)
    return root
