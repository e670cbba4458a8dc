"""What lies in one folder: images, folders, and by its kind whatever is neither."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.data import image_file

_SYSTEM = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})  # as hidden, where they come from
_MOST_KINDS = 5  # in a message

Kinds = Mapping[str, Sequence[str]]  # kind, in the plural -> what there is of it


class Listing(NamedTuple):
    """The names in a folder.

    Attributes:
      images: files with the suffix of an image format that is read, in order; links to files too.
      folders: in order; links to folders too, hidden ones not.
      others: whatever else there is, by its kind.
    """

    images: list[str]
    folders: list[str]
    others: dict[str, list[str]]


def list_folder(folder: Path) -> Listing:
    """Lists `folder` alone, not the folders in it."""
    images, folders, others = [], [], list[tuple[str, str]]()
    with os.scandir(folder) as entries:  # tells a file without asking for it: ImageNet has 1.3 M
        for entry in entries:
            name = entry.name
            if name.startswith(".") or name in _SYSTEM:
                others.append(("hidden files or folders", name))
            elif (what := _what(entry)) == "folder":
                folders.append(name)
            elif what != "file":
                others.append((what, name))
            elif (suffix := os.path.splitext(name)[1].lower()) in image_file.SUFFIXES:
                images.append(name)
            else:
                others.append((f"{suffix} files" if suffix else "files without a suffix", name))
    return Listing(sorted(images), sorted(folders), gathered(others))


def _what(entry: os.DirEntry[str]) -> str:
    with contextlib.suppress(OSError):  # of a link to itself, or to where one may not look
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    return "broken links or special files"


def gathered(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Kind -> names, from (kind, name)."""
    kinds: dict[str, list[str]] = {}
    for kind, name in pairs:
        kinds.setdefault(kind, []).append(name)
    return kinds


def pairs_of(kinds: Kinds, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The reverse of `gathered`, with something before each name."""
    return ((kind, prefix + name) for kind, names in kinds.items() for name in names)


def described(kinds: Kinds) -> str:
    """How many there are of each kind, the most first, each with an example.

    >>> described({".txt files": ["cat/b.txt", "cat/a.txt"], "hidden files": [".DS_Store"]})
    ".txt files (2, such as 'cat/a.txt'), hidden files (1, such as '.DS_Store')"
    """
    ordered = sorted((-len(names), kind) for kind, names in kinds.items() if names)
    named = [
        f"{kind} ({-count:,}, such as {min(kinds[kind])!r})"
        for count, kind in ordered[:_MOST_KINDS]
    ]
    more = sum(-count for count, _ in ordered[_MOST_KINDS:])
    return ", ".join([*named, f"others ({more:,})"] if more else named)
