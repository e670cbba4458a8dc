"""The benchmark of compilers, with a worker that answers at once."""

import json
import os
import subprocess

import jax
import pytest
from longer import long_but

from benchmarks.accelerators import __main__ as benchmark
from benchmarks.accelerators import cells, key, programs
from benchmarks.accelerators.programs import NETWORKS, Program
from benchmarks.accelerators.readings import Cell, Readings
from experiments.accelerators import Target, environments

CELL = Cell("h100", Program("small", "ours", "sgd", "bfloat16"))


def answer(program, temporaries=30e6, kernels=60, error=None):
    """What a worker says of a program."""
    row = {"kind": "signs", "source": "ge in sign", "count": 2, "cycles": 0, "bytes": 7 * 10**9}
    reading = {
        "arguments": 10e6,
        "temporaries": temporaries,
        "output": 0,
        "alias": 0,
        "moved": 8 * 10**9,
        "flops": 0,
        "cycles": 0,
        "kernels": kernels,
        "collectives": {"all-reduce": {"count": 3, "bytes": 4e6}},
        "kinds": {"signs": 140 * 10**9},
        "where": [row],
    }
    common = {"name": "-".join(program), "key": "today", "seconds_to_compile": 1}
    if error:
        return common | {"error": error}
    return common | {
        "devices": 1,
        "reading": reading,
        "versions": {"jax": "0.10.2"},
        "date": "2030-01-02",
    }


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What workers are asked for; ours are answered with half of plain's temporaries."""
    found = []

    def lines_of(platform, arguments):
        target, programs = arguments[-2], json.loads(arguments[-1])
        found.append((platform, target, programs))
        for program, known in programs:
            if known == "today":
                yield json.dumps({"name": "-".join(program), "key": known}) + "\n"
                continue
            temporaries = 15e6 if program[1] == "ours" else 30e6
            kernels = 70 if program[2] == "ovsw" else 60
            yield json.dumps(answer(program, temporaries, kernels)) + "\n"

    monkeypatch.setattr(environments, "lines_of", lines_of)
    monkeypatch.setattr(environments, "make", lambda platforms: None)
    return found


def run(tmp_path, **options):
    chosen = {"targets": ("h100",), "networks": ("small",), "dtypes": ("bfloat16",), "pods": ()}
    return benchmark.main(**chosen | options, out=tmp_path / "out")


def test_tables(asked, tmp_path):
    assert run(tmp_path) == []
    text = (tmp_path / "out" / "tables.md").read_text()
    assert "nothing\nran" in text
    assert "1 device; jax 0.10.2; 2030-01-02." in text
    steps = "| small | bfloat16 | training | ovsw | ours | 10 | 15 | 8.00 | 70 | 3 | 4.0 |"
    assert steps in text
    assert "| small | bfloat16 | training | adam | ours |  | 0.50 | 1.00 | 1.00 |" in text
    assert "| small | bfloat16 |  | +0.0 | +0.0 | +10 |" in text
    assert "| signs | 140.00 | 140.00 |" in text


def test_a_second_call_names_what_was_read(asked, capsys, tmp_path):
    run(tmp_path, codes=("plain",))
    run(tmp_path)
    before = (tmp_path / "out" / "readings.json").read_text()
    run(tmp_path)
    assert "small-plain-sgd-bfloat16-training: as it was read before" in capsys.readouterr().out
    assert (tmp_path / "out" / "readings.json").read_text() == before
    run(tmp_path, codes=("plain",), optimizers=("adam",), phases=("training",), fresh=True)
    known = [{program[1]: key for program, key in programs} for _, _, programs in asked]
    assert known[:2] == [{"plain": None}, {"ours": None, "remat": None, "plain": "today"}]
    assert set(known[2].values()) == {"today"}
    adam = ["small", "plain", "adam", "bfloat16", "training"]
    assert asked[-1] == ("cuda", "h100", [[adam, None]])


def test_a_reading_takes_the_place_of_an_older_one(tmp_path):
    file = tmp_path / "readings.json"
    kept = Readings(file)
    assert kept.key(CELL) is None
    for kernels in (60, 61):
        kept.put(CELL, answer(CELL.arguments, kernels=kernels))
    kept = Readings(file)
    assert kept.key(CELL) == "today"
    (record,) = kept.all()
    assert record["reading"]["kernels"] == 61
    assert [record[name] for name in ("target", "devices")] == ["h100", 1]


