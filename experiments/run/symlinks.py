"""Links in a run folder: one from a stranger may lead out of it, and what is written goes there."""

import os
from pathlib import Path


def check_links(run: Path) -> None:
    """Before anything is written to a run folder that was there already.

    Raises:
      ValueError: if a link in it leads out of it.
    """
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
