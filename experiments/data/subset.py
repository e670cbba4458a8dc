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
    shuffled = np.random.default_rng(SEED).permutation(len(labels))
    rank = np.empty(len(labels), np.intp)  # place of an example among its class
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    starts = np.searchsorted(labels[by_class], labels[by_class])
    rank[by_class] = np.arange(len(labels)) - starts
    return np.sort(np.lexsort((labels, rank))[:count])


def notes_of_untested(classes: Sequence[str], test_labels: NDArray[np.integer]) -> Iterator[str]:
    """Says which classes no test image is of, if there are any: top-1 does not speak of them."""
    untested = [
        classes[i] for i in np.flatnonzero(np.bincount(test_labels, minlength=len(classes)) == 0)
    ]
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
    """Which training images are trained on, and which are held out: two ascending lists of indices.

    Args:
      name: of the data set, for messages.
      labels: of all its training images; all alike where they are not known, which makes the draw
        one over all images instead of one class by class.
      classes: number of classes.
      train_images: how many to train on; None is all that are not held out.
      held_out: how many to hold out.

    Raises:
      ValueError: there are not so many, or fewer to train on than classes.
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
    trained = balanced_subset(labels, count)
    # The larger subset contains the smaller, so that the rest is no image that is trained on.
    return trained, np.setdiff1d(balanced_subset(labels, count + held_out), trained)
