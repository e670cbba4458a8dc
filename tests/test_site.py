"""The documentation site: what it is made of, and that it builds, leads on and shows everything."""

import inspect
import re
import subprocess
import sys
import textwrap

import documents
import pytest
import site_pages
from documents import DOCS, PAGES, ROOT, text_of
from hypothesis import given
from hypothesis import strategies as st

import ovsw_jax as ovsw
from website import api, gallery, places, rst

MODULES = {"ovsw": ovsw, "ovsw.nn": ovsw.nn, "ovsw.linen": ovsw.linen, "ovsw.models": ovsw.models}
PUBLIC = {
    f"{module}.{name}": getattr(of, name)
    for module, of in MODULES.items()
    for name in of.__all__
    if not inspect.ismodule(getattr(of, name))
}

# Docstrings


def test_formulas_in_a_docstring():
    docstring = textwrap.dedent(r"""
        Lifts gradients.

        .. math::
          G &\leftarrow \lambda G \\
          S &\leftarrow 0

        with :math:`\lambda
        \ge 0`.

        Args:
          x: as in

            .. math::
              x^2
        """)
    assert rst.markdown_of(docstring).split() == [
        *("Lifts", "gradients.", "$$", r"\begin{aligned}G", r"&\leftarrow", r"\lambda", "G"),
        *("\\\\", "S", r"&\leftarrow", r"0\end{aligned}", "$$", "with", r"$\lambda", r"\ge", "0$."),
        *("Args:", "x:", "as", "in", "$$", "x^2", "$$"),
    ]
    assert "\n    $$\n    x^2\n    $$\n" in rst.markdown_of(docstring)


def test_examples_in_a_docstring():
    bare = "A sign.\n\n>>> sign(2)\n1\n\nSource: ours."
    assert rst.markdown_of(bare) == "A sign.\n\n```pycon\n>>> sign(2)\n1\n```\n\nSource: ours."
    section = "A sign.\n\nExample:\n  >>> sign(2)\n  1\n"
    assert rst.markdown_of(section) == section.replace("Example:", "Examples:")


@given(st.text(alphabet=" \nab*`_$\\.:", max_size=60))
def test_other_text_is_left_alone(text):
    assert rst.markdown_of(text) == text


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_no_formula_of_a_docstring_is_left_in_rst(name):
    docstring = inspect.getdoc(PUBLIC[name])
    text = rst.markdown_of(docstring)
    assert "math::" not in text
    assert ":math:" not in text
    assert text.count("$$") == 2 * docstring.count(".. math::")


# Places and links


def test_a_place_on_the_site_is_one_file():
    shown = [documents.relative(file) for file in PAGES]
    shown += [documents.relative(f) for f in (ROOT / "results").rglob("*") if f.suffix == ".png"]
    shown += [path for path in places.PAGES if path != "README.md"]
    of_place = {places.on_site(path): path for path in shown}
    assert len(of_place) == len(shown)
    for place, path in of_place.items():
        assert places.in_repository(place) == path


@pytest.mark.parametrize(
    ("link", "on_the_site"),
    [
        ("[a](speed.md#signs)", "[a](speed.md#signs)"),
        ("[a](#here)", "[a](#here)"),
        ("[a](https://jax.dev)", "[a](https://jax.dev)"),
        ("[`a`](../../results/cpu/README.md)", "[`a`](../measurements/cpu/README.md)"),
        ("![a](../../results/cpu/conv_graph.png)", "![a](../measurements/cpu/conv_graph.png)"),
        ("[a](../../CHANGELOG.md)", "[a](../project/changes.md)"),
        ("[a](../../README.md#use-it)", "[a](../index.md#use-it)"),
        ("see [a](../../tests/oracle.py).", "see a."),
        ("[a](../../results/cpu/gamma/config.json)", "a"),
        ("```\n[a](../../tests/oracle.py)\n```", "```\n[a](../../tests/oracle.py)\n```"),
    ],
)
def test_links_of_a_guide(link, on_the_site):
    assert places.for_site(link, "guides/sweeps.md") == on_the_site


def test_links_of_a_measurement():
    linked = places.for_site("[a](../docs/results/index.md#top)", "measurements/README.md")
    assert linked == "[a](../results/index.md#top)"


def test_sources_are_linked_where_the_repository_can_be_seen():
    linked = places.for_site("[a](../tests/oracle.py)", "index.md", "https://host.example/o/")
    assert linked == "[a](https://host.example/o/blob/main/tests/oracle.py)"


# Pages that are made


def test_every_public_name_has_a_place_in_the_api():
    sections = api.sections(text_of(DOCS / "reference" / "api.md"))
    shown = [name for s in sections for names in s.objects.values() for name in names]
    assert len(shown) == len(set(shown))
    assert set(PUBLIC) <= set(shown)


