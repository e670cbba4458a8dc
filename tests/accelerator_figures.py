"""What the compilers say of the programs in accelerator_programs.py, beside committed figures.

    .venv/bin/python tests/accelerator_figures.py

writes reference/accelerators.json anew, after a change that is meant to be dearer, or cheaper.
"""

import json
import sys
from pathlib import Path

from experiments.accelerators import environments

FILE = Path(__file__).parent / "reference" / "accelerators.json"
WRITE = ".venv/bin/python tests/accelerator_figures.py"
TARGETS = {"tpu": "v5e:2x2", "cuda": "h100"}
TOLERANCE = 0.05  # compilers are pinned; it leaves room for changes that mean something else
# A reading below these says nothing: kilobytes of a program whose arrays are megabytes.
NEGLIGIBLE = {"temporaries": 100_000, "moved": 100_000}


def committed():
    """Figures by platform, program and name."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def measured(platform):
    """Figures of today's sources, by program and name."""
    program = [str(Path(__file__).with_name("accelerator_programs.py")), TARGETS[platform]]
    records = map(json.loads, environments.lines_of(platform, program))
    return {record["program"]: record["figures"] for record in records}


def worse(found, known):
    """What is more than 5 % above the committed figures, in words; programs without any, too."""
    if found.keys() != known.keys():
        return [f"programs {sorted(found)} have figures for {sorted(known)}: run {WRITE}"]
    return [
        f"{program}: {name} {figure:,}, committed {known[program][name]:,}"
        for program, figures in found.items()
        for name, figure in figures.items()
        if figure > max(known[program][name] * (1 + TOLERANCE), NEGLIGIBLE.get(name, 0))
    ]


def main():
    """Writes the figures of both platforms."""
    environments.make(TARGETS)
    figures = {platform: measured(platform) for platform in TARGETS}
    FILE.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
