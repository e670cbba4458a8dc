"""A real training process, killed and stopped at random moments, ends as one that never was.

Once each in the suite; FAULTS=20 pytest tests/test_kills.py for as many of each.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from run_folders import arrays, untimed

ROOT = Path(__file__).parents[1]
FAULTS = int(os.environ.get("FAULTS", "1"))
EARLY, LATE = 3.0, 0.5  # seconds, at most, from the begin of a run and of its training to a signal
COMMAND = [
    *(sys.executable, "-m", "experiments.train", "--optimizers", "ovsw"),
    *("--seeds", "0", "1", "--members-at-once", "2", "--batch-size", "32"),
    *("--checkpoint-seconds", "0.2", "--epochs", str(8 + 4 * FAULTS)),
    *("--network", "tiny_networks:Tiny"),
]
STATUS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    return {
        **os.environ,
        # jaxlib 0.10.0 says kilobytes of each program that it loads, more than a pipe holds.
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # Of these alone: a kill may leave half a program there.
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "PYTHONPATH": str(Path(__file__).parent),
        "XLA_FLAGS": "",
    }


def start(folder, environment):
    return subprocess.Popen(
        [*COMMAND, "--out", str(folder)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ends(process):
    output, _ = process.communicate(timeout=300)
    assert "Traceback" not in output, output
    return output


@pytest.fixture(scope="module")
def whole(compiled, tmp_path_factory):
    """What comes of a run that is left alone."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    process = start(folder, compiled)
    output = ends(process)
    assert process.returncode == 0, output
    return untimed(folder), arrays(folder)


def checkpoints(folder):
    return {path.name for path in folder.glob("checkpoints/[0-9]*") if path.name.isdigit()}


def interrupt(folder, environment, kind, moments, early):
    """Sends a signal at a random moment, early or while it trains; gives what was said."""
    before, process = checkpoints(folder), start(folder, environment)
    for line in process.stdout:
        if "writing to" in line:
            break
    while not early and process.poll() is None and checkpoints(folder) <= before:
        time.sleep(0.01)
    time.sleep(moments.uniform(0, EARLY if early else LATE))
    process.send_signal(kind)
    output = ends(process)
    if process.returncode != 0:  # else it was done before
        assert process.returncode == STATUS[kind], output
    return process.returncode, output


KINDS = {"kill": (signal.SIGKILL,), "stop": (signal.SIGTERM, signal.SIGINT)}


@pytest.mark.parametrize("name", KINDS if FAULTS > 1 else ["both"])
def test_a_run_ends_as_if_it_was_never_stopped(name, whole, compiled, tmp_path):
    folder, moments = tmp_path / "run", random.Random(0)
    kinds = KINDS.get(name, (signal.SIGKILL, signal.SIGTERM))
    stopped, went_on = 0, 0
    for number in range(max(FAULTS, 2)):
        kind = kinds[number % len(kinds)]
        status, output = interrupt(folder, compiled, kind, moments, early=number % 5 == 4)
        stopped += status != 0
        went_on += bool(re.search(r"after epoch ([1-9]|0 of \d+ and)", output))
    process = start(folder, compiled)
    output = ends(process)
    assert process.returncode == 0, output
    print(f"{stopped} x {kinds} took effect, {went_on} runs went on from a checkpoint")
    assert stopped >= FAULTS / 2
    weights = arrays(folder)
    assert untimed(folder) == whole[0]
    assert weights.keys() == whole[1].keys()
    for name, expected in whole[1].items():
        np.testing.assert_array_equal(weights[name], expected, err_msg=name)
    assert not (folder / "checkpoints").exists()
