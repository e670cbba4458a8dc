"""Pages of the API: one for each section of docs/reference/api.md, from the docstrings."""

import re
from dataclasses import dataclass
from typing import Any

import ovsw_jax

_SECTION = re.compile(r"^## (.+)\n((?:(?!## ).*\n)*)", flags=re.MULTILINE)
_ROW = re.compile(r"^\| (`[^|]+`) \|", flags=re.MULTILINE)
_NAME = re.compile(r"`((?:ovsw|experiments\.trained)(?:\.\w+)+)`")
_INTRODUCTION = """\
# {title}

{guide}

All sections: [API](../api.md). `ovsw` is `ovsw_jax`.
"""
_ENTRY = """
{anchors}

::: {definition}
    options:
      heading: "{names}"
      toc_label: "{names}"
"""


@dataclass(frozen=True)
class Section:
    """A page: its title, what stands above the table, and the names of each object on it."""

    title: str
    guide: str
    objects: dict[str, list[str]]  # where it is defined: what it is called

    @property
    def uri(self) -> str:
        """Its place on the site."""
        return f"reference/api/{self.title.lower().replace(',', '').replace(' ', '-')}.md"

    def page(self) -> str:
        """Its Markdown, with a block of mkdocstrings for each object."""
        guide = re.sub(r"\]\((?!\w+:)", "](../", self.guide)
        page = _INTRODUCTION.format(title=self.title, guide=guide).replace("\n\n\n\n", "\n\n")
        for definition, names in self.objects.items():
            anchors = "\n".join(f"[](){{ #{name} }}" for name in names)
            page += _ENTRY.format(anchors=anchors, definition=definition, names=", ".join(names))
        return page


def sections(api: str) -> list[Section]:
    """The sections of docs/reference/api.md that name objects of the library.

    An object is on the page of the first section that names it, with all its names.
    """
    found: list[Section] = []
    names_of: dict[str, list[str]] = {}
    for title, text in _SECTION.findall(api):
        section = Section(title, text.partition("\n|")[0].strip(), {})
        for name in (name for row in _ROW.findall(text) for name in _NAME.findall(row)):
            definition = definition_of(name)
            if definition not in names_of:
                section.objects[definition] = names_of[definition] = []
            names_of[definition].append(name)
        if section.objects:
            found.append(section)
    return found


def definition_of(name: str) -> str:
    """Where a name such as `ovsw.ags` is defined: `ovsw_jax.ags.scale_by_ags`."""
    if not name.startswith("ovsw."):
        return name
    found: Any = ovsw_jax
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    return f"{found.__module__}.{found.__qualname__}"
