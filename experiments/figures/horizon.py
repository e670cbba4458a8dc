"""Top-1, never-flipped and silent share against the silence horizon."""

from matplotlib.figure import Figure

from experiments.figures import curves, scales, style
from experiments.figures.points import Point, select
from experiments.run.reader import Run
from experiments.run.silence import horizon

FIELD = "threshold"
STEPS = "horizon_steps"


def applies(run: Run) -> bool:
    """Whether the threshold of the flip state is the one field that its optimizers vary."""
    varied = {run.varied(name) for name in run.optimizers} - {()}
    return varied == {(FIELD,)} and isinstance(run.config.get("flip_momentum"), float)


def points(run: Run) -> list[Point]:
    """A point per threshold and metric, and SGD without rules if it is in the run."""
    metrics = [metric for metric, _ in _panels(run)]
    swept = curves.points(run, curves.arms_on(curves.curves(run, FIELD)), metrics)
    levels = [point for metric in metrics[:2] for point in curves.level(run, "sgd", metric)]
    momentum = float(run.config["flip_momentum"])
    steps = [horizon(momentum, point[FIELD]) for point in swept]
    return [{**p, STEPS: n} for p, n in zip(swept, steps, strict=True)] + [
        {**p, STEPS: ""} for p in levels
    ]


def _panels(run: Run) -> tuple[tuple[curves.Metric, str], ...]:
    return (
        (curves.TOP1_METRIC, style.top1_label(run)),
        (curves.NEVER_FLIPPED, "Never flipped\n(% of binary weights)"),
        (curves.SILENT, "Silent\n(% of binary weights)"),
    )


def figure(run: Run) -> Figure:
    """A panel per metric; beyond the dotted line a weight that flipped is never silent again."""
    of, found = curves.curves(run, FIELD), points(run)
    fig = style.new_figure(7.0)
    style.set_title(fig, f"{style.run_title(run)}: how long until a weight counts as silent (ours)")
    panels = fig.subplots(3, 1, sharex=True)
    end = _training_steps(run)
    horizons = [float(point[STEPS]) for point in found if point[STEPS] != ""]
    for axes, (metric, label) in zip(panels, _panels(run), strict=True):
        mine = select(found, metric=metric.name)
        scales.swept_values(axes, horizons, 6.8, also=[end])
        curves.draw(axes, [p for p in mine if p[STEPS] != ""], STEPS, of, metric)
        for point in select(mine, **{STEPS: ""}):
            curves.draw_level(axes, point)
        axes.axvline(end, color="black", linestyle=":", label=f"end of training: {end:,} steps")
        style.at_least(axes)
        axes.set_ylabel(label)
        axes.grid(True)
    panels[-1].set_xlabel(
        "Silence horizon: optimizer steps until a weight counts as silent (log scale)"
    )
    style.legend_below(fig, panels, style.spread_title(run, "bars and band"))
    return fig


def _training_steps(run: Run) -> int:
    """Steps of the whole training, from the last row of any arm."""
    arm = run.arms[0]
    epoch = run.last_epoch(arm)
    row = next(iter(run.epochs[arm][epoch].values()))
    return round(row.values.get("step", 1) / epoch * (run.planned_epochs or epoch))
