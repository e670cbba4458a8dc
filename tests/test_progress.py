"""Progress of a run by a clock that the tests set: lines, time left, labels."""

import io
import itertools
import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from experiments.config import Config
from experiments.report.progress import LINE_SECONDS, Bars, estimate, label_of
from experiments.report.time_left import TimeLeft, duration
from experiments.sweep.members import Member

PER_EPOCH = 10


class Simulated:
    """A run whose steps and evaluations take the seconds that a test says."""

    def __init__(self, config, groups, *, sweep=False, done=0, terminal=False, quiet=False):
        self.now, self.screen, self.config = 0.0, io.StringIO(), config
        self.console = Console(
            file=self.screen,
            force_terminal=terminal,
            width=80 if terminal else 200,
            color_system=None,
            quiet=quiet,
        )
        self.groups = groups  # (program, members, seconds of a step)
        plan = [(program, len(members)) for program, members, _ in groups]
        clock = lambda: self.now  # noqa: E731
        self.bars = Bars(self.console, config, plan, sweep=sweep, done=done, clock=clock)
        self.lines, self.left = [], []  # with the time at which each was printed

    def run(self, *, compiling=40.0, evaluating=0.0, first_step=0):
        """Trains as the loop does; a program is compiled at its first step and evaluation."""
        compiled = set()
        with self.bars:
            for program, members, seconds in self.groups:
                steps = SimpleNamespace(steps_per_epoch=PER_EPOCH)
                group = SimpleNamespace(steps=steps, members=members, count=len(members))
                with self.bars.training(group):
                    for epoch in range(1, self.config.epochs + 1):
                        new = program not in compiled
                        self._epoch(epoch, seconds, compiling * new, evaluating, first_step)
                        compiled.add(program)
                first_step = 0
        return self

    def _epoch(self, epoch, seconds, compiling, evaluating, first_step):
        members = self.bars._group.size
        speed = self.config.batch_size * members / seconds
        for number in range(1, PER_EPOCH + 1):
            step = (epoch - 1) * PER_EPOCH + number
            if step <= first_step:
                continue
            first = compiling and number == 1
            self._wait(compiling if first else seconds)
            if number < PER_EPOCH and self.bars.due:
                self.bars.step(step, numbers(0.0 if first else speed))
                self._note(known=True)
        for _ in range(4):
            self._wait(evaluating / 4 + compiling / 4)
            self.bars.evaluating()
            self._note()
        if epoch * PER_EPOCH > first_step:
            self.bars.epoch(epoch, {**numbers(speed), "seconds": PER_EPOCH * seconds})
            self._note(known=True)

    def _wait(self, seconds):
        self.now += seconds

    def _note(self, known=False):
        printed = self.screen.getvalue().splitlines()
        self.lines += [(self.now, line) for line in printed[len(self.lines) :]]
        if known:  # between reports it stays as it was
            self.left.append((self.now, self.bars._time_left.left))


def numbers(speed):
    found = {"loss": 2.345, "top1": 0.456, "images_per_second": speed}
    return {**found, "flip_ratio": 0.0012, "silent_ratio": 1.0}


def seeds(count, optimizer="sgd", **point):
    return [Member(optimizer, point, seed) for seed in range(count)]


CONFIG = Config(epochs=4, batch_size=100, seeds=(0, 1), optimizers=("sgd", "ovsw"))
BOTH = [(0, seeds(1), 3.0), (1, seeds(1, "ovsw"), 3.0)]


@pytest.mark.parametrize("seconds", [0.01, 0.9, 3.0, 11.0])
def test_without_a_terminal_there_is_a_line_at_least_every_30_seconds(seconds):
    """From when a number is known on; a step that takes longer delays it by no more."""
    config = CONFIG.at({"epochs": 3})
    run = Simulated(config, [(0, seeds(1), seconds)]).run(compiling=0.0, evaluating=20.0)
    times = [time for time, _ in run.lines]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert max(gaps) <= max(30, LINE_SECONDS + seconds)
    assert all(
        re.search(r"loss 2\.345 top-1 45\.6%", line) for _, line in run.lines if "SGD" in line
    )


def test_a_line_says_step_loss_speed_and_time_left():
    run = Simulated(CONFIG, BOTH).run(compiling=0.0)
    lines = [line for _, line in run.lines]
    assert (
        "SGD (seed 0)  step 9/40  loss 2.345 top-1 45.6% 33 img/s flip 0.12% silent 100.0%  "
        "3.5 min left"
    ) in lines
    assert any(line.startswith("OvSW (seed 0)  epoch 4/4  loss") for line in lines)
    assert not lines[-1].endswith("left")  # nothing is


def test_lines_are_few_where_steps_are_fast():
    run = Simulated(CONFIG, [(0, seeds(1), 1e-3)]).run(compiling=0.0)
    assert len(run.lines) == CONFIG.epochs


def test_the_time_left_is_that_of_all_trainings_without_compilation():
    """Against what the rest of the run then takes, compilation apart."""
    run = Simulated(CONFIG, BOTH).run(compiling=40.0)
    end = run.now
    known = [(time, left) for time, left in run.left if left is not None]
    assert len(known) > 8
    for time, left in known:
        compiling = 2 * 40.0 - 3.0 if time <= end / 2 else 0.0  # of OvSW: its step and evaluation
        later = 40.0 if time < 80 or end / 2 < time < end / 2 + 80 else 0.0  # this evaluation
        assert left == pytest.approx(end - time - compiling, abs=later + 1e-6)


def test_evaluations_count_from_the_second_epoch_on():
    run = Simulated(CONFIG, [(0, seeds(1), 1.0)]).run(compiling=0.0, evaluating=30.0)
    end = run.now
    ends = [(time, left) for time, left in run.left if time in (80.0, 120.0, 160.0)]
    assert len(ends) == 3
    for time, left in ends:
        assert left == pytest.approx(end - time)


