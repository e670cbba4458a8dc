"""Import boundaries, checked in fresh interpreters, and that such a check can fail."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

PROJECT = pathlib.Path(__file__).parents[1]
LIBRARY = PROJECT / "ovsw_jax"
FLAX_PARTS = {"nn", "linen", "models", "graph"}

NO_BACKEND = """
from jax._src import xla_bridge
assert not xla_bridge._backends, f"started {sorted(xla_bridge._backends)}"
"""
NO_EXPERIMENTS = """
import sys
loaded = [name for name in sys.modules if name.split(".")[0] == "experiments"]
assert not loaded, f"loaded {loaded}"
"""


def run(program, folder=PROJECT):
    """Runs a program in a fresh interpreter; returns its exit code and what it printed."""
    environment = os.environ | {"PYTHONPATH": str(folder), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def modules_imported(source):
    """Names of all modules that a source file imports, wherever in the file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in {"import_module", "__import__"}:
                yield str(node.args[0].value)


def offenders(folder, forbidden, skip=frozenset()):
    """Files under `folder` that import the package `forbidden`, as paths relative to it."""
    found = []
    for file in sorted(folder.rglob("*.py")):
        relative = file.relative_to(folder)
        if relative.parts[0] in skip:
            continue
        names = modules_imported(file.read_text(encoding="utf-8"))
        if any(name.split(".")[0] == forbidden for name in names):
            found.append(relative.as_posix())
    return found


def test_importing_the_library_starts_no_backend_and_loads_no_experiments():
    code, printed = run(f"import ovsw_jax\n{NO_BACKEND}{NO_EXPERIMENTS}")
    assert code == 0, printed


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("import jax; jax.numpy.zeros(1)", "started ['cpu']"),
        ("import experiments", "loaded ['experiments'"),
    ],
)
def test_the_check_in_a_fresh_interpreter_can_fail(tmp_path, statement, message):
    (tmp_path / "experiments.py").write_text("")
    (tmp_path / "offending.py").write_text(statement)
    code, printed = run(f"import offending\n{NO_BACKEND}{NO_EXPERIMENTS}", tmp_path)
    assert code != 0
    assert message in printed


def test_the_library_never_names_experiments_tests_or_benchmarks():
    for package in ("experiments", "benchmarks", "tests"):
        assert offenders(LIBRARY, package) == []


def test_flax_is_used_only_by_what_makes_and_reads_models():
    assert offenders(LIBRARY, "flax", skip=FLAX_PARTS) == []
    assert offenders(LIBRARY, "flax"), "no layer imports flax: is the check looking at the library?"


@pytest.mark.parametrize(
    "source",
    [
        "import flax",
        "import flax.nnx as nnx",
        "from flax import linen",
        "def late():\n    from flax.nnx import Param",
        "import importlib\nimportlib.import_module('flax.nnx')",
    ],
)
def test_the_check_of_sources_can_fail(tmp_path, source):
    (tmp_path / "nn").mkdir()
    (tmp_path / "nn" / "layers.py").write_text("import flax")
    (tmp_path / "clean.py").write_text("import jax, flaxen\nfrom . import flax_free")
    (tmp_path / "rule.py").write_text(source)
    assert offenders(tmp_path, "flax", skip=FLAX_PARTS) == ["rule.py"]
