"""Formulas as MathML, which browsers draw: no script, no font, and screen readers read them."""

import html
import re

from math_core import LatexError, LatexToMathML

# As pymdownx.arithmatex leaves them.
_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)


def drawn(page: str) -> str:
    """The HTML of a page with its formulas as MathML.

    Raises:
      ValueError: if a formula is none that can be drawn; it says which.
    """
    converter = LatexToMathML(fancy_error=False)

    def mathml(found: re.Match[str]) -> str:
        latex = html.unescape(found["latex"]).strip()
        block = found["tag"] == "div"
        try:
            math = converter.convert_with_local_state(latex, displaystyle=block)
        except LatexError as error:
            raise ValueError(f"the formula {latex} can't be drawn: {error}") from error
        # A wide formula scrolls by itself on a narrow screen; the keyboard must reach it, too.
        return f'<div class="formula" tabindex="0">{math}</div>' if block else math

    return _FORMULA.sub(mathml, page)
