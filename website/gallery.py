"""The gallery: the pictures of all pages, each once, under the title of its page."""

import html
import re
from collections.abc import Iterable
from posixpath import dirname, join, normpath, relpath

URI = "results/gallery.md"

_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
_INTRODUCTION = """\
# Gallery

The figures of all [measurements](../measurements/README.md). A picture opens in full size; the
title above it leads to the page that says how it was made, and has its numbers.
"""
_FIGURE = """
<figure markdown="1">
[![{alt}]({picture}){{ loading=lazy }}]({picture})
<figcaption>{caption}</figcaption>
</figure>
"""


def page(pages: Iterable[tuple[str, str]]) -> str:
    """The Markdown of the gallery, from the place and Markdown of each page."""
    shown: set[str] = set()
    text = _INTRODUCTION
    for uri, markdown in pages:
        figures = ""
        for alt, target in _PICTURE.findall(markdown):
            place = normpath(join(dirname(uri), target))
            if place not in shown:
                shown.add(place)
                picture = relpath(place, dirname(URI))
                figures += _FIGURE.format(alt=alt, picture=picture, caption=html.escape(alt))
        if figures:
            title = markdown.partition("\n")[0].removeprefix("# ")
            folder = dirname(uri).removeprefix("measurements/")  # several runs have the same title
            title = title if folder == dirname(uri) else f"{folder}: {title}"
            text += f"\n## [{title}]({relpath(uri, dirname(URI))})\n"
            text += f'\n<div class="gallery" markdown="1">\n{figures}\n</div>\n'
    return text
