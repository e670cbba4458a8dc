"""Real processes that train together over loopback: as one would, and as if none had been lost.

Two are lost in the suite; FAULTS=5 pytest -m long tests/test_several_processes.py loses as many.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from image_data import of_two_classes, write_folder
from longer import long_but
from run_folders import rows

from experiments import data, launch
from experiments.run import weights
from experiments.training.networks import Network

ROOT = Path(__file__).parents[1]
FAULTS = int(os.environ.get("FAULTS", "2"))
IMAGES, BATCH, EPOCHS = 320, 32, 2  # twenty steps
NETWORK = "tiny_networks:Tiny"
RUN = [
    *("--optimizers", "ovsw", "--seeds", "0", "--network", NETWORK, "--batch-size", str(BATCH)),
    *("--epochs", str(EPOCHS), "--checkpoint-seconds", "0.1"),
]
SECONDS = 60  # within which the others end


def float64_start(folder, dataset):
    """A run folder with initial weights in float64, which processes with 64-bit types keep."""
    network = Network(NETWORK, len(dataset.classes), dataset.image_shape)
    state = network.init(jax.random.split(jax.random.key(0), 1))
    state = jax.tree.map(lambda x: np.asarray(x[0], np.float64), state)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"optimizers": ["ovsw"], "seeds": [0]}))
    weights.save(weights.file_of(folder, "ovsw", 0), state, weights.data_for(dataset))
    return ["--start", str(folder)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent),
        # jaxlib 0.10.0 says kilobytes of each program that it loads, more than a pipe holds.
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # Of these alone: a kill may leave half a program there.
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_ENABLE_X64": "1",
        "XLA_FLAGS": "",  # a device a process
    }


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    dataset = data.load("digits", train_images=IMAGES)
    start = float64_start(tmp_path_factory.mktemp("of") / "digits", dataset)
    return ["digits", "--train-images", str(IMAGES), *RUN, *start]


@pytest.fixture(scope="module")
def folder_of_images(tmp_path_factory):
    """Streamed from disk; every process decodes its own rows of each batch."""
    root = tmp_path_factory.mktemp("of") / "noise"
    write_folder(root, of_two_classes(IMAGES // 2, 11), size=(10, 12))
    dataset = data.load_streamed(str(root), image_size=8, workers=1)
    start = float64_start(tmp_path_factory.mktemp("of") / "start", dataset)
    return ["--data", str(root), "--image-size", "8", "--workers", "1", *RUN, *start]


def launched(environment, *arguments):
    command = [sys.executable, "-m", "experiments.launch", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)


def started(count, arguments, out, environment):
    return launched(environment, "--local", str(count), *arguments, "--out", str(out))


def coordinated(environment, address, number):
    """One of two processes, which are started by hand."""
    place = ["--coordinator", address, "--processes", "2", "--process", number]
    return launched(environment, *place, "digits", "--out", "never")


def ended(process, status=0):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == status, output
    return output


def result(out):
    """Weights, and the last row of metrics."""
    with np.load(weights.file_of(out, "ovsw", 0)) as arrays:
        trained = {k: v for k, v in arrays.items() if not k.startswith("data/")}
    assert {x.dtype for x in trained.values()} == {np.dtype(np.float64)}
    written = rows(out)
    assert [row["epoch"] for row in written] == list(range(1, EPOCHS + 1))
    assert written[-1]["step"] == EPOCHS * (IMAGES // BATCH)
    last = {k: v for k, v in written[-1].items() if k.endswith(("loss", "top1", "ratio"))}
    return trained, last


def assert_same(actual, expected):
    for x, y in zip(actual, expected, strict=True):
        assert x.keys() == y.keys()
        for name in y:
            np.testing.assert_allclose(x[name], y[name], rtol=1e-5, atol=1e-9, err_msg=name)


@pytest.fixture(scope="module")
def alone(digits, environment, tmp_path_factory):
    """What one process makes of the digits."""
    return of_one(digits, environment, tmp_path_factory.mktemp("alone") / "run")


def of_one(arguments, environment, out):
    ended(started(1, arguments, out, environment))
    return result(out)


@pytest.mark.parametrize("count", long_but([2, 4], 2))
def test_processes_train_as_one(count, digits, environment, alone, tmp_path):
    output = ended(started(count, digits, tmp_path / "run", environment))
    assert output.count("writing to") == 1  # the first one speaks
    assert_same(result(tmp_path / "run"), alone)
    assert not (tmp_path / "run" / "checkpoints").exists()


def failed(process):
    """What is said when one process finds an error, which soon ends the others."""
    begun = time.monotonic()
    output = ended(process, 2)
    assert time.monotonic() - begun < SECONDS
    assert output.count("error: ") == 1 + output.count("error: another process is gone"), output
    return output


@pytest.mark.long
def test_one_process_can_t_read_an_image(folder_of_images, environment, tmp_path):
    """The first and then the other; mended, the run ends as one process's."""
    out, files = tmp_path / "run", sorted(Path(folder_of_images[1]).glob("train/*/*.png"))
    order = np.random.default_rng((0, 1, 0)).permutation(IMAGES)
    for finder in (0, 1):
        file = files[order[(6 + finder) * BATCH + finder * BATCH // 2]]
        content = file.read_bytes()
        file.write_bytes(content[:50])
        try:
            output = failed(started(2, folder_of_images, out, environment))
        finally:
            file.write_bytes(content)
        assert f"error: {file} cannot be decoded" in output
    ended(started(2, folder_of_images, out, environment))
    assert_same(result(out), of_one(folder_of_images, environment, tmp_path / "alone"))


@pytest.mark.long
def test_one_process_can_t_write(digits, environment, tmp_path):
    """The first, which writes for all; the other one waits for the run folder."""
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "run"
    output = failed(started(2, digits, out, environment))
    assert f"error: run folder {out} cannot be written" in output
    assert "is gone" not in output  # both know, and end together


@pytest.mark.long
def test_a_batch_that_processes_cannot_share_leaves_no_folder(digits, environment, tmp_path):
    uneven = [*digits, "--batch-size", "33"]
    output = failed(started(2, uneven, tmp_path / "run", environment))
    assert "error: batch_size=33 can't be divided over 2 devices" in output
    assert not (tmp_path / "run").exists()


def children(process):
    """Those that train, in the order they were started; none if it has ended."""
    try:
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [int(number) for number in listed]


def checkpoints(out):
    return {path.name for path in out.glob("checkpoints/*") if path.name.isdigit()}


def in_training(process, out):
    """Waits for a new checkpoint."""
    before = checkpoints(out)
    while process.poll() is None and checkpoints(out) <= before:
        time.sleep(0.01)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the processes")
def test_processes_are_stopped_and_lost(digits, environment, alone, tmp_path):
    """Ctrl-C stops all with a checkpoint. Where one is lost, the others end soon and say why.

    The run goes on with as many processes as there are.
    """
    out, moments, cut_off = tmp_path / "run", random.Random(0), 0
    process = started(2, digits, out, environment)
    in_training(process, out)
    process.send_signal(signal.SIGINT)
    assert "interrupted; writing what was measured so far" in ended(process, 130)
    for number in range(FAULTS):
        victim, count = number % 2, 4 if number % 4 >= 2 else 2
        process = started(count, digits, out, environment)
        in_training(process, out)
        time.sleep(moments.uniform(0, 0.1))
        begun = time.monotonic()
        if (running := children(process))[victim:]:
            os.kill(running[victim], signal.SIGKILL)
        output, _ = process.communicate(timeout=300)
        if process.returncode:  # else the run was done before
            cut_off += 1
            assert process.returncode == launch.LOST, output
            assert time.monotonic() - begun < SECONDS
            assert f"process {victim} of {count} was ended by SIGKILL" in output
            assert "The same command, on every host, resumes from its newest checkpoint" in output
    assert cut_off > FAULTS / 2
    output = ended(started(1, digits, out, environment))
    assert "resuming after epoch" in output
    assert_same(result(out), alone)
    print(f"{cut_off} processes lost")


STOPPED_AT_THE_END = f"""
import os, signal, sys
from experiments import train, worker
from experiments.training.step import Steps

evaluate, calls = Steps.evaluate, []

def stopped(*arguments):
    calls.append(1)
    if len(calls) == {EPOCHS} and sys.argv[3] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return evaluate(*arguments)

Steps.evaluate = stopped
train.run_as_program(lambda: worker.main(sys.argv[1:]))
"""


@pytest.mark.long
def test_a_signal_to_one_process_behind_the_last_step(digits, environment, alone, tmp_path):
    """Where no step is left at which all could stop, nobody is left waiting."""
    address, out = f"127.0.0.1:{launch._free_port()}", tmp_path / "run"
    command = [sys.executable, "-c", STOPPED_AT_THE_END, address, "2"]
    begun = time.monotonic()
    processes = [
        subprocess.Popen(
            [*command, number, "--", *digits, "--out", str(out)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
        )
        for number in "01"
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 143]
    assert time.monotonic() - begun < SECONDS
    for process in processes:
        process.stdin.close()
    assert_same(result(out), alone)


@pytest.mark.long
@pytest.mark.parametrize("number", ["0", "1"])
def test_ctrl_c_ends_one_that_waits_for_the_others(environment, number):
    """Which JAX does in C++, where no handler of Python runs."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    process = coordinated(environment, address, number)
    assert process.stdout.readline().startswith("waiting for the ")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130
    process.stdout.close()


def test_a_port_that_is_taken(environment):
    with socket.create_server(("", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        output = ended(coordinated(environment, address, "0"), 2)
    assert "can't be listened on (Address already in use): give another one" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--coordinator a:1 --processes 0 --process 0", "--processes 0 is out of range: it must b"),
        ("--local 0", "--local 0 is out of range: it must be at least 1."),
        ("--local 2 --process 1", "--local starts all processes: omit --coordinator"),
        ("--processes 2", "--coordinator and --process must be given as well"),
        (
            "--coordinator a:1 --processes 2 --process 2",
            "--process 2 is out of range: of 2 processes it must be from 0 to 1.",
        ),
        ("--coordinator here --processes 2 --process 1", "--coordinator here is no address: give "),
    ],
)
def test_what_a_launch_must_say(arguments, message, capfd):
    assert launch.main([*arguments.split(), "digits"]) == 2
    assert f"error: {message}" in capfd.readouterr().err


def test_no_cluster(environment, capfd, monkeypatch):
    monkeypatch.setattr(os, "environ", environment)
    assert launch.main(["digits", "--out", "never"]) == 2
    assert "error: no other processes were found" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits"], "error: --out is missing: several processes need one run folder"),
        (["digits", "--out", "never", "--epoch", "2"], "Unrecognized options: --epoch"),
    ],
)
def test_a_command_that_cannot_be_run_is_said_once(arguments, message, capfd):
    with pytest.raises(SystemExit, match="2"):
        sys.exit(launch.main(["--local", "4", *arguments]))
    assert capfd.readouterr().err.count(message) == 1


def test_who_is_left_over_is_killed(monkeypatch):
    """Also if the first process is the one that doesn't end."""
    monkeypatch.setattr(launch, "GRACE", 0.1)
    programs = ("import time; time.sleep(600)", "raise SystemExit(3)")
    processes = [subprocess.Popen([sys.executable, "-c", program]) for program in programs]
    launch._wait(processes)
    assert [process.returncode for process in processes] == [-signal.SIGKILL, 3]
