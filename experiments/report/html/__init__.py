"""RUN/report.html: a run as one page that needs no network, for a browser. No jax.

`content.py` makes a dict of what a run folder holds, with a module for each part of the page;
`document.py` puts it into `static/page.html` with the scripts, which draw it. A number is in the
page as the dict has it; nothing is drawn here.
"""

from pathlib import Path

from experiments.report.html.content import content
from experiments.report.html.document import document
from experiments.run.atomic_files import written_whole
from experiments.run.reader import read_run
from experiments.run.symlinks import check_links

__all__ = ["content", "write_report"]

FILE = "report.html"


def write_report(run_dir: Path, *, images: bool = True) -> Path:
    """Writes RUN/report.html from what the folder holds; the page names what is missing.

    Args:
      run_dir: the run folder, finished or not.
      images: whether the page shows the test images that the folder holds.

    Returns:
      The file written.

    Raises:
      FileNotFoundError, ValueError: as `experiments.run.reader.read_run`; also if a link leads
        out of the folder.
      WriteError: if it can't be written.
    """
    run = read_run(Path(run_dir))
    check_links(run.folder)
    text = document("report", content(run, images=images))
    path = run.folder / FILE
    with written_whole(path, run.folder) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return path
