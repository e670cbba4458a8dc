"""python -m experiments.export: what is written, and what it says of it."""

import json

import numpy as np
import pytest

import ovsw_jax as ovsw
from experiments import data, train
from experiments.export.__main__ import main
from experiments.export.targets import TARGETS
from experiments.trained import load_trained


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short training; its name is no markup."""
    folder = tmp_path_factory.mktemp("runs") / "run [/bold]"
    arguments = ["--epochs", "1", "--seeds", "5", "--optimizers", "ovsw", "--train-images", "320"]
    assert train.main([*arguments, "--out", str(folder)]) == 0
    return folder


@pytest.mark.long
def test_each_target_answers_as_the_trained_network(run, tmp_path, capsys):
    main(run, out=tmp_path / "out")
    found = json.loads((tmp_path / "out" / "export.json").read_text())
    images = data.load("digits")
    top1 = np.mean(load_trained(run).predict(images.test_images) == images.test_labels)
    assert (found["top1"], found["images"]) == (pytest.approx(top1), 360)
    assert found["targets"].keys() == TARGETS.keys()
    for measured in found["targets"].values():
        if "not_checked" not in measured:  # no C compiler
            assert measured["differing"] <= 1
            assert measured["top1"] == pytest.approx(top1, abs=0.003)
        assert (tmp_path / "out" / measured["file"]).exists()
    size = (tmp_path / "out" / "net.safetensors").stat().st_size
    assert found["targets"]["file"]["bytes"] == size
    said = capsys.readouterr().out
    assert "[/bold]" in said
    assert f"{size:,}" in said
    frozen = ovsw.deploy.load(tmp_path / "out" / "net.safetensors")
    assert frozen.classes == images.classes


@pytest.mark.long
def test_what_is_missing_leaves_a_target_unchecked(run, monkeypatch, capsys):
    monkeypatch.setenv("CC", "no-such-compiler")
    main(run, to=("c",))
    found = json.loads((run / "export" / "export.json").read_text())["targets"]
    assert found.keys() == {"file", "c"}
    assert "no-such-compiler" in found["c"]["not_checked"]
    assert "C99: the C compiler 'no-such-compiler' did not start" in capsys.readouterr().out
    assert (run / "export" / "c" / "network.c").is_file()


@pytest.mark.parametrize(
    ("options", "error"),
    [({"to": ("onxx",)}, "onxx.*onnx"), ({}, "no export of .*: .*no run folder")],
)
def test_what_is_no_target_or_no_run(options, error, tmp_path):
    with pytest.raises(SystemExit, match=error):
        main(tmp_path, **options)
