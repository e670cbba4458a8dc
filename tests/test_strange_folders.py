"""Run folders of strangers are data: no code in them runs, and nothing beside them is written.

Code that runs leaves a trace: a file, or a module. Both are shown to come where they are let.
"""

import json
import pickle
import shutil
import signal
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import synthetic_sweep
from image_data import of_two_classes, write_folder

from experiments import figures, train
from experiments.report import summary
from experiments.run import reader, weights
from experiments.run.checkpoint import Checkpoints
from experiments.training.step import Steps
from experiments.training.trained import load_trained

OWN = "tiny_networks:Tiny"
LATENT = ("ovsw|conv|initial", "ovsw|conv|never_flipped")


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


@pytest.fixture
def trace(tmp_path):
    return tmp_path / "trace"


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A module that can be imported, and must not be."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "planted.py").write_text("from tiny_networks import Tiny as Network\n")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    yield "planted"
    sys.modules.pop("planted", None)


def beside(tmp_path, folder):
    """All that lies outside a run folder, with what is in it."""
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in tmp_path.rglob("*")
        if not path.is_relative_to(folder) and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_folder(root, of_two_classes(16, 2), size=(8, 8))
    return [
        *("--data", str(root), "--network", OWN, "--optimizers", "ovsw", "--seeds", "0"),
        *("--epochs", "2", "--batch-size", "8", "--members-at-once", "1"),
    ]


@pytest.fixture(scope="module")
def stopped(command, tmp_path_factory):
    """A run folder with a checkpoint behind its second step."""
    folder, plain, steps = tmp_path_factory.mktemp("stopped") / "run", Steps.train_step, []

    def train_step(self, *arguments, **options):
        steps.append(1)
        if len(steps) == 2:
            signal.raise_signal(signal.SIGTERM)
        return plain(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Steps, "train_step", train_step)
        assert train.main([*command, "--out", str(folder)]) == 143
    assert Checkpoints(folder / "checkpoints").numbers() == [2]
    return folder


