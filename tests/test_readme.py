"""The README is short, each piece of its code runs alone, and its test command is the one of CI."""

import re

import pytest
from documents import ROOT, text_of

README = text_of(ROOT / "README.md")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippets_run(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(snippet, "README.md", "exec"), names)
    assert "ovsw" in names


def test_it_is_read_in_a_few_minutes():
    assert len(README.splitlines()) <= 130


def test_ci_runs_the_readmes_test_command():
    (command,) = re.findall(r"^    (python3 -m venv .*pytest)$", README, flags=re.MULTILINE)
    lines = text_of(ROOT / ".ci" / "run").splitlines()
    assert command in lines
    assert lines[-1] == ".venv/bin/python -m pytest -m long"


def test_contributors_run_the_same_command():
    (command,) = re.findall(r"^    (python3 -m venv .*pytest)$", README, flags=re.MULTILINE)
    assert f"`{command}`" in text_of(ROOT / "CONTRIBUTING.md")
