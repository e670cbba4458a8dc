"""The summary of a run: right numbers, from any run that finished an epoch, on one page."""

import io
import json
import math
import re
import statistics

import hypothesis
import hypothesis.strategies as st
import pytest
import synthetic_run
from rich.console import Console

from experiments.report import summary
from experiments.run import reader
from experiments.sweep.arms import arms_of

HEAD = "| optimizer | top-1 % | never flipped % | silent % |\n| --- | ---: | ---: | ---: |\n"


def row(optimizer, seed, epoch, top1, never=0.5, silent=0.5):
    measured = {"test_top1": top1, "never_flipped_ratio": never, "silent_ratio": silent}
    return {"optimizer": optimizer, "seed": seed, "epoch": epoch, "loss": 1.0} | measured


def two_seeds(optimizer, epochs=2):
    return [
        row(optimizer, seed, epoch, top1 - 0.1 * (epochs - epoch), never=0.8, silent=0.25)
        for epoch in range(1, epochs + 1)
        for seed, top1 in ((0, 0.90), (1, 0.92))
    ]


def hand_made(folder, rows, tail="", **config):
    folder.mkdir(exist_ok=True)
    settings = {"data": "digits", "network": "small", "optimizers": ["sgd", "ovsw"]}
    settings |= {"seeds": [0, 1], "epochs": 2} | config
    (folder / "config.json").write_text(json.dumps(settings))
    text = "".join(json.dumps(line) + "\n" for line in rows) + tail
    (folder / "metrics.jsonl").write_text(text)
    return folder


# --- table


def test_table_gives_mean_sample_std_and_n_of_the_last_epoch(tmp_path):
    folder = hand_made(tmp_path, two_seeds("ovsw") + two_seeds("sgd"))
    # std of 90 and 92 with n - 1 is sqrt(2); with n it would be 1.0. Order as in the config.
    line = "91.0 ± 1.4 (n = 2) | 80.0 ± 0.0 (n = 2) | 25.0 ± 0.0 (n = 2) |\n"
    assert summary.table(folder) == f"{HEAD}| SGD | {line}| OvSW | {line}"


def test_table_of_a_run_and_of_its_summary_file_are_the_same(tmp_path):
    folder = synthetic_run.write_run(tmp_path, optimizers=("sad", "ags", "bop"), epochs=3)
    summary.write_summary(folder)
    loaded = json.loads((folder / "summary.json").read_text())
    assert summary.table(loaded) == summary.table(folder)
    names = re.findall(r"^\| ([^|]*) \|", summary.table(folder), re.MULTILINE)
    assert names == ["optimizer", "---", "SGD + SAD", "SGD + AGS", "Bop"]


def test_one_seed_has_no_std():
    result = {"top1": [0.5], "never_flipped": [0.25], "silent": [1.0]}
    expected = HEAD + "| SGD | 50.0 (n = 1) | 25.0 (n = 1) | 100.0 (n = 1) |\n"
    assert summary.table({"sgd": result}) == expected


@hypothesis.given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_spread_agrees_with_the_statistics_module(fractions):
    shown = re.fullmatch(r"(.+) ± (.+) \(n = (\d+)\)", summary.spread(fractions))
    mean, std, n = (float(group) for group in shown.groups())
    assert n == len(fractions)
    assert math.isclose(mean, 100 * statistics.mean(fractions), abs_tol=0.0501)
    assert math.isclose(std, 100 * statistics.stdev(fractions), abs_tol=0.0501)


def test_the_terminal_shows_the_same_numbers(tmp_path):
    folder = hand_made(tmp_path, two_seeds("sgd") + two_seeds("ovsw", epochs=1))
    out = io.StringIO()
    summary.print_table(folder, Console(file=out, width=80))
    numbers = ("91.0 ± 1.4 (n = 2)", "80.0 ± 0.0 (n = 2)")
    for text in ("SGD", *numbers, "never flipped %", "unfinished"):
        assert text in out.getvalue()


# --- summary.json and summary.md


def reached(folder, optimizer, seed, sgd):
    """Share of 4 epochs until the seed is at the mean of SGD's rows; None if it never is."""
    level = statistics.mean(line["test_top1"] for line in sgd)
    epochs = [
        line["epoch"]
        for line in synthetic_run.read_rows(folder)
        if (line["optimizer"], line["seed"]) == (optimizer, seed) and line["test_top1"] >= level
    ]
    return min(epochs) / 4 if epochs else None