@pytest.fixture(scope="module")
def finished(command, stopped, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    shutil.copytree(stopped, folder)
    assert train.main([*command, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def copy(tmp_path):
    return lambda folder: Path(shutil.copytree(folder, tmp_path / "copied" / "run"))


@pytest.fixture
def refused(command, capsys):
    def say(*options):
        capsys.readouterr()
        assert train.main([*command, *map(str, options)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        return error

    return say


# Pickles


def test_a_pickle_in_latent_npz(stopped, copy, trace, refused):
    folder = copy(stopped)
    np.savez(folder / "latent.npz", **{LATENT[0]: np.array([Trap(trace)], object)})
    error = refused("--out", folder)
    assert f"{folder / 'latent.npz'} is damaged (ValueError): the run can't resume" in error
    assert not trace.exists()


@pytest.mark.long
def test_a_pickle_in_latent_npz_that_is_to_be_drawn(finished, copy, trace):
    folder, said = copy(finished), []
    np.savez(folder / "latent.npz", **dict.fromkeys(LATENT, np.array([Trap(trace)], object)))
    figures.draw(folder, said.append)
    assert any("latent.npz cannot be read (Object arrays cannot be loaded" in x for x in said)
    assert not trace.exists()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["object array", "bare pickle"])
def test_a_pickle_in_weights(kind, finished, copy, trace, tmp_path, refused):
    folder = copy(finished)
    path = folder / "weights" / "ovsw-seed0.npz"
    if kind == "bare pickle":
        path.write_bytes(pickle.dumps(Trap(trace)))
    else:
        with np.load(path) as found:
            stored = dict(found)
        np.savez(path, **stored | {"params/head/bias": np.array([Trap(trace)], object)})
    for option in ("--start", "--teacher"):
        error = refused(option, folder, "--out", tmp_path / "new")
        assert f"trained weights {path} can't be read: " in error
        assert "allow_pickle=" in error
    assert not trace.exists()


def test_a_pickle_leaves_its_trace_where_it_is_let(trace, tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([Trap(trace)], object))
    with np.load(tmp_path / "a.npz", allow_pickle=True) as found:
        found["x"][0].close()
    assert trace.exists()


# config.json and metrics.jsonl


@pytest.fixture
def of_planted(finished, copy, planted):
    """A run folder that says it trained a network of that module."""
    folder = copy(finished)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"network": f"{planted}:Network"}))
    return folder


@pytest.mark.long
def test_a_network_that_only_a_folder_names_is_not_imported(of_planted, planted, tmp_path, refused):
    name = f"{planted}:Network"
    figures.draw(of_planted)
    summary.write_summary(of_planted)
    weights.find(of_planted, "ovsw", 0)
    assert refused("--teacher", of_planted, "--out", tmp_path / "new") == (
        f"error: run folder {of_planted} is of network '{name}', which is not imported because a "
        "folder says so: that would run its code. If you trust it, name it yourself: "
        f"--teacher-network {name}, or in Python own=['{name}'].\n"
    )
    with pytest.raises(ValueError, match="which is not imported because a folder says so"):
        load_trained(of_planted)
    assert planted not in sys.modules
    load_trained(of_planted, own=[name])
    assert planted in sys.modules


@pytest.mark.long
def test_a_teacher_of_ones_own_network_is_named(of_planted, planted, command, tmp_path):
    """Unless it is that of the run itself, as test_two_steps.py has it."""
    given = ["--teacher", str(of_planted), "--teacher-network", f"{planted}:Network"]
    assert train.main([*command, "--epochs", "1", *given, "--out", str(tmp_path / "new")]) == 0


# What stands in config.json, and what is said of it.
CONFIGS = {
    "nested": ('{"a": ' * 100_000, " is not valid JSON: "),
    "no object": ("[[]]", " holds a list, it must hold a JSON object"),
    "optimizers": ('{"optimizers": {"a": 1}}', ": optimizers is .*it must be a list of texts"),
    "seeds": ('{"seeds": ["x"]}', r": seeds is \['x'\], it must be whole numbers"),
    "network": ('{"network": ["os:system"]}', ": network is .*it must be a text"),
    "huge": (f'{{"epochs": {10**400}}}', ": epochs is 1000.*it must be a whole number"),
    "grids": ('{"grids": 7}', ": grids is 7, it must be a list of texts"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_hostile_config(name, finished, copy):
    folder, (text, message) = copy(finished), CONFIGS[name]
    (folder / "config.json").write_text(text)
    find = lambda folder: weights.find(folder, "ovsw", 0)  # noqa: E731
    for read in (figures.draw, summary.write_summary, load_trained, find):
        with pytest.raises(ValueError, match=rf"config\.json{message}"):
            read(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": None}, "its config.json does not say network"),
        ({"network": "os:system"}, "is not imported"),
        ({"seeds": 3}, "its seeds are no list"),
        ({"binary": "os"}, r"config\.json: binary=os is out of range"),
        ({"optimizers": ["../../etc/x"]}, r"trained weights weights/\.\./\.\./etc/x-seed0\.npz"),
    ],
)
def test_a_config_of_no_teacher(change, message, tmp_path):
    config = {"network": "small", "optimizers": ["sgd"], "seeds": [0]} | change
    said = {name: value for name, value in config.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=message):
        load_trained(tmp_path)


ROWS = {
    "nested": '"epoch": 1, "point": ' + "[" * 100_000,
    "epoch": '"epoch": {}',
    "layers": '"epoch": 1, "layers": [1]',
    "huge": f'"epoch": 1, "loss": {10**400}',
}


@pytest.mark.parametrize("name", ROWS)
def test_hostile_rows(name, finished, copy):
    folder = copy(finished)
    good = (folder / "metrics.jsonl").read_text()
    head = '{"optimizer": "ovsw", "seed": 0, "never_flipped_ratio": 0.5, "silent_ratio": 0.5, '
    (folder / "metrics.jsonl").write_text(f"{head}{ROWS[name]}}}\n{good}")
    with pytest.raises(ValueError, match=r"line 1 of .*metrics\.jsonl"):
        reader.read_run(folder)


# What would be written elsewhere


@pytest.mark.parametrize(
    "name", [".lock", "metrics.jsonl", ".latent.npz", "checkpoints", "weights", "figures"]
)
def test_links_that_lead_out_of_a_run_folder(name, finished, copy, tmp_path, refused):
    folder, elsewhere = copy(finished), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "headline.png").write_text("valuable")
    place = folder / name
    if place.is_dir():
        shutil.rmtree(place)
    content = place.read_bytes() if name == "metrics.jsonl" else b"valuable"
    (elsewhere / "valuable").write_bytes(content)
    place.unlink(missing_ok=True)
    target = elsewhere / "valuable" if "." in name else elsewhere
    place.symlink_to(target)
    before = beside(tmp_path, folder)
    message = f"{place} is a link that leads out of run folder {folder}, to {target}, where a run"
    assert message in refused("--out", folder)
    for write in (figures.draw, summary.write_summary):
        with pytest.raises(ValueError, match="is a link that leads out of run folder"):
            write(folder)
    assert beside(tmp_path, folder) == before


def test_links_inside_a_run_folder_are_fine(finished, copy):
    folder = copy(finished)
    (folder / "figures").rename(folder / "pictures")
    (folder / "figures").symlink_to("pictures")
    assert figures.draw(folder)


def test_names_that_would_be_paths(tmp_path):
    """Of optimizers: they are part of the names of figures."""
    folder, name = tmp_path / "a" / "run", "x/../../../../b"
    grid = f"optimizer={name} init_scale=0.1,1"
    synthetic_sweep.write_sweep(folder, grids=(grid,))
    (folder / "figures" / "gamma_flips_x").mkdir(parents=True)  # else there is no such path
    before = beside(tmp_path, folder)
    drawn = figures.draw(folder)
    assert any("gamma_flips_x" in path.name for path in drawn)
    assert all(path.resolve().parent == folder / "figures" for path in drawn)
    assert beside(tmp_path, folder) == before


# Checkpoints


def changed(folder, change):
    """Its JSON files; a stranger can write any."""
    for path in folder.rglob("*"):
        if path.name in ("metadata", "_METADATA", "_CHECKPOINT_METADATA"):
            path.write_text(json.dumps(change(json.loads(path.read_text()))))


def renamed(content, name):
    """Every text in it replaced."""
    if isinstance(content, dict):
        return {key: renamed(value, name) for key, value in content.items()}
    if isinstance(content, list):
        return [renamed(value, name) for value in content]
    return name if isinstance(content, str) else content


def pickles(folder, trace, planted):
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.write_bytes(pickle.dumps(Trap(trace)))
        (path.parent / "checkpoint.pkl").write_bytes(pickle.dumps(Trap(trace)))


def names(folder, trace, planted):
    """In place of every text: of code, then of a file elsewhere."""
    changed(folder / "arrays", lambda content: renamed(content, f"{planted}.Handler"))
    changed(folder / "about", lambda content: renamed(content, f"../../../{trace.name}"))


def items(folder, trace, planted):
    """That it was not written with, of a handler of their own."""
    path = folder / "_CHECKPOINT_METADATA"
    handlers = dict.fromkeys(("arrays", "about", "../../escaped"), f"{planted}.Handler")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"item_handlers": handlers}))


