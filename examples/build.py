"""Makes train.py and train.ipynb from the page docs/guides/train.md, whose Python is tested.

python examples/build.py
"""

import re
from pathlib import Path

import jupytext

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "guides" / "train.md"


def built() -> dict[str, str]:
    """The text of each file that is made from the page."""
    # Links of the page lead on from docs/guides, those of the copies from examples.
    text = re.sub(r"\]\((?!https?:|#)", "](../docs/guides/", PAGE.read_text(encoding="utf-8"))
    notebook = jupytext.reads(text.replace("../docs/guides/../../", "../"), fmt="md")
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "jupytext": {"notebook_metadata_filter": "-all"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # they are random otherwise
    formats = {"train.py": "py:percent", "train.ipynb": "ipynb"}
    return {name: jupytext.writes(notebook, fmt=kind) for name, kind in formats.items()}


def main() -> None:
    """Writes the files."""
    for name, text in built().items():
        (HERE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