def test_summary_json_holds_the_last_epoch_of_every_seed(tmp_path):
    folder = synthetic_run.write_run(tmp_path, epochs=4)
    returned = summary.write_summary(folder)
    written = json.loads((folder / "summary.json").read_text())
    assert written == returned
    assert list(written) == ["sgd", "ovsw"]
    ends = [line for line in synthetic_run.read_rows(folder) if line["epoch"] == 4]
    sgd = [line for line in ends if line["optimizer"] == "sgd"]
    for optimizer, result in written.items():
        last = [line for line in ends if line["optimizer"] == optimizer]
        assert result == {
            "top1": [line["test_top1"] for line in last],
            "never_flipped": [line["never_flipped_ratio"] for line in last],
            "silent": [line["silent_ratio"] for line in last],
            "seeds": [0, 1, 2],
            "epochs": 4,
            "finished": True,
            "sgd_top1": pytest.approx(statistics.mean(line["test_top1"] for line in sgd)),
            "to_match_sgd": [reached(folder, optimizer, seed, sgd) for seed in (0, 1, 2)],
        }


def test_summary_md_is_one_page_with_table_figures_command_config_and_versions(tmp_path):
    folder = synthetic_run.write_run(tmp_path, epochs=3, schedule={"name": "cosine", "warm_up": 5})
    (folder / "figures").mkdir()
    for name in ("headline", "flips", "never_flipped", "never_flipped_sgd"):
        (folder / "figures" / f"{name}.png").touch()
    summary.write_summary(folder)
    page = (folder / "summary.md").read_text()
    assert page.startswith("# SGD and OvSW on digits\n")
    assert summary.table(folder) in page
    embedded = re.findall(r"!\[[^\]]+\]\(figures/(\w+)\.png\)", page)
    assert embedded == ["headline", "flips", "never_flipped"]  # no link to a missing figure
    assert "[never_flipped_sgd.png](figures/never_flipped_sgd.png)" in page
    assert "\n    python -m experiments.train\n" in page
    for text in ("data = digits", "optimizers = sgd ovsw", "batch_size = 64", "jax = 0.10.2"):
        assert text in page
    assert "schedule = (name = cosine, warm_up = 5)" in page
    assert "Interrupted" not in page
    assert "Note:" not in page


def test_a_run_without_versions_or_figures_has_a_page_too(tmp_path):
    folder = hand_made(tmp_path, two_seeds("sgd") + two_seeds("ovsw"))
    summary.write_summary(folder)
    page = (folder / "summary.md").read_text()
    assert not any(text in page for text in ("Versions", "![", "Command"))


# --- unfinished runs


def test_an_interrupted_run_says_so(tmp_path):
    rows = two_seeds("sgd", epochs=1)
    folder = hand_made(tmp_path, rows, epochs=5, optimizers=["sgd", "ovsw", "ags"])
    written = summary.write_summary(folder)
    page = (folder / "summary.md").read_text()
    assert written["sgd"]["finished"] is False
    assert written["sgd"]["epochs"] == 1
    assert "**Interrupted: SGD got as far as epoch 1 of 5.**" in page
    assert "**Interrupted: OvSW finished no epoch.**" in page
    assert "**Interrupted: SGD + AGS finished no epoch.**" in page
    assert "| SGD (unfinished: 2 seeds, epoch 1) | 91.0" in page


def test_a_seed_that_had_just_begun_does_not_cut_the_others_short(tmp_path):
    rows = [row("sgd", 0, epoch, 0.9) for epoch in range(1, 31)]
    rows += [row("sgd", 1, epoch, 0.1) for epoch in range(1, 4)]
    folder = hand_made(tmp_path, rows, epochs=30)
    written = summary.write_summary(folder)["sgd"]
    assert (written["top1"], written["seeds"], written["epochs"]) == ([0.9], [0], 30)
    assert written["finished"] is False
    page = (folder / "summary.md").read_text()
    assert "Note: seed 1 of SGD left out: it stopped at epoch 3." in page
    assert "**Interrupted: SGD got as far as 1 of 2 seeds.**" in page


