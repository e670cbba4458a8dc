"""Any image folder ROOT/{train,test}/CLASS/FILE as arrays; every rule it breaks has its message.

Files are decoded one after the other: with 32x32 PNGs on two cores a thread pool was 2 to 3 times
slower (4.2 k images/s for 13 k), since most of the time is spent in Python.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.data import image_file

SPLITS = ("train", "test")
TEST_FOLDERS = ("test", "val", "validation")
LAYOUT = (
    "an image folder is laid out as ROOT/{train,test}/CLASS/FILE (val or validation will do for "
    "test)"
)


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """The files of an image folder, without their pixels.

    Attributes:
      root: the folder.
      classes: names of the class folders in alphabetical order; a label is an index into it.
      files: for each split its image files, ordered by class, then by name.
      labels: for each split one label a file.
    """

    root: Path
    classes: tuple[str, ...]
    files: Mapping[str, Sequence[Path]]
    labels: Mapping[str, Sequence[int]]


def scan(root: Path) -> ImageFolder:
    """Lists the images of `root` without opening them.

    Hidden files and folders and files with another suffix than an image's are skipped. The test
    split is the first of `test`, `val` and `validation` that has class folders: ImageNet's own
    `test` has none, since its labels are not published.

    Raises:
      ValueError: a split's folder is missing or has no images, a training class is empty, there is
        one class only, or a class of the test split is not in the training split.
    """
    folders = {"train": root / "train", "test": _test_folder(root)}
    found = {split: _class_files(folder, split) for split, folder in folders.items()}
    classes = tuple(sorted(found["train"]))
    if len(classes) == 1:
        raise ValueError(
            f"{folders['train']} holds one class only ({classes[0]!r}): "
            f"a classifier needs at least two; {LAYOUT}"
        )
    unknown = sorted(set(found["test"]) - set(classes))
    if unknown:
        raise ValueError(
            f"{folders['test']} has classes that {folders['train']} has not: "
            f"{', '.join(unknown)}; rename or remove them, or add training images"
        )
    number = {name: label for label, name in enumerate(classes)}
    pairs = {
        split: [(file, number[name]) for name in sorted(of) for file in of[name]]
        for split, of in found.items()
    }
    return ImageFolder(
        root=root,
        classes=classes,
        files={split: [file for file, _ in pairs[split]] for split in SPLITS},
        labels={split: [label for _, label in pairs[split]] for split in SPLITS},
    )


def read(folder: ImageFolder) -> dict[str, NDArray[np.uint8]]:
    """Decodes every image: for each split uint8 (images, height, width, channels).

    All images come out gray (1 channel) where every file is gray, else RGB.

    Raises:
      ValueError: two images differ in size, or a file cannot be decoded.
    """
    first = folder.files["train"][0]
    size = _size(image_file.decode(first))
    images = {split: _read_split(folder.files[split], first, size) for split in SPLITS}
    channels = max(array.shape[-1] for array in images.values())
    return {split: _with_channels(array, channels) for split, array in images.items()}


def _test_folder(root: Path) -> Path:
    present = [root / name for name in TEST_FOLDERS if (root / name).is_dir()]
    with_classes = [folder for folder in present if any(p.is_dir() for p in _visible(folder))]
    return [*with_classes, *present, root / "test"][0]


def _class_files(folder: Path, split: str) -> dict[str, list[Path]]:
    """Class -> its image files, sorted by name."""
    if not folder.is_dir():
        root = folder.parent
        inside = ", ".join(sorted(path.name for path in _visible(root))[:8]) or "nothing"
        raise ValueError(f"{root} has no folder {split!r} (it holds: {inside}); {LAYOUT}")
    classes = {path.name: _images(path) for path in _visible(folder) if path.is_dir()}
    if not any(classes.values()):
        loose = " (image files must lie in class folders)" if _images(folder) else ""
        suffixes = " ".join(sorted(image_file.SUFFIXES))
        raise ValueError(f"{folder} holds no images{loose}: looked for {suffixes}; {LAYOUT}")
    empty = sorted(name for name, files in classes.items() if not files)
    if empty and split == "train":
        raise ValueError(
            f"{folder / empty[0]} holds no images: add some, or remove the folder if "
            f"{empty[0]!r} is no class"
        )
    return {name: files for name, files in classes.items() if files}


def _visible(folder: Path) -> list[Path]:
    """What a person would see: neither .DS_Store and the like nor macOS's shadow of a zip file."""
    return [folder / name for name in _visible_names(folder)]


def _visible_names(folder: Path, *, files: bool = False) -> list[str]:
    with os.scandir(folder) as entries:  # tells a file without asking for it: ImageNet has 1.3 M
        return [
            entry.name
            for entry in entries
            if not entry.name.startswith(".")
            and entry.name != "__MACOSX"
            and (entry.is_file() or not files)
        ]


def _images(folder: Path) -> list[Path]:
    names = _visible_names(folder, files=True)
    suffixes = image_file.SUFFIXES
    return [folder / n for n in sorted(names) if os.path.splitext(n)[1].lower() in suffixes]


def _size(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    return pixels.shape[1], pixels.shape[0]


def _read_split(files: Sequence[Path], first: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    width, height = size
    images = np.empty((len(files), height, width, 1), np.uint8)
    for i, file in enumerate(files):
        pixels = image_file.decode(file)
        if _size(pixels) != size:
            raise ValueError(
                "all images of a folder must have one size (width x height), but "
                f"{first} is {width}x{height} and {file} is {pixels.shape[1]}x{pixels.shape[0]}: "
                "resize or crop them to one size, or have them cropped while they are read with "
                "--image-size 224"
            )
        if pixels.shape[-1] > images.shape[-1]:  # the first image in colour: so all become RGB
            images = _with_channels(images, pixels.shape[-1])
        images[i] = pixels  # a gray image fills all three channels
    return images


def _with_channels(images: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    return images if images.shape[-1] == channels else np.repeat(images, channels, axis=-1)
