"""What MkDocs calls while it builds the site: pages are added, links and formulas rewritten."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from website import api, formulas, gallery, places

ROOT = Path(__file__).parents[1]

_SIGNS = (
    "reference/building-blocks.md"  # the one page of docs/ with a figure that no measurement has
)

_linked: re.Pattern[str]  # names that have a place in the API, as code


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are not in docs/, and puts them into the navigation."""
    global _linked
    for path in _shown_elsewhere():
        uri = places.on_site(path)
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    sections = api.sections((ROOT / "docs/reference/api.md").read_text("utf-8"))
    for section in sections:
        files.append(File.generated(config, section.uri, content=section.page()))
    names = {name for s in sections for names in s.objects.values() for name in names}
    _linked = re.compile(rf"(?<!\[)`({'|'.join(map(re.escape, sorted(names)))})`(?!\])")
    uris = [file.src_uri for file in files.documentation_pages()]
    measured = sorted(file for file in uris if file.startswith("measurements/"))
    pages = ((uri, files.src_uris[uri].content_string) for uri in (*measured, _SIGNS))
    files.append(File.generated(config, gallery.URI, content=gallery.page(pages)))
    config.nav = _expanded(config.nav, uris)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrites links to files, and links names of the library to the API."""
    uri = page.file.src_uri
    if uri == "index.md":
        page.meta["hide"] = ["navigation"]  # it would name this page alone
    markdown = places.for_site(markdown, uri, config.repo_url)
    if uri.startswith("reference/api/"):
        return markdown
    return places.outside_of_code(lambda text: _linked.sub(r"[`\1`][\1]", text), markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Draws formulas."""
    try:
        return formulas.drawn(html)
    except ValueError as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from error


def _shown_elsewhere() -> Iterator[str]:
    yield from (path for path in places.PAGES if path != "README.md")
    for file in sorted((ROOT / "results").rglob("*")):
        path = file.relative_to(ROOT).as_posix()
        if places.on_site(path) is not None:
            yield path


def _expanded(nav: Any, uris: list[str]) -> Any:
    """The navigation, with the pages of a folder in place of `folder/*`."""
    if isinstance(nav, list):
        items = []
        for item in nav:
            found = _expanded(item, uris)
            items += found if isinstance(item, str) and isinstance(found, list) else [found]
        return items
    if isinstance(nav, dict):
        return {title: _expanded(item, uris) for title, item in nav.items()}
    return _tree(nav.removesuffix("*"), uris) if nav.endswith("/*") else nav


def _tree(folder: str, uris: list[str]) -> list[Any]:
    inside = [uri for uri in uris if uri.startswith(folder)]
    items: list[Any] = sorted(
        (uri for uri in inside if "/" not in uri.removeprefix(folder)),
        key=lambda uri: not uri.endswith("/README.md"),
    )
    for name in dict.fromkeys(
        uri.removeprefix(folder).partition("/")[0] for uri in inside if uri not in items
    ):
        pages = _tree(f"{folder}{name}/", uris)
        items.append({name: pages[0] if len(pages) == 1 else pages})
    return items
