"""A run on one page: summary.json, summary.md and the table at the end of training. No jax.

python -m experiments.summary RUN      # writes both again and prints the table
"""

import json
import sys
from pathlib import Path
from typing import Any

import tyro

from experiments.report.page import page
from experiments.report.table import print_table, spread, summarise, table
from experiments.run.atomic_files import written_whole
from experiments.run.reader import read_run
from experiments.run.symlinks import check_links

__all__ = ["page", "print_table", "spread", "summarise", "table", "write_summary"]


def write_summary(run_dir: Path) -> dict[str, dict[str, Any]]:
    """Writes RUN/summary.json and RUN/summary.md; the figures that RUN/figures holds are embedded.

    Returns:
      The contents of summary.json.

    Raises:
      FileNotFoundError, ValueError: as `experiments.run.reader.read_run`; also if a link leads
        out of the folder.
      WriteError: if one of them can't be written.
    """
    run = read_run(Path(run_dir))
    check_links(run.folder)
    summary = summarise(run)
    written = {"summary.json": json.dumps(summary, indent=2) + "\n", "summary.md": page(run)}
    for name, text in written.items():
        with written_whole(run.folder / name, run.folder) as path:
            path.write_text(text, encoding="utf-8")
    return summary


def main(run: tyro.conf.Positional[Path]) -> None:
    """Writes a run folder's summary.json and summary.md again and prints the table.

    Args:
      run: run folder written by python -m experiments.train.
    """
    try:
        print_table(write_summary(run))
    except (OSError, ValueError) as error:
        sys.exit(f"no summary of {run}: {error}")
