"""Lets mkdocstrings read docstrings as `rst.markdown_of` rewrites them."""

from typing import Any

import griffe

from website.rst import markdown_of


class Docstrings(griffe.Extension):
    """Rewrites every docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Griffe calls this with each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = markdown_of(obj.docstring.value)
