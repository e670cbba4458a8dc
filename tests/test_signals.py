"""Signals, where one process trains and where several do, of which none may leave alone."""

import os
import signal

import pytest

from experiments.process import distributed
from experiments.process.signals import Signals, Stopped


@pytest.fixture
def signals():
    made = Signals()
    with made.handled():
        yield made


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def test_at_once_where_nothing_waits(signals):
    with pytest.raises(Stopped, match="SIGINT") as stopped:
        send(signal.SIGINT)
    assert stopped.value.status == 130


def test_noted_by_whoever_waits_and_raised_by_the_outermost_if_nobody_handles_it(signals):
    noted = []

    def wait():
        with signals.waiting():
            with signals.waiting():
                send()
                noted.append(signals.asked)
            noted.append(signals.asked)

    with pytest.raises(Stopped, match="SIGTERM"):
        wait()
    assert noted == [signal.SIGTERM] * 2
    assert signals.asked is None


def test_heeded(signals):
    with signals.waiting():
        send()
        assert signals.asked == signal.SIGTERM
        signals.asked = None  # else the end of waiting would raise


def wait_for_two(signals):
    with signals.waiting():
        send()
        send(signal.SIGINT)
        pytest.fail("went on")


def test_the_second_stops_at_once(signals):
    with pytest.raises(Stopped, match="SIGINT"):
        wait_for_two(signals)


def test_the_second_ends_one_of_several_processes(signals, monkeypatch):
    """If it raised, it would wait for the others in the end, and they for it."""
    ended = []
    monkeypatch.setattr(distributed, "alone", lambda: False)
    monkeypatch.setattr(os, "_exit", ended.append)
    with pytest.raises(Stopped):
        wait_for_two(signals)
    assert ended == [130]


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        ("UNAVAILABLE: connection to the coordinator", True),
        ("Gloo all-reduce failed: [external/gloo/transport/tcp/pair.cc:547] Read timeout", True),
        ("/images/train/barrier/001.png can't be decoded", False),
        ("/images/ABORTED/001.png can't be decoded", False),
    ],
)
def test_who_is_lost(said, lost, monkeypatch):
    assert not distributed.says_lost(ValueError(said))  # alone
    monkeypatch.setattr(distributed, "alone", lambda: False)
    assert distributed.says_lost(ValueError(said)) == lost
