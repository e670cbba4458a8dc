"""The pages of a built site: what they link to, load and show."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADING = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src")}
_NOT_LOADED = {"canonical", "next", "prev"}  # kinds of <link> that a browser doesn't follow


class SitePage(HTMLParser):
    """What one HTML file says."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.formulas = 0
        self.text = ""  # but code
        self.paragraphs = ""
        self._hidden = 0
        self._in_paragraph = False
        self.feed(file.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given[key] for key in ("id", "name") if given.get(key)}
        self.formulas += tag == "math"
        self._in_paragraph |= tag == "p"
        self._hidden += tag in ("script", "style", "code", "pre")
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        for loading, key in _LOADING:
            if tag == loading and given.get(key) and given.get("rel") not in _NOT_LOADED:
                self.loaded.append(given[key])

    def handle_endtag(self, tag):
        self._hidden -= tag in ("script", "style", "code", "pre")
        self._in_paragraph &= tag != "p"

    def handle_data(self, data):
        if not self._hidden:
            self.text += data
            self.paragraphs += data * self._in_paragraph


def pages_of(site: Path) -> dict[Path, SitePage]:
    """Every page of a site; 404.html is for servers that know where the site is."""
    return {f: SitePage(f) for f in sorted(site.rglob("*.html")) if f.name != "404.html"}


def faults_of(site: Path) -> list[str]:
    """Links and pictures that lead nowhere, and what would be loaded from elsewhere."""
    pages, faults = pages_of(site), []
    for file, page in pages.items():
        faults += [f"{file}: loads {url}" for url in page.loaded if urlsplit(url).netloc]
        for url in page.links + page.loaded:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            if not target.is_relative_to(site.resolve()) or not target.is_file():
                faults.append(f"{file}: {url} is not there")
            elif parts.fragment and unquote(parts.fragment) not in pages[target].ids:
                faults.append(f"{file}: {url} has no such place")
    return faults
