"""The short programs of examples/, on what comes with the package."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ovsw_jax as ovsw
from experiments import data

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(monkeypatch, name, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_a_picture_is_classified(mode, tmp_path, monkeypatch, capsys):
    images = data.load("digits")
    three = np.flatnonzero(images.test_labels == 3)[0]
    picture = Image.fromarray(images.test_images[three, ..., 0]).convert(mode)
    picture.resize((99, 120)).save(tmp_path / "three.png")
    run(monkeypatch, "classify.py", tmp_path / "three.png")
    assert capsys.readouterr().out == "3\n"


@pytest.mark.long
def test_other_classes_are_learned_and_exported(tmp_path, monkeypatch, capsys):
    run(monkeypatch, "fine_tune.py", tmp_path)
    said = capsys.readouterr().out
    assert float(said.removeprefix("odd or even: ").split()[0]) > 95
    assert ovsw.deploy.load(tmp_path / "odd.safetensors").classes == ("even", "odd")
    assert (tmp_path / "odd.onnx").is_file()
