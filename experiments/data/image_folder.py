"""Any image folder ROOT/{train,test}/CLASS/FILE as arrays; every rule it breaks has its message.

Files are decoded one after the other: with 32x32 PNGs on two cores a thread pool was 2 to 3 times
slower (4.2 k images/s for 13 k), since most of the time is spent in Python.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.data import image_file
from experiments.data.folder_listing import (
    Kinds,
    Listing,
    described,
    gathered,
    list_folder,
    pairs_of,
)

SPLITS = ("train", "test")
TEST_FOLDERS = ("test", "val", "validation")
LAYOUT = (
    "an image folder is laid out as ROOT/{train,test}/CLASS/FILE (val or validation will do for "
    "test)"
)
_HELD_OUT = (
    "python -m experiments.train --held-out N, which tests on N training images that it keeps from "
    "training, needs no test split"
)
_READ = f"read are {' '.join(sorted(image_file.SUFFIXES))}"


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """The files of an image folder, without their pixels.

    Attributes:
      root: the folder.
      classes: names of the class folders in alphabetical order; a label is an index into it.
      files: for each split its image files, ordered by class, then by name.
      labels: for each split one label a file.
      notes: what was left out, for a person to read.
    """

    root: Path
    classes: tuple[str, ...]
    files: Mapping[str, Sequence[Path]]
    labels: Mapping[str, Sequence[int]]
    notes: tuple[str, ...] = ()


def scan(root: Path, *, test: bool = True) -> ImageFolder:
    """Lists the images of `root` without opening them.

    Hidden files, files with another suffix than an image's, folders in class folders and files
    beside them are left out, and noted. The test split is the first of `test`, `val` and
    `validation` that has class folders: ImageNet's own `test` has none, since its labels are not
    published.

    Args:
      root: the folder.
      test: whether the test split is wanted. Without it that of the result is empty, and the
        training split may also be `root` itself, as ROOT/CLASS/FILE.

    Raises:
      ValueError: a split's folder is missing or has no images, a class folder has none, there is
        one class only, or a class of the test split is not in the training split.
    """
    inside = list_folder(root)
    folders = {"train": _train_folder(root, inside, test=test)}
    listed = {"train": _listed(folders["train"], "train")}
    if test:
        folders["test"] = _test_folder(root, inside)
        listed["test"] = _listed(folders["test"], "test")
    found = {split: classes for split, (_, classes) in listed.items()}
    classes = tuple(sorted(found["train"]))
    if len(classes) == 1:
        raise ValueError(
            f"{folders['train']} holds one class only ({classes[0]!r}): "
            f"a classifier needs at least two; {LAYOUT}"
        )
    unknown = sorted(set(found.get("test", ())) - set(classes))
    if unknown:
        raise ValueError(
            f"{folders['test']} has classes that {folders['train']} has not: "
            f"{', '.join(unknown)}; rename or remove them, or add training images"
        )
    pairs = {
        split: [
            (folders[split] / name / image, label)
            for label, name in enumerate(classes)
            if name in found[split]
            for image in found[split][name].images
        ]
        for split in found
    }
    return ImageFolder(
        root=root,
        classes=classes,
        files={split: [file for file, _ in pairs.get(split, ())] for split in SPLITS},
        labels={split: [label for _, label in pairs.get(split, ())] for split in SPLITS},
        notes=tuple(_notes(root, inside, folders, listed)),
    )


def read(folder: ImageFolder) -> tuple[dict[str, NDArray[np.uint8]], tuple[str, ...]]:
    """Decodes every image.

    All images come out gray (1 channel) where every file is gray, else RGB.

    Returns:
      For each split uint8 (images, height, width, channels), and what a person should know.

    Raises:
      ValueError: two images differ in size, or a file cannot be decoded.
    """
    first, turned = folder.files["train"][0], list[str]()
    size = _size(image_file.decode(first))
    images = {s: _read_split(folder.files[s], first, size, turned) for s in SPLITS}
    channels = max(array.shape[-1] for array in images.values())
    images = {split: _with_channels(array, channels) for split, array in images.items()}
    if not turned:
        return images, ()
    note = (
        f"EXIF asks that {len(turned):,} of {sum(map(len, images.values())):,} images be turned or "
        f"mirrored to be seen upright, such as {turned[0]}; they are read as they are stored"
    )
    return images, (note,)


Listed = tuple[Listing, dict[str, Listing]]  # of a split's folder, and of each folder in it


def _train_folder(root: Path, inside: Listing, *, test: bool) -> Path:
    if "train" in inside.folders:
        return root / "train"
    if not any(list_folder(root / name).images for name in inside.folders):
        raise ValueError(_missing(root, "train", inside))
    splits = [name for name in inside.folders if name.lower() in ("train", *TEST_FOLDERS)]
    if splits:
        raise ValueError(
            f"{root} has a folder {splits[0]!r} but none named 'train', so that it could be a "
            f"class as well as a split: rename it; {LAYOUT}, or, for a training set alone, as "
            "ROOT/CLASS/FILE"
        )
    if test:
        raise ValueError(
            f"{root} is laid out as ROOT/CLASS/FILE, and so a training set alone: {_HELD_OUT}; "
            f"otherwise {LAYOUT}"
        )
    return root


def _test_folder(root: Path, inside: Listing) -> Path:
    present = [name for name in TEST_FOLDERS if name in inside.folders]
    if not present:
        raise ValueError(f"{_missing(root, 'test', inside)}; {_HELD_OUT}")
    with_classes = [name for name in present if list_folder(root / name).folders]
    return root / [*with_classes, *present][0]


def _missing(root: Path, split: str, inside: Listing) -> str:
    names = sorted([*inside.folders, *inside.images, *(n for _, n in pairs_of(inside.others))])
    visible = ", ".join([name for name in names if not name.startswith(".")][:8])
    return f"{root} has no folder {split!r} (it holds: {visible or 'nothing'}); {LAYOUT}"


def _listed(folder: Path, split: str) -> Listed:
    """Every class folder is to hold an image: one without would be left out in silence."""
    top = list_folder(folder)
    classes = {name: list_folder(folder / name) for name in top.folders}
    if not any(of.images for of in classes.values()):
        loose = (
            f" (image files must lie in class folders; if {folder.name!r} is a class itself, give "
            "its folder another name)"
            if top.images
            else _in_brackets(gathered(_left_out(top, classes)))
        )
        raise ValueError(f"{folder} holds no images{loose}: {_READ}; {LAYOUT}")
    empty = [name for name, of in classes.items() if not of.images]
    if empty:
        name, of = empty[0], classes[empty[0]]
        seen = _in_brackets({**of.others, "folders": of.folders}) or " (it is empty)"
        more = f" (and {len(empty) - 1:,} more class folders hold none)" if empty[1:] else ""
        why = "is no class" if split == "train" else "is not to be tested"
        raise ValueError(
            f"{folder / name} holds no images{seen}{more}: add some to that folder itself "
            f"({_READ}), or remove the folder if {name!r} {why}"
        )
    return top, classes


def _in_brackets(kinds: Kinds) -> str:
    text = described(kinds)
    return f" (it holds {text})" if text else ""


def _left_out(top: Listing, classes: Mapping[str, Listing]) -> Iterator[tuple[str, str]]:
    """Kind and name of whatever is no image in a class folder."""
    yield from pairs_of({**top.others, "images beside class folders": top.images})
    for name, of in classes.items():
        yield from pairs_of({**of.others, "folders in class folders": of.folders}, f"{name}/")


def _notes(
    root: Path, inside: Listing, folders: Mapping[str, Path], listed: Mapping[str, Listed]
) -> Iterator[str]:
    used = {folder.name for folder in folders.values()}
    unused = [name for name in inside.folders if name in TEST_FOLDERS and name not in used]
    if "test" in folders and unused:
        yield f"{' and '.join(unused)} not used, as {folders['test']} is the test split"
    beside = [name for name in inside.folders if name not in {*used, *TEST_FOLDERS}]
    if folders["train"] != root and (beside or inside.images):
        kinds = {"folders that are no split": beside, "images": inside.images}
        yield f"left out of {root}: {described(kinds)}"
    for split, folder in folders.items():
        kinds = gathered(_left_out(*listed[split]))
        if kinds:
            yield f"left out of {folder}: {described(kinds)}"


def _size(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    return pixels.shape[1], pixels.shape[0]


def _read_split(
    files: Sequence[Path], first: Path, size: tuple[int, int], turned: list[str]
) -> NDArray[np.uint8]:
    width, height = size
    images = np.empty((len(files), height, width, 1), np.uint8)
    for i, file in enumerate(files):
        pixels = image_file.decode(file, turned=turned)
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
