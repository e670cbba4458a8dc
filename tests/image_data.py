"""Small image folders for tests."""

import numpy as np
from PIL import Image

from experiments.data import cifar


def of_two_classes(train, test):
    """Numbers of images of each class, for `write_folder`."""
    return {split: {"ant": n, "bee": n} for split, n in (("train", train), ("test", test))}


def write_folder(root, counts, *, size=(6, 4), mode="RGB", suffix="png"):
    """Random images; returns split -> class -> pixels (height, width[, 3]) of each, by file name.

    Args:
      root: the folder, made if need be.
      counts: split -> class -> number of images.
      size: (width, height), or a function from the number of an image to it.
      mode: RGB or L.
      suffix: of the files.
    """
    rng = np.random.default_rng(0)
    written = {}
    for split, classes in counts.items():
        for name, count in classes.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            images = written.setdefault(split, {})[name] = []
            for i in range(count):
                width, height = size(i) if callable(size) else size
                shape = (height, width, 3) if mode == "RGB" else (height, width)
                images.append(rng.integers(0, 256, shape, dtype=np.uint8))
                Image.fromarray(images[-1]).save(folder / f"{i:03d}.{suffix}")
    return written


def write_cifar(root, which=cifar.CIFAR10, *, train=2, test=1, suffix="png"):
    """An image folder with `train` and `test` images of every class; returns `root`."""
    counts = {
        "train": dict.fromkeys(which.classes, train),
        "test": dict.fromkeys(which.classes, test),
    }
    write_folder(root, counts, size=(32, 32), suffix=suffix)
    return root