def test_a_page_of_the_api():
    page = "# API\n\n## Rules, here\n\nSee [a](../a.md).\n\n| name | what |\n| --- | --- |\n"
    row = "| `ovsw.ags`, `ovsw.scale_by_ags` | scales |\n"
    (section,) = api.sections(page + row + "\n## Others\n\nNothing.\n")
    assert section.uri == "reference/api/rules-here.md"
    assert section.objects == {"ovsw_jax.ags.scale_by_ags": ["ovsw.ags", "ovsw.scale_by_ags"]}
    assert "[a](../../a.md)" in section.page()
    assert "\n::: ovsw_jax.ags.scale_by_ags\n" in section.page()


def test_a_picture_is_in_the_gallery_once():
    pages = [
        ("measurements/cpu/README.md", "# Two\n\n![a < b](x.png)\n![c](../x.png)\n"),
        ("measurements/cpu/summary.md", "# One\n\n![a](x.png)\n"),
    ]
    page = gallery.page(pages)
    assert page.count("![") == 2
    assert "## [cpu: Two](../measurements/cpu/README.md)" in page
    assert "<figcaption>a &lt; b</figcaption>" in page
    assert "(../measurements/x.png)" in page


@pytest.mark.parametrize("page", PAGES, ids=documents.relative)
def test_the_navigation_names_every_page(page):
    nav = re.findall(r"^ +- (?:[^:\n]+: )?(\S+\.md)$", text_of(ROOT / "mkdocs.yml"), re.MULTILINE)
    assert page.relative_to(DOCS).as_posix() in nav


def test_the_citation_is_of_this_version():
    assert f"\nversion: {ovsw.__version__}\n" in text_of(ROOT / "CITATION.cff")


# The built site


def test_formulas_become_mathml():
    formulas = pytest.importorskip("website.formulas", exc_type=ImportError)
    page = r'<p><span class="arithmatex">\(a &lt; b\)</span></p><div class="arithmatex">\[x\]</div>'
    drawn = formulas.drawn(page)
    assert drawn.startswith("<p><math><mi>a</mi><mo>&lt;</mo><mi>b</mi></math></p><div")
    assert '<math display="block"><mi>x</mi></math>' in drawn
    with pytest.raises(ValueError, match=r"the formula \\unknownsymbol can't be drawn"):
        formulas.drawn(r'<span class="arithmatex">\(\unknownsymbol\)</span>')


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for package in ("mkdocs", "mkdocstrings", "math_core"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir"]
    built = subprocess.run(
        [*command, folder], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.long
def test_links_of_the_site_lead_somewhere_and_nothing_is_loaded_from_elsewhere(site):
    assert site_pages.faults_of(site) == []


@pytest.mark.long
def test_the_site_shows_every_file_of_docs_and_every_public_name(site):
    pages = site_pages.pages_of(site)
    for file in DOCS.rglob("*"):
        shown = site / file.relative_to(DOCS)
        if file.suffix == ".md":
            shown = shown.parent if file.stem == "index" else shown.with_suffix("")
            shown = shown / "index.html"
        assert file.is_dir() or shown.is_file(), shown
    in_the_api = {i for f, page in pages.items() if f.parts[-3:-2] == ("api",) for i in page.ids}
    assert set(PUBLIC) <= in_the_api


@pytest.mark.long
def test_nothing_is_left_of_the_markup(site):
    formulas = 0
    for file, page in site_pages.pages_of(site).items():
        formulas += page.formulas
        for rest in ("$$", ":math:", ".. math", ">>>", "](", "| ---"):
            assert rest not in page.text, f"{file}: {rest}"
        # GitHub begins a list without an empty line above it, the site doesn't.
        assert not re.search(r"\n *([-*]|\d\.) ", page.paragraphs), file
    assert formulas > 100


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ('<a href="../lost/">a</a>', "lost/ is not there"),
        ('<a href="#lost">a</a>', "#lost has no such place"),
        ('<img src="lost.png">', "lost.png is not there"),
        ('<script src="https://cdn.example/a.js"></script>', "loads https://cdn.example/a.js"),
        ('<a href="../../etc/passwd">a</a>', "is not there"),
    ],
)
def test_the_check_of_links_can_fail(page, fault, tmp_path):
    (tmp_path / "index.html").write_text(page)
    (found,) = site_pages.faults_of(tmp_path)
    assert found.endswith(fault)


def test_the_check_of_links_takes_what_is_there(tmp_path):
    (tmp_path / "index.html").write_text('<a href="a/#b">a</a><a href="https://jax.dev">b</a>')
    (tmp_path / "a").mkdir()
    (tmp_path / "a/index.html").write_text('<p id="b"><a href="..">up</a></p>')
    assert site_pages.faults_of(tmp_path) == []
