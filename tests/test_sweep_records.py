"""Sweeps read back: arms, their names, and what was evaluated; and their summary."""

import io
import json
import statistics

import pytest
import synthetic_run
import synthetic_sweep
from figure_readings import values_of
from rich.console import Console

from experiments import optimizers
from experiments.figures import style
from experiments.report import epochs_to_match, summary
from experiments.run.reader import TOP1, read_run

LAM_TAU = "optimizer=ovsw lam=0.01,0.04 tau=0.0001,0.0009"


def edit(folder, change):
    """Writes the rows back as `change` returns them; those it returns None for are left out."""
    rows = [change(row) for row in synthetic_run.read_rows(folder)]
    synthetic_run.write_rows(folder, [row for row in rows if row is not None])


# --- arms


def test_an_arm_is_an_optimizer_at_a_point_and_named_by_what_varies(tmp_path):
    run = read_run(synthetic_sweep.write_sweep(tmp_path, ["optimizer=sgd", LAM_TAU], epochs=1))
    points = [f"ovsw lam={lam} tau={tau}" for lam in (0.01, 0.04) for tau in (0.0001, 0.0009)]
    assert run.arms == ["sgd", *points]
    assert run.name("ovsw lam=0.04 tau=0.0009") == "OvSW, lam 0.04, tau 0.0009"
    assert run.name("sgd") == "SGD"
    assert run.optimizers == ["sgd", "ovsw"]
    assert run.varied("ovsw") == ("lam", "tau")
    assert run.varied("sgd") == ()
    assert run.known_arms["ovsw lam=0.01 tau=0.0009"].point == {"lam": 0.01, "tau": 0.0009}
    assert run.is_sweep


def test_one_point_an_optimizer_is_a_plain_comparison(tmp_path):
    grids = ["optimizer=sgd learning_rate=0.3", "optimizer=ovsw lam=0.1 tau=0.001"]
    run = read_run(synthetic_sweep.write_sweep(tmp_path, grids, epochs=1))
    assert run.arms == ["sgd", "ovsw"]
    assert not run.is_sweep
    assert run.known_arms["ovsw"].settings["lam"] == 0.1


def test_a_field_that_a_point_lacks_has_the_value_of_the_config(tmp_path):
    folder = synthetic_sweep.write_sweep(
        tmp_path, ["optimizer=ovsw", "optimizer=ovsw lam=0.1"], epochs=1, lam=0.04
    )
    assert read_run(folder).arms == ["ovsw lam=0.04", "ovsw lam=0.1"]


def test_words_and_numbers_and_a_run_of_rows_alone(tmp_path):
    folder = synthetic_sweep.write_sweep(
        tmp_path, ["optimizer=sgd init=normal,uniform init_scale=1e-4,1000"], epochs=1
    )
    settings = json.loads((folder / "config.json").read_text()) | {"grids": [], "optimizers": []}
    (folder / "config.json").write_text(json.dumps(settings))
    run = read_run(folder)
    assert run.arms[0] == "sgd init=normal init_scale=0.0001"
    assert run.name(run.arms[3]) == "SGD, init uniform, gamma 1000"
    assert run.planned_arms == []


@pytest.mark.parametrize("point", [[1], {"lam": None}, {"lam": float("nan")}, {"lam": True}])
def test_a_point_that_no_run_writes(tmp_path, point):
    folder = synthetic_sweep.write_sweep(tmp_path, [LAM_TAU], epochs=1)
    edit(folder, lambda row: row | {"point": point})
    with pytest.raises(ValueError, match=r"line 1 of .*: point is .*, it must be an object of"):
        read_run(folder)


def test_names_of_all_seven_optimizers_and_looks_of_their_own():
    names = ["sgd", "adam", "lars", "bop", "ags", "sad", "ovsw"]
    assert [optimizers.display_name(name) for name in names] == [
        "SGD", "Adam", "LARS", "Bop", "SGD + AGS", "SGD + SAD", "OvSW",
    ]  # fmt: skip
    looks = style.looks([*names, "one", "two", "three"]).values()
    for trait in ("color", "linestyle", "marker", "hatch"):
        assert len({getattr(look, trait) for look in looks}) == 10


