"""python -m experiments.runs: what it lists, keeps and names."""

import json
import re

import numpy as np
import pytest
import tyro
from synthetic_run import read_rows, write_rows, write_run
from synthetic_sweep import LARS_AGS, write_sweep

from experiments import runs
from experiments.report.html.document import unpacked
from experiments.report.listing import find, kept, lines, parse_conditions


@pytest.fixture
def folder(tmp_path):
    """Three runs, one of them below another folder, a broken one, and two that hold no run."""
    root = tmp_path / "all"
    write_run(root / "a", epochs=3, seeds=(0, 1))
    write_run(root / "deep" / "b", epochs=4, seeds=(0,), learning_rate=0.3, held_out=90)
    write_sweep(root / "sweep", LARS_AGS, epochs=2, seeds=(0,))
    (root / "broken").mkdir()
    (root / "broken" / "config.json").write_text("{")
    (root / "broken" / "metrics.jsonl").write_text("")
    (root / "foreign").mkdir()
    (root / "foreign" / "notes.txt").write_text("no run")
    (root / "a" / "checkpoints").mkdir()
    return root


def rows_of(shown):
    return {(line.name, line.arm): line.cells for line in shown}


def test_runs_are_found_at_any_depth_and_the_rest_is_named(folder):
    found = find(folder)
    assert list(found.runs) == ["a", "deep/b", "sweep"]
    broken, foreign = found.unread
    assert re.match(r"broken: .*config.json is not valid JSON", broken)
    assert foreign == "foreign: holds no run"
    assert list(find(folder / "a").runs) == ["a"]  # a run itself
    assert find(folder / "a").unread == []
    with pytest.raises(ValueError, match="is no folder: give one that holds run folders"):
        find(folder / "none")


def test_a_row_holds_means_and_deviations(folder):
    shown = rows_of(lines(find(folder)))
    last = [r for r in read_rows(folder / "a") if (r["optimizer"], r["epoch"]) == ("ovsw", 3)]
    cells = shown["a", "ovsw"]
    for cell, metric in zip(cells[3:5], ("test_top1", "never_flipped_ratio"), strict=True):
        values = 100 * np.array([r[metric] for r in last])
        assert cell == f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"
    assert cells[:3] == ("a", "OvSW", "3")
    assert cells[5:] == ("2", "held_out 0, learning_rate 0.1")
    assert shown["deep/b", "sgd"][6] == "held_out 90, learning_rate 0.3"


def test_a_sweep_shows_its_best_setting_of_each_optimizer(folder):
    shown = rows_of(lines(find(folder)))
    top1 = {}
    for row in read_rows(folder / "sweep"):
        if row["epoch"] == 2 and row["optimizer"] == "ags":
            top1[row["point"]["lam"]] = row["test_top1"]
    best = max(top1, key=top1.get)
    (cells,) = (c for (name, arm), c in shown.items() if name == "sweep" and "ags" in arm)
    assert cells[1] == f"SGD + AGS, lam {best:g} (best of 6)"


def test_unfinished_runs_say_how_far_they_came(folder):
    write_rows(folder / "a", [r for r in read_rows(folder / "a") if r["epoch"] < 3])
    found = find(folder)
    assert rows_of(lines(found))["a", "sgd"][2] == "2 of 3"
    assert list(kept(found, {}, (), finished=True).runs) == ["deep/b", "sweep"]


@pytest.mark.parametrize(
    ("conditions", "names"),
    [
        (["learning_rate=0.3"], ["deep/b"]),
        (["learning_rate=3e-1", "epochs=4"], ["deep/b"]),
        (["learning_rate=0.3", "epochs=3"], []),
        (["data=digits"], ["a", "deep/b", "sweep"]),
        (["seeds=1"], ["a"]),
        (["seeds=0, 1"], ["a"]),
        (["lam=0.04"], ["a", "deep/b", "sweep"]),  # the default, of folders that lack the field
        (["teacher=none"], ["a", "deep/b", "sweep"]),
        (["augment=no"], ["a", "deep/b", "sweep"]),
    ],
)
def test_conditions_on_the_config(folder, conditions, names):
    assert list(kept(find(folder), parse_conditions(conditions), (), False).runs) == names


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("epochs", "--where epochs is no condition: give FIELD=VALUE"),
        ("epoch=3", "field 'epoch' is unknown. Did you mean 'epochs'"),
    ],
)
def test_conditions_that_are_none(condition, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_conditions([condition])


def test_optimizers_choose_runs_and_rows(folder):
    found = kept(find(folder), {}, ("ovsw",), finished=False)
    assert list(found.runs) == ["a", "deep/b"]
    assert list(rows_of(lines(found, ("ovsw",)))) == [("a", "ovsw"), ("deep/b", "ovsw")]


def test_rows_by_top1(folder):
    shown = lines(find(folder), by_top1=True)
    means = [float(line.cells[3].split(" ")[0]) for line in shown]
    assert means == sorted(means, reverse=True)
    assert len(shown) == 7


def command(*arguments):
    tyro.cli(runs.main, args=list(map(str, arguments)))


def test_the_command_prints_a_table(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    command(folder, "--where", "data=digits", "--sort", "top1")
    printed = capsys.readouterr().out
    assert all(len(line) <= 80 for line in printed.splitlines() if line.startswith("│"))
    assert "deep/b: held_out 90, learning_rate 0.3" in printed
    assert "not read: foreign: holds no run" in printed
    command(folder, "--where", "epochs=99")
    assert f"no run in {folder} fits" in capsys.readouterr().out.replace("\n", "")
    with pytest.raises(SystemExit, match=r"error: .* is no folder"):
        command(folder / "none")
    with pytest.raises(SystemExit, match="error: field 'epoch' is unknown"):
        command(folder, "--where", "epoch=3")


def test_a_page_shows_the_curves_over_each_other(folder, capsys):
    page = folder / "runs.html"
    command(folder, "--html", page)
    assert str(page) in capsys.readouterr().out.replace("\n", "")
    data = unpacked(page.read_text())
    assert [row[0] for row in data["table"]["rows"]].count("sweep") == 3
    assert data["unread"] == find(folder).unread
    top1 = next(c for c in data["curves"] if c["title"] == "Held-out top-1 or test top-1")
    names = [data["arms"][line["arm"]]["name"] for line in top1["lines"]]
    assert names[:3] == ["a: SGD", "a: OvSW", "deep/b: SGD"]
    rows = [r for r in read_rows(folder / "deep" / "b") if r["optimizer"] == "sgd"]
    line = top1["lines"][2]
    assert line["mean"] == [round(100 * r["test_top1"], 2) for r in rows]
    assert line["std"] is None  # of one seed


def test_markup_in_names_is_text(tmp_path, capsys):
    write_run(tmp_path / "all" / "[red]x[", epochs=1, data="<b>", optimizers=("[bold]",))
    command(tmp_path / "all", "--html", tmp_path / "x.html")
    assert "[red]x[" in capsys.readouterr().out
    page = (tmp_path / "x.html").read_text()
    assert "<b>" not in page
    assert "<b>" not in json.dumps(unpacked(page)["title"])


def test_a_folder_without_runs_is_no_error(tmp_path, capsys):
    command(tmp_path)
    assert "no run in" in capsys.readouterr().out
