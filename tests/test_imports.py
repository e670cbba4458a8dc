"""Import boundaries, checked in fresh interpreters, and that such a check can fail."""

import ast
import json
import os
import pathlib
import subprocess
import sys

import pytest

PROJECT = pathlib.Path(__file__).parents[1]
LIBRARY = PROJECT / "ovsw_jax"
FLAX_PARTS = {"nn", "linen", "models", "graph", "deploy"}

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


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("experiments.figures.__main__, experiments.figures.headline", "jax"),
        ("experiments.figures.flips, experiments.report.summary", "jax"),
        ("experiments.data", "tensorflow_datasets"),
        # A compiler's environment has the library and little more.
        *(("experiments.estimate.worker", name) for name in ("PIL", "tyro", "orbax")),
        pytest.param("jax", "jax", marks=pytest.mark.xfail(strict=True)),  # the check can fail
    ],
)
def test_imports_that_are_light(modules, heavy):
    code, printed = run(f"import sys, {modules}\nassert {heavy!r} not in sys.modules")
    assert code == 0, printed


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


PUBLIC = """
import inspect, json, ovsw_jax
names, todo = {}, {"ovsw_jax": ovsw_jax}
while todo:
    path, module = todo.popitem()
    names[path] = module.__all__
    for name in module.__all__:
        if inspect.ismodule(getattr(module, name)):
            todo[f"{path}.{name}"] = getattr(module, name)
print(json.dumps(names))
"""


@pytest.fixture(scope="module")
def public():
    """The names in `__all__` of the library and of its public modules, by module."""
    code, printed = run(PUBLIC)
    assert code == 0, printed
    return json.loads(printed)


def private_names(source, public):
    """What a source file takes of the library that is no public name of it, with its lines."""
    tree, bound = ast.parse(source), {}  # bound: local names of the library and its modules
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "ovsw_jax":
                    if alias.name not in public:
                        yield node.lineno, alias.name
                    name = alias.name if alias.asname else "ovsw_jax"
                    bound[alias.asname or "ovsw_jax"] = name
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ovsw_jax":
            for alias in node.names:
                if alias.name not in public.get(node.module, ()):
                    yield node.lineno, f"{node.module}.{alias.name}"
                bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        path = attribute_path(node)
        if path and path[0] in bound:
            module = ".".join([bound[path[0]], *path[1:-1]])
            if module in public and path[-1] not in [*public[module], "__version__", "__file__"]:
                yield node.lineno, f"{module}.{path[-1]}"


def attribute_path(node):
    """["ovsw", "nn", "sign"] of `ovsw.nn.sign`; None of what is no chain of attributes."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if names and isinstance(node, ast.Name) else None


@pytest.mark.parametrize("place", ["experiments", "benchmarks", "tests/test_additions.py"])
def test_experiments_benchmarks_and_an_outsider_use_public_names_only(place, public):
    path = PROJECT / place
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    sources = {file: file.read_text(encoding="utf-8") for file in files}
    assert any("ovsw_jax" in source for source in sources.values())
    found = {
        file.relative_to(PROJECT).as_posix(): names
        for file, source in sources.items()
        if (names := list(private_names(source, public)))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("source", "private"),
    [
        ("import ovsw_jax as ovsw\nimport ovsw_jax.nn\novsw.nn.sign, ovsw.__version__", []),
        ("from ovsw_jax import nn, ags\nfrom ovsw_jax.nn import sign as s\nnn.sign, s.x", []),
        ("from ovsw_jax.latent import layer_name", [(1, "ovsw_jax.latent.layer_name")]),
        ("def late():\n    import ovsw_jax.latent", [(2, "ovsw_jax.latent")]),
        ("from ovsw_jax import latent", [(1, "ovsw_jax.latent")]),
        ("import ovsw_jax as o\no.latent.layer_name", [(2, "ovsw_jax.latent")]),
        ("from ovsw_jax import models\nmodels.resnet", [(2, "ovsw_jax.models.resnet")]),
    ],
)
def test_the_check_of_public_names_can_fail(source, private, public):
    assert list(private_names(source, public)) == private