# --- epochs without top-1


def test_top1_is_taken_where_it_was_evaluated(tmp_path):
    folder = synthetic_sweep.write_sweep(tmp_path, [LAM_TAU], epochs=7, evaluate_every=3)
    run = read_run(folder)
    arm = run.arms[0]
    epochs, values = run.series(arm, TOP1)
    assert list(epochs) == [3, 6, 7]
    assert values.shape == (3, 3)
    assert run.series(arm, "loss")[1].shape == (3, 7)
    assert run.top1_epoch(arm) == 7
    edit(folder, lambda row: row if row["epoch"] < 6 else None)
    run = read_run(folder)
    assert (run.top1_epoch(arm), run.last_epoch(arm)) == (3, 5)
    rows = [r for r in synthetic_run.read_rows(folder) if r["point"] == run.known_arms[arm].point]
    assert run.final(arm, TOP1) == [r["test_top1"] for r in rows if r["epoch"] == 3]
    assert run.final(arm, "silent_ratio") == [r["silent_ratio"] for r in rows if r["epoch"] == 5]
    result = summary.write_summary(folder)[arm]
    assert (result["epochs"], result["top1_epoch"]) == (5, 3)
    page = (folder / "summary.md").read_text()
    assert "(unfinished: 3 seeds, epoch 5, top-1 of epoch 3) | " in page


def test_top1_that_was_never_evaluated_is_not_yet_known(tmp_path):
    folder = synthetic_sweep.write_sweep(tmp_path, [LAM_TAU], epochs=7, evaluate_every=7)
    edit(folder, lambda row: row if row["epoch"] < 6 else None)
    result = summary.write_summary(folder)
    assert all(found["top1"] == [None, None, None] for found in result.values())
    assert (folder / "summary.md").read_text().count("| not yet |") == 4
    assert "NaN" not in (folder / "summary.json").read_text()


# --- summary


def test_the_table_of_a_sweep_has_a_row_a_setting_and_the_best_in_bold(tmp_path):
    folder = synthetic_sweep.write_sweep(tmp_path, ["optimizer=sgd", LAM_TAU], epochs=2)
    lines = summary.table(folder).splitlines()
    assert lines[0] == "| setting | top-1 % | never flipped % | silent % | n |"
    assert len(lines) == 2 + 5
    values = values_of(folder, "ovsw", {"lam": 0.04, "tau": 0.0009}, "test_top1", 2)
    shown = f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"
    assert lines[-1].startswith(f"| **OvSW, lam 0.04, tau 0.0009** | **{shown}** | ")
    assert lines[-1].endswith(" | 3 |")
    assert lines[2].startswith("| SGD | ")  # nothing to be the best of
    written = json.loads(json.dumps(summary.write_summary(folder)))
    assert summary.table(written).splitlines() == lines


def test_a_hundred_settings_take_a_line_each_on_the_terminal(tmp_path):
    grid = "optimizer=ovsw lam=" + ",".join(str(i / 100) for i in range(1, 101))
    folder = synthetic_sweep.write_sweep(tmp_path, [grid], epochs=1, layers=("a",))
    out = io.StringIO()
    summary.print_table(folder, Console(file=out, width=80))
    assert sum("OvSW, lam" in line for line in out.getvalue().splitlines()) == 100
    assert len(out.getvalue().splitlines()) < 110


def test_the_page_of_a_stopped_sweep_counts_its_settings(tmp_path):
    folder = synthetic_sweep.write_sweep(tmp_path, [synthetic_sweep.GAMMA_GRID], epochs=3)
    rows = synthetic_run.read_rows(folder)
    settings = list(dict.fromkeys((r["optimizer"], str(r["point"])) for r in rows))

    def cut(row):
        number = settings.index((row["optimizer"], str(row["point"])))
        return row if number < 10 or (number < 15 and row["epoch"] < 3) else None

    edit(folder, cut)
    summary.write_summary(folder)
    page = (folder / "summary.md").read_text()
    assert page.startswith("# SGD, 15 of 32 settings, on digits\n")
    counts = "of 32 settings 10 are finished, 5 came part of the way and 17 finished no epoch"
    assert f"**Interrupted: {counts}.**" in page
    assert "UNFINISHED: 10 of 32 settings done" in style.run_title(read_run(folder))


