"""Where nothing can be written any more, what a training says is dropped, and it goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPEAK = """
import os, sys
from experiments.process.safe_stdout import never_fail

never_fail()
for stream in (sys.stdout, sys.stderr):
    print("x" * 100_000, file=stream, flush=True)
sys.stdout.flush()
os._exit(3)
"""


def test_what_can_be_written_is(capfd):
    assert run(None, None) == 3
    assert [len(text) for text in capfd.readouterr()] == [100_001, 100_001]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk():
    with open("/dev/full", "wb", buffering=0) as full:
        assert run(full, full) == 3


def test_a_reader_that_is_gone():
    reader, writer = os.pipe()
    os.close(reader)
    assert run(writer, writer) == 3
    os.close(writer)


def test_streams_that_were_closed():
    """Python then has none."""
    command = f'exec "{sys.executable}" -c "$0" >&- 2>&-'
    assert subprocess.run(["sh", "-c", command, SPEAK], cwd=ROOT, check=False).returncode == 3


def run(stdout, stderr):
    command = [sys.executable, "-c", SPEAK]
    return subprocess.run(command, cwd=ROOT, stdout=stdout, stderr=stderr, check=False).returncode
