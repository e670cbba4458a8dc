"""The Markdown documents of the repository, and what tests read out of them."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
RESULTS = ROOT / "results"
PAGES = sorted(DOCS.rglob("*.md"))
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *PAGES,
    *sorted(RESULTS.rglob("README.md")),
]

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?<=\n\n)(?:(?: {4}.*)?\n)+")
_INLINE = re.compile(r"`([^`]+)`")
_ENDS_A_COMMAND = {"&&", "||", "|", "&"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose_of(path: Path) -> str:
    """The text without its blocks of code."""
    return _INDENTED.sub("\n", _FENCED.sub("", text_of(path)))


def links_of(path: Path) -> list[str]:
    """Targets of links and images that are not on the network."""
    targets = re.findall(r"\]\(([^)\s]+)\)", _INLINE.sub("", prose_of(path)))
    return [target for target in targets if not re.match(r"https?://", target)]


def anchors_of(path: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", prose_of(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def words_of_code(path: Path) -> list[str]:
    """What stands between backticks in the text."""
    return _INLINE.findall(prose_of(path))


def commands_of(path: Path) -> list[list[str]]:
    """What follows each `python -m` in the blocks and words of code: a module and its arguments."""
    text = text_of(path)
    blocks = [code for language, code in _FENCED.findall(text) if language != "python"]
    blocks += _INDENTED.findall(_FENCED.sub("", text))
    lines = [line for block in blocks for line in block.splitlines()]
    found: list[list[str]] = []
    for code in [*lines, *words_of_code(path)]:
        if "python -m" in code:
            found += _commands_in(shlex.split(code, comments=True))
    return found


def _commands_in(words: Sequence[str]) -> Iterator[list[str]]:
    command: list[str] | None = None
    for i, word in enumerate(words):
        if "python -m" in word:  # a command in quotes, for another program to run
            yield from _commands_in(shlex.split(word.partition("=")[2] or word))
        if word in _ENDS_A_COMMAND or word.endswith(";"):
            if command is not None:
                yield command
            command = None
        elif command is not None:
            command.append(word)
        elif word == "-m" and words[i - 1].endswith("python"):
            command = []
    if command is not None:
        yield command
