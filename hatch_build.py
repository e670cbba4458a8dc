"""Leaves out of the source archive, and so of its wheel, the extras whose code is not in it.

`pip install -e '.[experiments]'` is for a clone. From a wheel, which holds `ovsw_jax/` alone, the
extra would install much for nothing; without it pip says that there is no such extra.
"""

import re
import shutil
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_OF_A_CLONE = re.compile(r"^# Of a clone alone\b.*?(?=^\[)", flags=re.MULTILINE | re.DOTALL)


def for_archive(pyproject: str) -> str:
    """The text of pyproject.toml without what stands below "Of a clone alone" in its table."""
    return _OF_A_CLONE.sub("", pyproject)


class ExtrasOfTheArchive(BuildHookInterface):
    """Changes pyproject.toml and the metadata of a source archive."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Hatchling calls this before it writes the archive."""
        original = Path(self.root, "pyproject.toml")
        text = for_archive(original.read_text("utf-8"))
        kept = tomllib.loads(text)["project"].get("optional-dependencies", {})
        extras = self.metadata.core.optional_dependencies
        for extra in extras.keys() - kept.keys():
            del extras[extra]
        self._folder = Path(tempfile.mkdtemp())
        (self._folder / original.name).write_text(text, "utf-8")
        del build_data["force_include"][str(original)]
        build_data["force_include"][str(self._folder / original.name)] = original.name

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Hatchling calls this behind it."""
        shutil.rmtree(self._folder)