def test_diverged_seeds_are_counted(tmp_path):
    folder = synthetic_sweep.write_sweep(
        tmp_path,
        ["optimizer=sgd learning_rate=0.1,9"],
        epochs=2,
        diverging=lambda _, point: point["learning_rate"] == 9,
    )
    result = summary.write_summary(folder)
    assert result["sgd learning_rate=9"]["diverged_seeds"] == [0, 1, 2]
    assert "diverged_seeds" not in result["sgd learning_rate=0.1"]
    assert "| SGD, lr 9 (3 diverged) | 10.0 ± 0.0 |" in (folder / "summary.md").read_text()


def test_held_out_images_are_named(tmp_path):
    folder = synthetic_sweep.write_sweep(tmp_path, [LAM_TAU], epochs=1, held_out=5000)
    summary.write_summary(folder)
    said = "Top-1 is on 5,000 training images that were kept from training"
    assert said in (folder / "summary.md").read_text()
    assert style.top1_label(read_run(folder)) == "Held-out top-1 (%)"


# --- reaching SGD


def test_share_of_the_training_until_sgd_s_final_mean(tmp_path):
    top1 = {  # by optimizer, seed and epoch
        "sgd": ([0.1, 0.2, 0.55, 0.4], [0.1, 0.2, 0.3, 0.6]),
        "ovsw": ([0.5, 0.4, 0.4, 0.8], [0.1, 0.49, 0.2, 0.3]),
    }
    folder = synthetic_run.write_run(tmp_path, seeds=(0, 1), epochs=4, latents=False)
    edit(folder, lambda r: r | {"test_top1": top1[r["optimizer"]][r["seed"]][r["epoch"] - 1]})
    run = read_run(folder)
    assert epochs_to_match.level(run, "ovsw") == pytest.approx(0.5)
    assert epochs_to_match.shares(run, "ovsw") == [0.25, None]
    assert epochs_to_match.shares(run, "sgd") == [0.75, 1.0]
    written = summary.write_summary(folder)["ovsw"]
    assert written["to_match_sgd"] == [0.25, None]
    page = (folder / "summary.md").read_text()
    assert "| OvSW | 50.0 ± 14.1 | 25.0 (n = 1), 1 of 2 seeds |" in page
    assert "| SGD | 50.0 ± 14.1 | 87.5 ± 17.7 (n = 2) |" in page


def test_nothing_is_compared_with_an_unfinished_sgd(tmp_path):
    folder = synthetic_run.write_run(tmp_path, epochs=3, latents=False)
    edit(folder, lambda r: r if r["optimizer"] == "ovsw" or r["epoch"] < 3 else None)
    run = read_run(folder)
    assert epochs_to_match.level(run, "ovsw") is None
    assert epochs_to_match.shares(run, "ovsw") == [None, None, None]
    assert "to_match_sgd" not in summary.summarise(run)["ovsw"]


def test_in_a_sweep_each_setting_is_compared_with_sgd_at_the_same_one(tmp_path):
    run = read_run(
        synthetic_sweep.write_sweep(tmp_path, ["optimizer=sgd,ovsw init_scale=0.1,1"], epochs=2)
    )
    assert epochs_to_match.reference(run, "ovsw init_scale=1") == "sgd init_scale=1"
    assert epochs_to_match.reference(run, "sgd init_scale=0.1") == "sgd init_scale=0.1"


def test_settings_of_different_fields_are_not_compared(tmp_path):
    grids = ["optimizer=sgd learning_rate=0.1,0.3", LAM_TAU]
    run = read_run(synthetic_sweep.write_sweep(tmp_path, grids, epochs=2))
    assert all(epochs_to_match.reference(run, arm) is None for arm in run.arms)