def test_a_resumed_run_counts_what_is_left():
    """Two of its three trainings are done, and of the third 25 steps."""
    run = Simulated(CONFIG, [(0, seeds(1), 2.0)], done=2).run(compiling=0.0, first_step=25)
    left = dict(run.left)
    assert left[2.0] == pytest.approx(14 * 2.0)
    assert run.left[-1][1] == 0


def test_members_that_train_together_are_as_fast_as_a_group():
    run = Simulated(CONFIG, [(0, seeds(2), 5.0)]).run(compiling=0.0)
    assert run.left[0][1] == pytest.approx(39 * 5.0)


def test_the_estimate_is_said_once_and_what_shortens_the_run():
    run = Simulated(CONFIG, BOTH).run()
    said = [(time, line) for time, line in run.lines if line.startswith("about")]
    assert [line for _, line in said] == [
        "about 2.0 min a training, 2 trainings, 3.8 min; --epochs, --seeds, --optimizers shorten it"
    ]
    assert said[0][0] < 60  # after the first steps
    short = Simulated(CONFIG, [(0, seeds(1), 0.01)]).run()
    assert not [line for _, line in short.lines if line.startswith("about")]


@pytest.mark.parametrize(
    ("groups", "fields", "expected"),
    [
        (
            [1],
            {"seeds": (0,), "optimizers": ("sgd",)},
            "about 2.8 h a training; --epochs shortens it",
        ),
        (
            [5, 5],
            {"seeds": (0, 1, 2, 3, 4)},
            "about 2.8 h for 5 trainings that share a step, 10 trainings, 5.6 h; --epochs, "
            "--seeds, --optimizers shorten it",
        ),
        (
            [1, 1],
            {"seeds": (0,), "grids": ("optimizer=ovsw lam=0.1,0.2",)},
            "about 2.8 h a training, 2 trainings, 5.6 h; --epochs, --grids shorten it",
        ),
    ],
)
def test_what_an_estimate_says(groups, fields, expected):
    config = Config(**fields)
    assert estimate(10_000.0, 20_000.0, groups, config) == expected


def test_a_process_that_is_not_the_first_prints_nothing():
    assert Simulated(CONFIG, BOTH, quiet=True).run().screen.getvalue() == ""


def test_a_terminal_shows_the_time_left_of_the_whole_run():
    run = Simulated(CONFIG, BOTH, terminal=True).run(compiling=0.0)
    assert "3.9 min; --epochs" in run.screen.getvalue()
    assert [task.fields["left"] for task in run.bars._progress.tasks] == ["", ""]
    assert "…" not in run.screen.getvalue()
    assert "step 9/40" not in run.screen.getvalue()
    assert run.bars.due


SWEEP = Config(
    grids=("optimizer=ovsw lam=0.01,0.02,0.04,0.08 init=normal,uniform", "optimizer=sgd")
)


@pytest.mark.parametrize(
    ("members", "label"),
    [
        (seeds(1, "ovsw", lam=0.04, init="normal"), "OvSW, lam 0.04, init normal (seed 0)"),
        (seeds(2, "ovsw", lam=0.04, init="normal"), "OvSW, lam 0.04, init normal (seeds 0, 1)"),
        (seeds(1), "SGD (seed 0)"),
        (
            [Member("ovsw", {"lam": x, "init": "normal"}, 3) for x in (0.01, 0.02, 0.04, 0.08)],
            "OvSW, lam 0.01 to 0.08, init normal (seed 3)",
        ),
    ],
)
def test_a_point_is_named_by_what_distinguishes_it(members, label):
    assert label_of(members, SWEEP) == label


def test_a_sweep_prints_its_points():
    points = [seeds(1, "ovsw", lam=lam, init="normal") for lam in (0.01, 0.02)]
    groups = [(0, members, 4.0) for members in points]
    run = Simulated(SWEEP.at({"epochs": 2}), groups, sweep=True, done=3).run(compiling=0.0)
    lines = [line for _, line in run.lines]
    assert any(
        line.startswith("3/5  OvSW, lam 0.01, init normal (seed 0)  step ") for line in lines
    )
    assert any(line.startswith("5/5  OvSW, lam 0.02, init normal (seed 0)  loss") for line in lines)


speeds = st.floats(1e-3, 1e3)


@given(
    plan=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    of_program=st.lists(speeds, min_size=4, max_size=4),
    steps=st.integers(1, 50),
    data=st.data(),
)
def test_the_time_left_is_the_sum_over_what_is_left(plan, of_program, steps, data):
    """Where each program was measured or the others' mean stands for it; against a plain sum."""
    left = TimeLeft(plan, epochs=1)
    measured = {}
    for number, program in enumerate(plan):
        left.begin(steps)
        assert (left.left is None) == (not measured)
        at = data.draw(st.integers(0, steps))
        measured[program] = of_program[program]
        left.reach(at, of_program[program])
        mean = sum(measured.values()) / len(measured)
        rest = [measured.get(p, mean) * steps for p in plan[number + 1 :]]
        assert left.left == pytest.approx((steps - at) * of_program[program] + sum(rest))
        assert left.training == pytest.approx(steps * of_program[program])


@given(seconds=st.floats(0, 1e9))
def test_a_duration_is_short_and_near(seconds):
    count, unit = duration(seconds).split()
    length = {"s": 1, "min": 60, "h": 3600, "days": 86_400}[unit]
    assert float(count) * length == pytest.approx(seconds, rel=0.35, abs=1)
    assert float(count) * length >= 0.9 * seconds
    if seconds < 1e7:
        assert len(duration(seconds)) <= 8
