"""The best point of each optimizer in a sweep, whose trained weights are kept."""

from pathlib import Path

from experiments.report.table import best_arms, summarise
from experiments.run import weights
from experiments.run.reader import read_run
from experiments.sweep.arms import arms_of, planned_points
from experiments.sweep.members import Member


def keep_best_weights(folder: Path) -> None:
    """Moves the weights of each optimizer's best point to where load_trained and --start look.

    The best point is that of the table: it has the highest mean top-1 over the seeds. What the
    other points have is removed.
    """
    run = read_run(folder)
    points = planned_points(run.config)
    best = set(best_arms(summarise(run)).values())
    first = run.config["seeds"][0]
    for arm, (optimizer, point) in zip(arms_of(points, run.config), points, strict=True):
        if arm.key in best:
            weights.keep_point(folder, Member(optimizer, point, first))
    weights.remove_points(folder)
