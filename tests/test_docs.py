"""The pages in docs/: their Python runs, their links lead somewhere, their names exist."""

import operator
import re
from pathlib import Path

import pytest
from longer import long_but

import ovsw_jax as ovsw

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
WITH_README = [ROOT / "README.md", *PAGES]  # whose code test_readme.py runs


def relative(page):
    return page.relative_to(ROOT).as_posix()


def test_there_are_pages():
    assert ROOT / "docs" / "building-blocks.md" in PAGES


HEAVY = {ROOT / "docs" / "networks.md", ROOT / "docs" / "scaling.md"}


@pytest.mark.parametrize("page", long_but(PAGES, *{*PAGES} - HEAVY), ids=relative)
def test_python_runs(page):
    """All blocks of a page in order, as a reader goes through it."""
    text, names = page.read_text(encoding="utf-8"), {}
    for found in re.finditer(r"```python\n(.*?)```", text, flags=re.DOTALL):
        above = text[: found.start(1)].count("\n")  # so that a traceback names the page's line
        exec(compile("\n" * above + found[1], relative(page), "exec"), names)


@pytest.mark.parametrize("page", WITH_README, ids=relative)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not re.match(r"https?://", target):
            path, _, heading = target.partition("#")
            linked = page.parent / path if path else page
            assert linked.exists(), target
            assert not heading or heading in headings(linked), target


def headings(page):
    """The anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", WITH_README, ids=relative)
def test_names_of_the_library_exist(page):
    for name in re.findall(r"\bovsw\.([A-Za-z_][\w.]*\w)", page.read_text(encoding="utf-8")):
        operator.attrgetter(name)(ovsw)


def test_every_building_block_has_a_place():
    text = (ROOT / "docs" / "building-blocks.md").read_text(encoding="utf-8")
    for name in {*ovsw.nn.__all__, *ovsw.linen.__all__} - {"standardized_scale"}:
        assert re.search(rf"\b{name}\b", text), name


@pytest.mark.parametrize(
    ("check", "text", "error"),
    [
        (test_python_runs, "```python\n1 / 0\n```", ZeroDivisionError),
        (test_links_lead_somewhere, "[there](nowhere.md)", AssertionError),
        (test_links_lead_somewhere, "# Title\n[up](#titel)", AssertionError),
        (test_names_of_the_library_exist, "`ovsw.nn.no_sign`", AttributeError),
    ],
)
def test_the_checks_can_fail(check, text, error, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(error):
        check(page)
