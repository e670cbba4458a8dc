"""The README's code runs, and its test command is the one that CI runs.

Its links are checked with those of the pages, in test_docs.py.
"""

import re
import shlex
from pathlib import Path

import pytest

from experiments.recipes import RECIPES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippets_run(snippet):
    names = {}
    exec(compile(snippet, "README.md", "exec"), names)
    assert "ovsw" in names


def test_ci_runs_the_readmes_test_command():
    (command,) = re.findall(r"^    (python3 -m venv .*pytest)$", README, flags=re.MULTILINE)
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert command in lines
    assert lines[-1] == ".venv/bin/python -m pytest -m long"


def test_commands_name_modules_and_recipes_that_exist():
    commands = re.findall(r"python -m ((?:experiments|benchmarks)(?:\.\w+)+)([^`\n]*)", README)
    assert len(commands) >= 6
    for module, rest in commands:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
        first = (shlex.split(rest, comments=True) or ["--"])[0]
        if module == "experiments.train" and not first.startswith("-"):
            assert first in RECIPES