def test_the_key_is_of_the_program_and_of_what_reads_it(monkeypatch, tmp_path):
    def lowered(factor):
        return jax.jit(lambda x: factor * x).lower(jax.ShapeDtypeStruct((2,), "float32"))

    assert key.program_key(lowered(2.0)) == key.program_key(lowered(2.0))
    assert key.program_key(lowered(2.0)) != key.program_key(lowered(3.0))
    before = key.program_key(lowered(2.0))
    for name in key._READERS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((environments.PROJECT / name).read_bytes())
    monkeypatch.setattr(key, "PROJECT", tmp_path)
    assert key.program_key(lowered(2.0)) == before
    (tmp_path / key._READERS[0]).write_text("another compiler")
    assert key.program_key(lowered(2.0)) != before


def test_failures_are_named_and_the_others_kept(monkeypatch, asked, tmp_path):
    def lines_of(platform, arguments):
        for program, _ in json.loads(arguments[-1])[:2]:
            error = "ValueError: no" if program[2] == "adam" else None
            yield json.dumps(answer(program, error=error))
        raise RuntimeError("it ended")

    monkeypatch.setattr(environments, "lines_of", lines_of)
    failed = run(tmp_path, codes=("plain",))
    assert failed == [
        "h100 small-plain-adam-bfloat16-training: ValueError: no",
        "h100 small-plain-none-bfloat16-evaluation: it ended",
    ]
    assert len(Readings(tmp_path / "out" / "readings.json").all()) == 1


def test_programs():
    full, some = (list(cells.programs_of(t)) for t in ("h100", "v5p:4x4x4"))
    assert len(full) == len(set(full)) == 3 * 2 * (3 + 1 + 2 + 2)
    assert len(some) == 3 * 2 * 3
    assert {p.optimizer for p in some} == {"sgd"}
    assert not [p for p in full if p.code == "plain" and p.optimizer == "ovsw"]
    assert {p.network for p in full} == NETWORKS.keys() - {"small"}


@pytest.mark.parametrize("network", long_but(list(NETWORKS), "small"))
def test_programs_are_traced_alike_in_both_codes(network, monkeypatch):
    """Same parameters, same results; the layers themselves are compared in another test."""
    monkeypatch.setattr(programs, "lower_for", lambda target, step, *shapes: step.trace(*shapes))
    target = Target("here", "tpu", tuple(jax.devices()[:2]), memory=0, clock=None)
    for optimizer, phase in (("sgd", "training"), ("adam", "training"), ("none", "evaluation")):
        traced = [
            programs.lower_program(Program(network, code, optimizer, dtype, phase), target)
            for code, dtype in (("ours", "bfloat16"), ("plain", "float32"))
        ]
        ours, plain = (jax.tree.map(lambda x: (x.shape, x.dtype), t.out_info) for t in traced)
        assert ours == plain
        images = 2 * NETWORKS[network].images
        assert [jax.tree.leaves(t.in_avals)[-1].shape for t in traced] == [(images,)] * 2


def test_a_failing_command_is_an_error(monkeypatch, tmp_path):
    program = tmp_path / "cuda" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho $JAX_PLATFORMS $1\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("OVSW_ACCELERATORS", str(tmp_path))
    lines = environments.lines_of("cuda", ["program.py"])
    assert next(lines) == "cpu program.py\n"
    with pytest.raises(RuntimeError, match=r"python program\.py ended with exit code 3"):
        next(lines)


def test_a_compiler_ends_with_who_asked_for_it(monkeypatch, tmp_path):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho $$\nexec sleep 600\n")
    program.chmod(0o755)
    lines = environments.lines_by(program, [], folder=tmp_path)
    number = int(next(lines))
    lines.close()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_the_script_refuses_another_name(tmp_path):
    script = environments.PROJECT / "benchmarks" / "accelerators" / "environments.sh"
    done = subprocess.run([script, "rocm"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "environment 'rocm' is unknown: name tpu, cuda or both." in done.stderr
