"""The documents: their Python runs, their links lead somewhere, what they name exists."""

import operator
import re

import documents
import pytest
from documents import DOCUMENTS, PAGES, anchors_of, links_of, prose_of, relative, text_of
from longer import long_but

import ovsw_jax as ovsw

# test_readme.py runs the README's.
WITH_PYTHON = [page for page in DOCUMENTS[1:] if "```python" in text_of(page)]
HEAVY = {
    documents.DOCS / name
    for name in ("reference/networks.md", "guides/scale.md", "guides/train.md")
}


def test_there_are_pages():
    assert documents.DOCS / "index.md" in PAGES
    assert len(DOCUMENTS) > len(PAGES)


@pytest.mark.parametrize("page", long_but(WITH_PYTHON, *{*WITH_PYTHON} - HEAVY), ids=relative)
def test_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what it writes is no part of the clone
    run_python(page)


def run_python(page):
    """Runs all blocks of a page in order, as a reader goes through it."""
    text, names = text_of(page), {}
    for found in re.finditer(r"```python\n(.*?)```", text, flags=re.DOTALL):
        above = text[: found.start(1)].count("\n")  # so that a traceback names the page's line
        exec(compile("\n" * above + found[1], relative(page), "exec"), names)


@pytest.mark.parametrize("page", DOCUMENTS, ids=relative)
def test_links_lead_somewhere(page):
    for target in links_of(page):
        path, _, heading = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.is_file(), target
        assert not heading or heading in anchors_of(linked), target
        assert "--" not in heading, f"{target}: GitHub and the site name this heading differently"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_a_page_has_one_title_and_pictures_that_the_site_shows(page):
    titles = re.findall(r"^# .+$", prose_of(page), flags=re.MULTILINE)
    assert len(titles) == 1
    assert text_of(page).startswith(titles[0])
    for picture in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", text_of(page)):
        file = (page.parent / picture).resolve()
        assert file.is_relative_to(documents.DOCS) or file.is_relative_to(documents.RESULTS), (
            picture
        )


@pytest.mark.parametrize("page", DOCUMENTS, ids=relative)
def test_rows_of_a_table_have_as_many_cells_as_its_head(page):
    for table in re.findall(r"^\|.*(?:\n\|.*)+", prose_of(page), flags=re.MULTILINE):
        rows = table.splitlines()
        counts = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
        assert re.fullmatch(r"[|\s:-]+", rows[1]), rows[0]
        assert set(counts) == {counts[0]}, rows[0]


def test_every_file_in_docs_is_reached_from_the_home_page():
    reached, waiting = set(), [documents.DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        if page.suffix == ".md":
            linked = {
                (page.parent / target.partition("#")[0]).resolve() for target in links_of(page)
            }
            waiting += [file for file in linked - reached if file.is_relative_to(documents.DOCS)]
    missed = {file for file in documents.DOCS.rglob("*") if file.is_file()} - reached
    assert not missed, sorted(map(relative, missed))


@pytest.mark.parametrize("page", DOCUMENTS, ids=relative)
def test_names_of_the_library_exist(page):
    for name in re.findall(r"\bovsw\.([A-Za-z_][\w.]*\w)", text_of(page)):
        operator.attrgetter(name)(ovsw)


@pytest.mark.parametrize("page", DOCUMENTS, ids=relative)
def test_files_of_the_repository_exist(page):
    rooms = "ovsw_jax|experiments|benchmarks|tests|results|docs"
    for name in re.findall(rf"`(?:[^`\n]* )?((?:{rooms})/[\w/.-]*)[^`\n]*`", prose_of(page)):
        assert (documents.ROOT / name).exists(), name


def test_every_public_name_is_on_the_page_of_the_api():
    text = text_of(documents.DOCS / "reference" / "api.md")
    modules = {
        "ovsw": ovsw,
        "ovsw.nn": ovsw.nn,
        "ovsw.linen": ovsw.linen,
        "ovsw.models": ovsw.models,
        "ovsw.deploy": ovsw.deploy,
    }
    named = {f"{module}.{name}" for module, found in modules.items() for name in found.__all__}
    missing = named - modules.keys() - set(re.findall(r"`(ovsw\.[\w.]+)`", text))
    assert not missing, f"add a row to docs/reference/api.md for {sorted(missing)}"


def test_every_building_block_has_a_place():
    text = text_of(documents.DOCS / "reference" / "building-blocks.md")
    for name in {*ovsw.nn.__all__, *ovsw.linen.__all__} - {"standardized_scale"}:
        assert re.search(rf"\b{name}\b", text), name


@pytest.mark.parametrize(
    ("check", "text", "error"),
    [
        (run_python, "```python\n1 / 0\n```", ZeroDivisionError),
        (test_links_lead_somewhere, "[there](nowhere.md)", AssertionError),
        (test_links_lead_somewhere, "# Title\n[up](#titel)", AssertionError),
        (test_links_lead_somewhere, "```\n# Title\n```\n[up](#title)", AssertionError),
        (
            test_a_page_has_one_title_and_pictures_that_the_site_shows,
            "# One\n\n# Two\n",
            AssertionError,
        ),
        (
            test_a_page_has_one_title_and_pictures_that_the_site_shows,
            "# One\n![](../a.png)",
            AssertionError,
        ),
        (
            test_rows_of_a_table_have_as_many_cells_as_its_head,
            "| a | b |\n| - | - |\n| 1 |",
            AssertionError,
        ),
        (test_names_of_the_library_exist, "`ovsw.nn.no_sign`", AttributeError),
        (test_files_of_the_repository_exist, "`pytest tests/test_nothing.py`", AssertionError),
    ],
)
def test_the_checks_can_fail(check, text, error, tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(error):
        check(page)


def test_a_page_that_nothing_links_to_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "ROOT", tmp_path)
    monkeypatch.setattr(documents, "DOCS", tmp_path)
    (tmp_path / "index.md").write_text("# Home\n")
    (tmp_path / "lost.md").write_text("# Lost\n")
    with pytest.raises(AssertionError, match=r"lost\.md"):
        test_every_file_in_docs_is_reached_from_the_home_page()
