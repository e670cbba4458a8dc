"""Where a file of the repository is on the site, and the other way round."""

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from posixpath import dirname, join, normpath, relpath

# What the site shows: folders and pages of the repository, with their place on the site.
FOLDERS = {"docs/": "", "results/": "measurements/"}
PAGES = {
    "README.md": "index.md",  # a link to it leads to the home page
    "CHANGELOG.md": "project/changes.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
}
# Of results/, what a browser shows; records and settings of runs stay in the repository.
SHOWN = {".csv", ".html", ".md", ".png", ".svg"}

_FENCE = re.compile(r"(^```.*?^```$)", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[([^\[\]]*)\]\(([^)\s]+)\)")


def on_site(path: str) -> str | None:
    """The place of a file of the repository on the site, or None if the site doesn't show it."""
    for folder, place in FOLDERS.items():
        if path.startswith(folder) and PurePosixPath(path).suffix in SHOWN:
            return place + path.removeprefix(folder)
    return PAGES.get(path)


def in_repository(uri: str) -> str:
    """The file of the repository that is at this place of the site."""
    for path, place in PAGES.items():
        if uri == place and path != "README.md":
            return path
    folder, place = max(
        (item for item in FOLDERS.items() if uri.startswith(item[1])), key=lambda item: len(item[1])
    )
    return folder + uri.removeprefix(place)


def for_site(markdown: str, uri: str, source_url: str | None = None) -> str:
    """Makes links between files of the repository links between pages of the site.

    Args:
      markdown: text of a page, with links as they are in the repository.
      uri: place of the page on the site, such as `guides/index.md`.
      source_url: where the repository can be seen, for links to files that the site doesn't show.
        Without it only their text is left.

    Returns:
      The text for the site.
    """
    folder = dirname(in_repository(uri))

    def replaced(link: re.Match[str]) -> str:
        image, label, target = link.groups()
        path, hash_sign, heading = target.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return link[0]
        file = normpath(join(folder, path))
        place = on_site(file)
        if place is not None:
            place = relpath(place, dirname(uri) or ".") + hash_sign + heading
        elif source_url is not None:
            place = f"{source_url.rstrip('/')}/blob/main/{file}"
        return f"{image}[{label}]({place})" if place else label

    return outside_of_code(lambda text: _LINK.sub(replaced, text), markdown)


def outside_of_code(change: Callable[[str], str], markdown: str) -> str:
    """Changes a text, but not its fenced blocks of code."""
    parts = _FENCE.split(markdown)
    return "".join(part if i % 2 else change(part) for i, part in enumerate(parts))
