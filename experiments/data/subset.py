"""Which training images a smaller data set keeps."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

_MOST_NAMED = 5  # classes in a note

SEED = 0  # of the digits' split and of every subset: part of the data, not of a run


def balanced_subset(labels: NDArray[np.integer], count: int) -> NDArray[np.intp]:
    """Indices, ascending, of `count` examples spread over the classes as evenly as they allow.

    Every class puts its examples in a fixed random order; the subset takes all first ones, then all
    second ones, and so on. So it is deterministic, and contained in every larger one.
    """
    return np.sort(np.lexsort((labels, _places(labels)))[:count])


def _held_out_of_all(labels: NDArray[np.integer], count: int) -> NDArray[np.intp]:
    """Indices, ascending, of `count` examples to hold out from all.

    They are the last ones of each class in the order of `balanced_subset`, in proportion to its
    size; what a balanced subset leaves would be of the large classes alone. If `count` allows it,
    every class of two examples or more gives one, and no class gives its first. For classes of
    equal size the result is what `balanced_subset` leaves.
    """
    place = _places(labels)
    share = np.where(place == 0, 0, (place + 1) / np.bincount(labels)[labels])
    return np.sort(np.lexsort((labels, share))[len(labels) - count :])


def _places(labels: NDArray[np.integer]) -> NDArray[np.intp]:
    """The place of each example, from 0 on, in the fixed random order of its class."""
    shuffled = np.random.default_rng(SEED).permutation(len(labels))
    places = np.empty(len(labels), np.intp)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    starts = np.searchsorted(labels[by_class], labels[by_class])
    places[by_class] = np.arange(len(labels)) - starts
    return places


def notes_of_untested(classes: Sequence[str], test_labels: NDArray[np.integer]) -> Iterator[str]:
    """A note that names the classes without test images, if there are any."""
    counts = np.bincount(test_labels, minlength=len(classes))
    untested = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if untested:
        more = ", ..." if untested[_MOST_NAMED:] else ""
        yield (
            f"{len(untested):,} of {len(classes):,} classes have no test image: "
            f"{', '.join(map(repr, untested[:_MOST_NAMED]))}{more}"
        )


def train_and_held_out(
    name: str,
    labels: NDArray[np.integer],
    classes: int,
    train_images: int | None,
    held_out: int,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of the images to train on, and of those held out; both ascending.

    `labels` are those of all training images of the data set `name`; if they are all alike because
    they are unknown, the draw is over all images and not class by class. `train_images` of None is
    all that are not held out.

    Raises:
      ValueError: there are not enough images, or fewer to train on than classes.
    """
    available = len(labels)
    if train_images is None and held_out == 0:
        return np.arange(available), np.arange(0)
    count = available - held_out if train_images is None else train_images
    if held_out and (count + held_out > available or count < 1):
        raise ValueError(
            f"held_out={held_out:,} and {max(count, 1):,} or more images to train on are not to be "
            f"had of the {available:,} training images of {name!r}: lower held_out or train_images"
        )
    if count > available:
        raise ValueError(
            f"train_images={count:,} is more than the {available:,} training images of {name!r}: "
            "ask for at most that many"
        )
    if count < classes and train_images is None:
        raise ValueError(
            f"held_out={held_out:,} leaves {count:,} of the {available:,} training images of "
            f"{name!r}, less than one for each of its {classes} classes: hold out at most "
            f"{available - classes:,}"
        )
    if count < classes:
        raise ValueError(
            f"train_images={count:,} is less than one image for each of the {classes} classes of "
            f"{name!r}: ask for at least {classes}"
        )
    if train_images is None:
        others = _held_out_of_all(labels, held_out)
        return np.setdiff1d(np.arange(available), others), others
    trained = balanced_subset(labels, count)
    # The larger subset contains the smaller, so that the rest is no image that is trained on.
    return trained, np.setdiff1d(balanced_subset(labels, count + held_out), trained)
