"""Every command that a document shows is one that its program understands; short ones run."""

import dataclasses
import functools
import inspect
import re
import runpy
import shlex
import shutil
import tomllib

import documents
import pytest
import tyro
from documents import DOCUMENTS, ROOT, commands_of, relative, words_of_code
from synthetic_run import write_run

from benchmarks.accelerators import __main__ as accelerators
from experiments import launch, prepare, runs, train
from experiments.config import Config
from experiments.config.choices import choose
from experiments.optimizers import OPTIMIZERS
from experiments.recipes import ABOUT
from experiments.report import __main__ as report
from experiments.sweep.members import programs

# What stands for something of the reader's.
STANDS_FOR = {"RECIPE": "digits", "I": "0", "S": "0", "$JOB_COMPLETION_INDEX": "0"}
# Named without arguments, they are meant as programs; alone they would ask for more.
NEED_ARGUMENTS = {
    f"experiments.{name}" for name in ("export", "launch", "prepare", "publish", "summary")
}
GRID = "flip_state=ema,packed,packed8"  # $G of results/packed8/README.md


class ParsedError(Exception):
    """Raised in place of running a command."""


def parse(module, arguments):
    """Reads the arguments as `python -m module` does.

    Raises:
      SystemExit: if it doesn't understand them, or is asked for help (status 0).
      ValueError: if it understands them and refuses them.
    """
    words = [STANDS_FOR.get(word, word.replace("$G", GRID)) for word in arguments]
    if module == "experiments.train":
        check_trainings(train.read(words))
    elif module == "experiments.launch":
        options, rest = launch._parser().parse_known_args(words)
        launch._places(options)
        check_trainings(train.read(rest, several=True))
    else:
        parse_by_tyro(module, words)


def check_trainings(config):
    for program in programs(config):
        choose("optimizer", program.optimizer, OPTIMIZERS)


def parse_by_tyro(module, words):
    """Runs the module up to the point where `tyro.cli` has read the arguments."""
    cli = tyro.cli

    def read(target, **options):
        options.setdefault("args", words)
        is_function = not isinstance(target, type)
        cli(unrun(target) if is_function else target, **options)
        raise ParsedError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tyro, "cli", read)
        patched.setattr("sys.argv", [module, *words])
        with pytest.raises(ParsedError):
            runpy.run_module(module, run_name="__main__")


def unrun(function):
    """With the arguments of a function, and nothing in it."""

    @functools.wraps(function)
    def nothing(*args, **kwargs):
        pass

    return nothing


def shown():
    """Each command once, with a document that shows it."""
    found = {}
    for page in DOCUMENTS:
        for command in commands_of(page):
            if command[0].split(".")[0] in ("experiments", "benchmarks"):
                found.setdefault(tuple(word for word in command if word != "..."), relative(page))
    return [pytest.param(c, id=f"{page}: {' '.join(c)}") for c, page in found.items()]


def test_there_are_commands():
    assert len(shown()) > 50


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("command", shown())
def test_a_command_is_understood(command):
    module, *arguments = command
    if not arguments and module in NEED_ARGUMENTS:
        arguments = ["--help"]
    if "--help" in arguments:
        with pytest.raises(SystemExit, match=r"^0$"):
            parse(module, arguments)
    else:
        parse(module, arguments)


SHORT = (
    "figures",
    "report",
    "runs",
    "summary",
    "studies.appendix_b_figure",
    "studies.signs_figure",
)


def short():
    """Commands that take seconds, with arguments if they need some."""
    modules = {f"experiments.{name}" for name in SHORT}
    alone = {"experiments.runs"} | {m for m in modules if "studies" in m}
    commands = [param.values[0] for param in shown()]
    return [c for c in commands if c[0] in modules and (c[1:] or c[0] in alone)]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("command", short(), ids=" ".join)
def test_a_short_command_runs(command, tmp_path, monkeypatch, capsys):
    write_run(tmp_path / "RUN", epochs=2)
    write_run(tmp_path / "runs" / "mine", epochs=2)
    shutil.copytree(ROOT / "results", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", list(command))
    runpy.run_module(command[0], run_name="__main__")
    said = capsys.readouterr()
    assert said.out.strip()
    assert said.err == ""


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("experiments.train digits --optimisers sgd", SystemExit),
        ("experiments.train digit", ValueError),
        ("experiments.train digits --grids optimizer=sgd lamb=1", ValueError),
        ("experiments.train digits --optimizers sdg", ValueError),
        ("experiments.train digits --compile-for v7:2x2", ValueError),
        ("experiments.launch digits --out DIR --compile-for v5e:4x4", ValueError),
        ("experiments.launch --local 2 digits", ValueError),
        ("experiments.launch --process 1 digits --out DIR", ValueError),
        ("experiments.prepare cifar10", SystemExit),
        ("experiments.figures.conv_graph --into DIR", SystemExit),
        ("benchmarks --only optimizer_steps", SystemExit),
    ],
)
def test_a_wrong_command_is_found(command, error):
    module, *arguments = command.split()
    with pytest.raises(error):
        parse(module, arguments)


@functools.cache
def known_options():
    kinds = (Config, train.Command, prepare.Options)
    fields = [field for kind in kinds for field in dataclasses.fields(kind)]
    names = [field.name for field in fields]
    names += [f"no-{field.name}" for field in fields if isinstance(field.default, bool)]
    commands = (accelerators.main, report.main, runs.main)
    parameters = [x for main in commands for x in inspect.signature(main).parameters.values()]
    names += [x.name for x in parameters]
    names += [f"no-{x.name}" for x in parameters if isinstance(x.default, bool)]
    launched = {text for action in launch._parser()._actions for text in action.option_strings}
    return {f"--{name.replace('_', '-')}" for name in names} | launched


@pytest.mark.parametrize("page", DOCUMENTS, ids=relative)
def test_an_option_that_is_named_exists(page):
    for code in words_of_code(page):
        option = re.match(r"--[\w-]+", code)
        if option and not code.startswith("--xla_"):  # XLA's own
            assert option[0] in known_options(), code


def test_an_extra_that_is_named_exists():
    project = tomllib.loads((documents.ROOT / "pyproject.toml").read_text())["project"]
    for page in DOCUMENTS:
        for names in re.findall(r"pip install -e '\.\[([\w,]+)\]'", documents.text_of(page)):
            assert set(names.split(",")) <= set(project["optional-dependencies"]), page


@pytest.mark.parametrize("name", ABOUT)
def test_a_recipe_is_a_document_too(name):
    """What it says to type is understood, and what it says to read is there."""
    for line in re.findall(r"^ +python -m (.*)$", ABOUT[name], flags=re.MULTILINE):
        module, *arguments = shlex.split(line, comments=True)
        parse(module, arguments)
    for path in re.findall(r"\b(?:docs|results)/[\w/-]+\.\w+", ABOUT[name]):
        assert (documents.ROOT / path).is_file(), path
