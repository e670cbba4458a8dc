"""Symlinks in a run folder: in an untrusted folder they may lead out of it."""

import os
from pathlib import Path


def check_links(run: Path) -> None:
    """Raises ValueError if a link in the folder leads out of it; called before writing to it."""
    inside = os.path.realpath(run)
    for folder, folders, files in os.walk(run):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if not path.is_symlink():
                continue
            target = os.path.realpath(path)
            if not Path(target).is_relative_to(inside):
                raise ValueError(
                    f"{path} is a link that leads out of run folder {run}, to {target}, where a "
                    "run writes nothing. Remove the link, or copy there what it leads to."
                )
