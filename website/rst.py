"""Docstrings as Markdown: the RST formulas and the examples that they hold."""

import re
import textwrap

_BLOCK = re.compile(r"^( *)\.\. math::\n((?:\1 +.*(?:\n|$)| *\n)+)", flags=re.MULTILINE)
_INLINE = re.compile(r":math:`([^`]*)`")
_EXAMPLE = re.compile(r"^Example:$", flags=re.MULTILINE)
_DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", flags=re.MULTILINE)


def markdown_of(docstring: str) -> str:
    """Turns formulas into `$...$` and `$$...$$`, and examples into what Markdown takes for code."""
    text = _BLOCK.sub(_display, docstring)
    text = _INLINE.sub(lambda found: f"${' '.join(found[1].split())}$", text)
    # A section of this name is an example to the reader of docstrings; "Example" is a box of text.
    text = _EXAMPLE.sub("Examples:", text)
    return _DOCTEST.sub(lambda found: f"```pycon\n{found[0]}\n```", text)


def _display(found: re.Match[str]) -> str:
    indent, formula = found[1], textwrap.dedent(found[2]).strip()
    if "&" in formula or r"\\" in formula:
        formula = rf"\begin{{aligned}}{formula}\end{{aligned}}"
    return textwrap.indent(f"\n$$\n{formula}\n$$\n\n", indent)
