"""docs/guides/train.md: its tables are of runs in results/, its copies in examples/ are current.

Its Python runs in test_docs.py.
"""

import importlib.util
import json
from statistics import mean

import documents
import numpy as np
import pytest

PAGE = documents.DOCS / "guides" / "train.md"
STUDIES = documents.ROOT / "results" / "cpu"


def rows_below(sentence):
    """Cells of the first table below a sentence."""
    _, _, below = documents.text_of(PAGE).partition(sentence)
    lines = below[below.index("\n| ") :].strip().split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def records(study):
    text = (STUDIES / study / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def means(study, rule, epoch, name):
    """By the value of a rule's setting: the mean over seeds of a metric at an epoch."""
    found = {}
    for row in records(study):
        alone = all(value == 0 for key, value in row["point"].items() if key != rule)
        if row["epoch"] == epoch and name in row and alone and row["optimizer"] != "lars":
            found.setdefault(row["point"].get(rule, 0), []).append(row[name])
    return {value: mean(values) for value, values in found.items()}


def percent(text):
    return pytest.approx(float(text) / 100, abs=0.0005 + 1e-9)


def test_lam_as_measured():
    top1, never = (means("lars-ags", "lam", 10, n) for n in ("test_top1", "never_flipped_ratio"))
    flips = means("lars-ags", "lam", 1, "epoch_flip_ratio")
    ratio = means("lam-tau", "lam", 1, "grad_weight_ratio")[0]
    assert f"{ratio:.4f}" == "0.0116"
    assert "has a ratio of 0.0116" in " ".join(documents.text_of(PAGE).split())
    rows = rows_below("of 0.0116:")
    assert len(rows) == len(top1) == 7
    for row in rows:
        lam = float(row[0].removesuffix(" (SGD)"))
        assert float(row[1]) == pytest.approx(lam / ratio, abs=0.05)
        assert top1[lam] == percent(row[2])
        assert never[lam] == percent(row[3])
        assert flips[lam] == percent(row[4])
    best = max(top1.values())
    advised = {lam for lam in top1 if 5 <= lam / ratio <= 10}
    assert advised
    assert all(best - top1[lam] < 0.005 for lam in advised)
    assert all(best - top1[lam] > 0.03 for lam in top1 if lam / ratio < 2)


def test_tau_as_measured():
    top1, never = (means("lam-tau", "tau", 10, n) for n in ("test_top1", "never_flipped_ratio"))
    config = json.loads((STUDIES / "lam-tau" / "config.json").read_text())
    steps = max(row["step"] for row in records("lam-tau"))
    # A cosine from the top rate to zero, behind a warm-up: half of the rate in the mean.
    rates = config["learning_rate"] * steps / 2
    rows = rows_below("n = 3, 1,250 steps):")
    assert steps == 1250
    assert len(rows) == len(top1) == 4
    for row in rows:
        tau = float(row[0].removesuffix(" (SGD)"))
        assert row[1] == f"{tau * rates / (1 - config['momentum']):.2g}"
        assert top1[tau] == percent(row[2])
        assert never[tau] == percent(row[3])
    advised = 5 * (1 - config["momentum"]) / rates
    assert max(top1, key=top1.get) == min(
        top1, key=lambda tau: abs(np.log((tau or 1e-9) / advised))
    )


def test_copies_are_of_the_page():
    file = documents.ROOT / "examples" / "build.py"
    spec = importlib.util.spec_from_file_location("build", file)
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    for name, text in build.built().items():
        assert file.with_name(name).read_text(encoding="utf-8") == text, "run examples/build.py"
        assert text.count("ovsw.inspect(") == 1