@pytest.mark.long
@pytest.mark.parametrize("plant", [pickles, names, items])
def test_a_checkpoint_of_a_stranger(
    plant, command, stopped, copy, trace, planted, tmp_path, capsys
):
    """It counts as damaged, or what was changed does not matter; either way the run goes on."""
    folder = copy(stopped)
    plant(folder / "checkpoints" / "2", trace, planted)
    before = beside(tmp_path, folder)
    assert train.main([*command, "--out", str(folder)]) == 0
    assert beside(tmp_path, folder) == before
    assert planted not in sys.modules
    said = " ".join(capsys.readouterr().out.split())
    damaged = plant is not items
    assert ("checkpoint 2 is damaged" in said) == damaged
    steps = "" if damaged else " and 2 steps"
    assert f"resuming after epoch 0 of 2{steps};" in said


# What its JSON says, with the right checksum, and what is said of that.
ABOUTS = {
    "position": ('{"position": {"number": 1000000000}}', "nowhere in 2 epochs of 4 steps. Move it"),
    "no position": ('{"position": [1, 2]}', "nowhere in 2 epochs of 4 steps. Move it"),
    "config": ('{"config": "os:system"}', "is of another training: data is nothing there and"),
    "arrays": ('{"arrays": ["../x"]}', "is of another training: "),
}


@pytest.mark.parametrize("name", ABOUTS)
def test_a_checkpoint_that_says_what_no_run_says(name, stopped, copy, refused):
    folder, (said, message) = copy(stopped), ABOUTS[name]
    rewrite(folder, lambda about: about | json.loads(said))
    assert message in refused("--out", folder)


@pytest.mark.long
def test_a_checkpoint_that_does_not_say_of_what_members(command, stopped, copy, capsys):
    folder = copy(stopped)
    rewrite(folder, lambda about: about | {"members": {"ovsw": 0}})
    assert train.main([*command, "--out", str(folder)]) == 0


def rewrite(folder, change):
    path = folder / "checkpoints" / "2" / "about" / "metadata"
    text = json.dumps(change(json.loads(json.loads(path.read_text())["text"])))
    path.write_text(json.dumps({"text": text, "crc32": zlib.crc32(text.encode())}))
