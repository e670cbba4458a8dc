"""One HTML file: a template, its style, its scripts and their data.

The data are compressed JSON in base64, which has no `<`: no name of a layer or class can end the
element. Scripts put texts into the page as text. The content security policy allows this style and
these scripts by their hashes, pictures that are in the page, and no connection.
"""

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

STATIC = Path(__file__).parent / "static"
STYLES = ("page", "figures", "media")
# Scripts of each kind of page, in the order in which they are read.
SCRIPTS = {
    "report": ("dom", "chart", "heatmap", "histogram", "answers", "tables", "report"),
    "runs": ("dom", "chart", "tables", "runs"),
}


def document(kind: str, data: Mapping[str, Any]) -> str:
    """The page of a kind.

    Args:
      kind: a key of `SCRIPTS`.
      data: what JSON can hold, without NaN; `title` and `verdict` can be read without scripts.
    """
    style = "\n".join(_static(f"{name}.css") for name in STYLES)
    script = "\n".join(["'use strict';", *(_static(f"{name}.js") for name in SCRIPTS[kind])])
    return Template(_static("page.html")).substitute(
        title=html.escape(data["title"]),
        verdict=html.escape(data["verdict"]),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        data=packed(data),
    )


def packed(data: Mapping[str, Any]) -> str:
    """The same bytes for the same data, whenever they are packed."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def unpacked(page: str) -> dict[str, Any]:
    """The data of a page.

    >>> unpacked(document("runs", {"title": "<runs>", "verdict": "&"}))
    {'title': '<runs>', 'verdict': '&'}
    """
    text = page.partition('<script id="data" type="text/plain">')[2].partition("</script>")[0]
    return dict(json.loads(gzip.decompress(base64.b64decode(text))))


def _static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
