"""python -m experiments.studies.signs_figure [--out FOLDER]: signs and activations.

Writes signs.csv and signs.png. Both columns of numbers come from the library's own functions: the
values by calling them, the gradients by `jax.vjp`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.figures import style
from experiments.figures.points import Point, write_csv
from experiments.run.reader import FloatArray

NAME = "signs"
GRID = np.round(np.linspace(-2, 2, 201), 2)  # of x

_VALUE, _GRADIENT = "#000000", "#56B4E9"
_COLUMNS = 3


@dataclasses.dataclass(frozen=True)
class Curve:
    """One building block with one setting: its values and its gradients over `GRID`."""

    block: str
    setting: str
    values: FloatArray
    gradients: FloatArray


def main(out: Path = Path("runs") / NAME) -> None:
    """Calls every block, and writes a table and a figure.

    Args:
      out: folder for signs.csv and signs.png, over older ones.
    """
    found = curves()
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / f"{NAME}.csv", rows(found))
    with style.applied():
        figure(found).savefig(out / f"{NAME}.png", dpi=style.DPI)
    for suffix in ("csv", "png"):
        print(out / f"{NAME}.{suffix}")


def curves() -> list[Curve]:
    """All blocks in the order of their panels; a block with two settings has two curves.

    They are chosen by hand, with settings that show what a constant does, so a new sign of the
    library has no curve by itself. `standardized_sign` has none: its gradient at one weight depends
    on the whole filter.
    """
    import jax.numpy as jnp

    from ovsw_jax import models, nn

    def moved(module: Any, **parameters: float) -> Callable[[Any], Any]:
        """A module of one channel, with these parameters, as a function of a vector."""
        for name, value in parameters.items():
            getattr(module, name)[...] = jnp.full(1, value)
        return lambda x: module(x[:, None])[:, 0]

    def aware(x: Any) -> Any:
        """Zeros in the filter bring its mean magnitude down to 0.5."""
        zeros = jnp.zeros(round(2 * np.abs(GRID).sum()) - len(x))
        return nn.magnitude_aware_sign(jnp.concatenate([x, zeros])[:, None])[: len(x), 0]

    blocks: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
        ("sign", "", nn.sign),
        ("ste_sign", "", nn.ste_sign),
        ("clipped_ste_sign", "", nn.clipped_ste_sign),
        ("approx_sign", "", nn.approx_sign),
        ("swish_sign", "β = 5", nn.swish_sign),
        ("swish_sign", "β = 2", lambda x: nn.swish_sign(x, 2)),
        ("tanh_sign", "t = 1", nn.tanh_sign),
        ("tanh_sign", "t = 5", lambda x: nn.tanh_sign(x, 5)),
        ("LearnedThresholdSign", "θ = 0.8", moved(nn.LearnedThresholdSign(1), threshold=0.8)),
        ("LearnedThresholdSign", "θ = 0", moved(nn.LearnedThresholdSign(1))),
        ("magnitude_aware_sign", "mean |W| = 0.5", aware),
        ("hardtanh", "", models.hardtanh),
        ("PReLU", "β = 0.25", moved(nn.PReLU(1))),
        ("RPReLU", "γ = 0.8, ζ = -0.4", moved(nn.RPReLU(1), shift_in=0.8, shift_out=-0.4)),
        ("RPReLU", "γ = ζ = 0", moved(nn.RPReLU(1))),
    )
    return [Curve(block, setting, *_measure(f)) for block, setting, f in blocks]


def _measure(f: Callable[[Any], Any]) -> tuple[FloatArray, FloatArray]:
    """Values, and gradients of a function that acts on every entry by itself."""
    import jax
    import jax.numpy as jnp

    values, transpose = jax.vjp(f, jnp.asarray(GRID, jnp.float32))
    (gradients,) = transpose(jnp.ones_like(values))
    return np.asarray(values, np.float64), np.asarray(gradients, np.float64)


def rows(found: Sequence[Curve]) -> list[Point]:
    """A row per block, setting and x."""
    return [
        {
            "block": c.block,
            "setting": c.setting,
            "x": float(x),
            "value": float(v),
            "gradient": float(g),
        }
        for c in found
        for x, v, g in zip(GRID, c.values, c.gradients, strict=True)
    ]


def figure(found: Sequence[Curve]) -> Figure:
    """A panel per block; a second setting is dashed."""
    blocks = list(dict.fromkeys(curve.block for curve in found))
    with style.applied():
        fig = style.new_figure(8.6, width=9.0)
        style.set_title(fig, "Signs and activations: value and (pseudo-)gradient")
        rows = -(-len(blocks) // _COLUMNS)
        panels = fig.subplots(rows, _COLUMNS, sharex=True).ravel()
        for axes, block in zip(panels, blocks, strict=False):
            _draw(axes, [curve for curve in found if curve.block == block])
        for axes in panels:
            axes.set_xlabel("x")
        style.hide_rest(panels, len(blocks), _COLUMNS)
        fig.legend(handles=_legend(), loc="outside lower center", ncols=4, handlelength=3.0)
    return fig


def _draw(axes: Axes, found: Sequence[Curve]) -> None:
    for curve, linestyle in zip(found, ("-", "--"), strict=False):
        axes.plot(GRID, curve.gradients, color=_GRADIENT, linestyle=linestyle, linewidth=2.6)
        # Thin and on top: where the two are equal, both show.
        axes.plot(GRID, curve.values, color=_VALUE, linestyle=linestyle, linewidth=1.1)
    settings = [curve.setting for curve in found]
    if len(settings) > 1:
        settings[1] += " (dashed)"
    axes.set_title("\n".join([found[0].block, "; ".join(filter(None, settings)) or " "]))
    axes.set_xlim(GRID[0], GRID[-1])
    axes.set_xticks(range(-2, 3))
    axes.grid(True)


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], color=_VALUE, linewidth=1.1, label="value"),
        Line2D(
            [], [], color=_GRADIENT, linewidth=2.6, label="gradient, of a sign the pseudo-gradient"
        ),
        Line2D([], [], color="black", linestyle="--", linewidth=1.2, label="second setting"),
    ]


if __name__ == "__main__":
    tyro.cli(main)
