"""python -m experiments.studies.appendix_b_figure [--out FOLDER]: Appendix B measured.

Writes appendix_b.csv and appendix_b.png. `experiments/studies/appendix_b.py` says what is
measured, and on which network.

A curve jumps to the order of 1 where batch norm's epsilon moves an activation across zero, so that
a later sign changes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from experiments.figures import style
from experiments.figures.points import Point, write_csv

if TYPE_CHECKING:  # a figure is drawn without jax
    from experiments.studies.appendix_b import Change, Ratio

NAME = "appendix_b"
BOUND = 1e-12  # what float64 has to stay under where the statement is exact

# dtype, epsilon of batch norm: colour and line style
_CASES: dict[tuple[str, float], tuple[str, Literal["-", "--"]]] = {
    ("float64", 0.0): ("#009E73", "-"),
    ("float64", 1e-5): ("#D55E00", "-"),
    ("float32", 1e-5): ("#4d4d4d", "--"),
}
_QUANTITIES = {"logits": "o", "gradients": "^"}
_TITLES = {
    "gamma": ("Latent weights scaled by γ", "γ"),
    "alpha": ("Factors scaled, 1 at first", "α, times 1/2 to 2 at random"),
}


def main(out: Path = Path("runs") / NAME) -> None:
    """Measures, and writes a table and a figure.

    Args:
      out: folder for appendix_b.csv and appendix_b.png, over older ones.
    """
    from experiments.studies.appendix_b import measure_changes, measure_ratios

    changes, ratios = measure_changes(), measure_ratios()
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / f"{NAME}.csv", list(rows(changes, ratios)))
    with style.applied():
        figure(changes, ratios).savefig(out / f"{NAME}.png", dpi=style.DPI)
    for suffix in ("csv", "png"):
        print(out / f"{NAME}.{suffix}")


def rows(changes: "Sequence[Change]", ratios: "Sequence[Ratio]") -> Iterator[Point]:
    """A row per measured number, with what it was measured for."""
    for c in changes:
        case = {"scaled": c.scaled, "scale": c.scale, "dtype": c.dtype, "epsilon": c.epsilon}
        for quantity in _QUANTITIES:
            name, value = f"relative change of {quantity}", getattr(c, quantity)
            yield {**case, "quantity": name, "value": value}
    for r in ratios:
        case = {"scaled": "gamma", "scale": r.scale, "dtype": "float32", "epsilon": 1e-5}
        for rule, value in (("", r.plain), (" after AGS", r.after_ags)):
            yield {**case, "quantity": f"median |G_i| / |W_i|{rule}", "value": value}


def figure(changes: "Sequence[Change]", ratios: "Sequence[Ratio]") -> Figure:
    """What changes with gamma, what with alpha, and what flips depend on."""
    with style.applied():
        fig = style.new_figure(4.2, width=10.0)
        style.set_title(fig, "Appendix B: batch norm hides the size of latent weights and factors")
        left, middle, right = fig.subplots(1, 3)
        for axes, scaled in ((left, "gamma"), (middle, "alpha")):
            _draw_changes(axes, scaled, [c for c in changes if c.scaled == scaled])
        middle.sharey(left)
        left.set_ylabel("Largest relative change")
        _draw_ratios(right, ratios)
        fig.legend(handles=_legend(), loc="outside lower center", ncols=3, handlelength=3.0)
    return fig


def _draw_changes(axes: Axes, scaled: str, changes: "Sequence[Change]") -> None:
    for (dtype, epsilon), (color, linestyle) in _CASES.items():
        case = [c for c in changes if (c.dtype, c.epsilon) == (dtype, epsilon)]
        for quantity, marker in _QUANTITIES.items():
            # A logarithmic axis has no place for zero, which is the unscaled network itself.
            drawn = [c for c in case if getattr(c, quantity) > 0]
            axes.loglog(
                [c.scale for c in drawn],
                [getattr(c, quantity) for c in drawn],
                color=color,
                linestyle=linestyle,
                marker=marker,
                markersize=4,
                markerfacecolor="white" if marker == "^" else color,
                linewidth=1.2,
            )
    axes.axhline(BOUND, color="black", linestyle=":", linewidth=1.2)
    axes.annotate(
        "1e-12",
        (1, BOUND),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 3),
        textcoords="offset points",
        ha="right",
    )
    title, label = _TITLES[scaled]
    axes.set_title(title, fontweight="bold")
    axes.set_xlabel(label)
    _log_axes(axes)
    axes.set_ylim(1e-17, 30)


def _draw_ratios(axes: Axes, ratios: "Sequence[Ratio]") -> None:
    scales = [r.scale for r in ratios]
    rules: tuple[tuple[str, str, str, str, Callable[[Ratio], float]], ...] = (
        ("gradient of the loss", "#4d4d4d", "--", "s", lambda r: r.plain),
        ("after AGS, λ = 0.04", "#56B4E9", "-", "o", lambda r: r.after_ags),
    )
    for label, color, linestyle, marker, value in rules:
        values = [value(r) for r in ratios]
        axes.loglog(
            scales,
            values,
            color=color,
            linestyle=linestyle,
            marker=marker,
            markersize=4,
            label=label,
        )
    axes.set_title("What flips depend on", fontweight="bold")
    axes.set_xlabel("γ")
    axes.set_ylabel("Gradient / weight (median over filters)")
    axes.legend(loc="upper right")
    _log_axes(axes)


def _log_axes(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(base=100.0))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(_power))
    axes.grid(True)


def _power(value: float, _: object = None) -> str:
    exponent = round(math.log10(value)) if value else 0
    return f"{value:g}" if -2 <= exponent <= 3 else f"1e{exponent}"


def _legend() -> list[Line2D]:
    lines = [
        Line2D(
            [], [], color=color, linestyle=linestyle, label=f"{dtype}, batch norm's ε = {_power(e)}"
        )
        for (dtype, e), (color, linestyle) in _CASES.items()
    ]
    markers = [
        Line2D([], [], color="black", linestyle="", marker=marker, label=name)
        for name, marker in _QUANTITIES.items()
    ]
    markers[1].set_markerfacecolor("white")
    return [lines[0], markers[0], lines[1], markers[1], lines[2]]


if __name__ == "__main__":
    tyro.cli(main)