@hypothesis.given(st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_the_block_read_is_the_largest_one(lengths):
    rows = [
        reader.Row("sgd", seed, epoch, {}, {})
        for seed, length in enumerate(lengths)
        for epoch in range(1, length + 1)
    ]
    arms = {"sgd": arms_of([("sgd", {})], {})[0]}
    blocks, notes = reader._largest_block(reader._by_seed(rows, ["sgd"] * len(rows)), arms)
    sizes = {len(by_seed) for by_seed in blocks["sgd"].values()}
    assert len(sizes) == 1
    best = max(end * sum(length >= end for length in lengths) for end in lengths)
    assert sizes.pop() * len(blocks["sgd"]) == best
    assert bool(notes) == (best < len(rows))


@pytest.mark.parametrize("cut", [1, 30, 100, "within a character"])
def test_a_cut_off_last_line_is_dropped_and_noted(tmp_path, cut):
    rows = two_seeds("sgd", epochs=3)
    folder = hand_made(tmp_path, rows[:-1], epochs=3)
    tail = (
        '{"host": "é'.encode()[:-1] if isinstance(cut, str) else json.dumps(rows[-1]).encode()[:cut]
    )
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(tail)
    written = summary.write_summary(folder)
    # Epoch 3 has lost seed 1, so that epoch 2 is the last one with both seeds.
    assert written["sgd"]["epochs"] == 2
    assert len(written["sgd"]["top1"]) == 2
    page = (folder / "summary.md").read_text()
    assert "Note: line 6 of metrics.jsonl is cut off (a killed run): dropped." in page
    assert "Note: SGD is taken at epoch 2, the last one that all its seeds finished." in page


def test_a_repeated_epoch_counts_once_and_the_later_one_counts(tmp_path):
    again = [row("sgd", seed, 2, 0.5) for seed in (0, 1)]
    folder = hand_made(tmp_path, two_seeds("sgd") + again)
    assert summary.write_summary(folder)["sgd"]["top1"] == [0.5, 0.5]


# --- bad run folders


def test_no_run_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json does not exist, so .* is not a run"):
        summary.table(tmp_path)


@pytest.mark.parametrize("text", ["", "\n\n", '{"optimizer": "sg'])
def test_no_finished_epoch(tmp_path, text):
    folder = hand_made(tmp_path, [], tail=text)
    with pytest.raises(ValueError, match=r"holds no finished epoch.*train for at least one epoch"):
        summary.write_summary(folder)
    assert not (folder / "summary.json").exists()


FRACTIONS = (97.5, -0.1, float("nan"), None, "0.5")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"optimizer": "sgd", ', "is not valid JSON"),
        ('{"optimizer": "sgd", "epoch": 1}', "lacks seed, never_flipped_ratio, silent_ratio: each"),
        ("[1, 2]", "holds a list, it must hold a JSON object"),
        *(
            (json.dumps(row("sgd", 0, 1, value)), ": test_top1 is .*, it must be a fraction")
            for value in FRACTIONS
        ),
    ],
)
def test_a_row_that_no_run_writes(tmp_path, line, message):
    folder = hand_made(tmp_path, two_seeds("sgd"))
    first, *others = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text("\n".join([first, line, *others]))
    with pytest.raises(ValueError, match=rf"line 2 of .*metrics\.jsonl ?{message}"):
        summary.table(folder)


# --- records


def test_series_of_a_metric_that_rows_lack_is_nan(tmp_path):
    run = reader.read_run(hand_made(tmp_path, two_seeds("sgd")))
    epochs, values = run.series("sgd", "grad_weight_ratio")
    assert list(epochs) == [1, 2]
    assert values.shape == (2, 2)
    assert all(math.isnan(value) for value in values.ravel())


def test_a_config_with_other_fields_is_fine(tmp_path):
    folder = hand_made(tmp_path, two_seeds("sgd"), seeds=2, epochs=None, mystery=[{"a": 1}])
    run = reader.read_run(folder)
    assert run.finished("sgd")  # nothing says that more was planned
    assert "mystery = (a = 1)" in summary.page(run)


def test_the_command_writes_the_summary_and_prints_the_table(tmp_path, capsys):
    folder = synthetic_run.write_run(tmp_path / "run", epochs=2)
    summary.main(folder)
    assert "OvSW" in capsys.readouterr().out
    assert (folder / "summary.md").exists()
    with pytest.raises(SystemExit, match=r"no summary of .*nothing: .*not a run folder"):
        summary.main(tmp_path / "nothing")
