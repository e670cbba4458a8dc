"""The benchmark of the input pipeline, with a clock that is counted by hand."""

import json
import os

import pytest

from benchmarks import input_pipeline
from experiments import data


@pytest.fixture
def folder(tmp_path):
    return input_pipeline.make_folder(tmp_path / "photographs", 6)


def test_both_ways_read_the_same_files(folder):
    streamed = data.load_streamed(str(folder), image_size=16, train_images=4)
    expected = {streamed._train.read(i).file for i in range(4)}
    assert {*input_pipeline.training_files(folder, 4)} == expected
    assert len(input_pipeline.training_files(folder, 100)) == 6


def test_table(folder, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    now = 0.0
    used = iter([0, 1, 0, 8, 0, 2, 0, 3, 0, 1, 0, 8, 0, 3, 0, 5])  # before and after each
    seconds = iter([4, 8, 2, 1, 2, 8, 4, 1])  # decoding, with crops, one worker, two; once more

    def clock():
        nonlocal now, started
        started = not started
        now += 0 if started else next(seconds)
        return now

    started = False
    monkeypatch.setattr(input_pipeline.time, "perf_counter", clock)
    monkeypatch.setattr(input_pipeline.time, "process_time", lambda: next(used))
    monkeypatch.setattr(input_pipeline, "_decode", len)
    monkeypatch.setattr(input_pipeline, "_crop", lambda files, size: len(files))
    file = tmp_path / "rates.json"
    input_pipeline.main(folder, 4, image_size=16, batch_size=2, repeats=2, json_file=file)
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("4 images of ")
    assert out[3:] == [
        "| decoding alone | 2 | 1.00 (1.00 to 1.00) | 250.00 | 1.00 (1.00 to 1.00) |",
        "| decoding, with crops | 0 | 0.38 (0.31 to 0.44) | 2000.00 | 8.00 (8.00 to 8.00) |",
        "| pipeline, 1 worker | 2 | 1.25 (0.88 to 1.62) | 625.00 | 2.50 (2.25 to 2.75) |",
        "| pipeline, 2 workers | 2 | 1.50 (1.25 to 1.75) | 1000.00 | 4.00 (3.50 to 4.50) |",
    ]
    written = json.loads(file.read_text())
    assert written["processor_seconds_an_image"]["pipeline, 1 worker"] == [0.5, 0.75]
    assert written["images_per_second_and_core"] == {
        "decoding alone": [1, 2],
        "decoding, with crops": [0.5, 0.5],
        "pipeline, 1 worker": [2, 1],
        "pipeline, 2 workers": [2, 2],
    }
