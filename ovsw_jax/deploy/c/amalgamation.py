"""Kernels as one text: the C files of `sources` that a network needs, each one once."""

import re
from collections.abc import Collection
from functools import cache
from importlib import resources

# Text that is there each time that it is included: what it means depends on macros before it.
_TEMPLATES = ("lines.h", "end_of_lines.h")
_OF_ALL_PATHS = ("window.h", "out.h", "place.h")  # types and functions of indices
_KERNELS = (
    *("binary.h", "packed.h", "float.h", "sign_weights.h", "grouped.h"),
    *("elementwise.h", "signs.h", "pools.h", "reduce.h", "moves.h", "fixed.h"),
)
_INCLUDE = re.compile(r'^#include "([^"]+)"\n', re.MULTILINE)
_SECTION = re.compile(r"^/\* ==== (\w+) \*/\n", re.MULTILINE)


@cache
def source(name: str) -> str:
    """The text of a C file."""
    return (resources.files(__package__) / "sources" / name).read_text("utf-8")


def kernels(used: Collection[str]) -> tuple[str, str]:
    """The C of kernels by name: what all paths share, and what is compiled for each path.

    Raises:
      KeyError: if there is no such kernel.
    """
    missing = set(used)
    written: dict[str, str] = {}
    for name in _KERNELS:
        preamble, *sections = _SECTION.split(source(name))
        chosen = [
            text for kernel, text in zip(sections[::2], sections[1::2], strict=True)
            if kernel in used
        ]  # fmt: skip
        missing -= set(sections[::2])
        if chosen:
            written[name] = _included(preamble, written) + "".join(chosen)
    if missing:
        raise KeyError(f"no kernel {sorted(missing)[0]!r} in sources")
    shared = "\n".join(text for name, text in written.items() if name in _OF_ALL_PATHS)
    own = "\n".join(text for name, text in written.items() if name not in _OF_ALL_PATHS)
    return shared, own


def _included(text: str, written: dict[str, str]) -> str:
    """A text with the files that it includes in front, or in their place if they are templates."""

    def in_place(match: re.Match[str]) -> str:
        name = match[1]
        if name in _TEMPLATES:
            return source(name)
        if name not in written:
            written[name] = ""  # its place: behind what it includes itself
            made = _included(source(name), written)
            del written[name]
            written[name] = made
        return ""

    return _INCLUDE.sub(in_place, text)


def path_headers() -> str:
    """The lanes of vectors of each path, of which the compiler takes one."""
    return _INCLUDE.sub(lambda match: source(match[1]), source("paths.h"))


def names_of(*texts: str) -> list[str]:
    """Functions and types that each path has for itself."""
    names: set[str] = set()
    for text in texts:
        names.update(re.findall(r"^(?:INLINE|static)\b[^;={]*?(\w+)\(", text, re.MULTILINE))
        names.update(re.findall(r"^typedef \w+ (\w+);", text, re.MULTILINE))
        names.update(re.findall(r"^} (\w+);", text, re.MULTILINE))
        names.update(re.findall(r"^#define (?:LINE|TILE|COLUMNS) (\w+)$", text, re.MULTILINE))
        names.update(re.findall(r"^OF_(?:ONE|TWO)\((\w+),", text, re.MULTILINE))
    return sorted(names - {"LINE", "TILE", "COLUMNS", "NAME"})
