"""Figures of sweeps of any shape: axes that fit, every label whole and off the data."""

import numpy as np
import pytest
import synthetic_run
import synthetic_sweep
from longer import long_but
from synthetic_sweep import HORIZON, LAM_TAU, LARS_AGS, TUNING
from test_figure_layout import assert_readable

from experiments import figures
from experiments.figures import scales, style
from experiments.run.reader import read_run

# --- scales


def test_a_swept_zero_has_a_place_left_of_the_smallest_value():
    with style.applied():
        axes = style.new_figure(3).subplots()
        scales.swept_values(axes, [0.0, 0.01, 0.1], 6)
        ticks = axes.transData.transform([(x, 0) for x in axes.get_xticks()])[:, 0]
    assert list(axes.get_xticks()) == [0, 0.01, 0.1]
    assert np.all(np.diff(ticks) > 20)


@pytest.mark.parametrize("values", [[0.5], [0.0], [0.1, 0.2], list(np.geomspace(1e-4, 1, 60))])
def test_ticks_of_swept_values_do_not_collide(values):
    with style.applied():
        fig = style.new_figure(3, width=4)
        scales.swept_values(fig.subplots(), values, 3)
        assert_readable(fig)


def test_rates_that_are_all_zero_have_an_axis_too():
    with style.applied():
        axes = style.new_figure(3).subplots()
        assert scales.rates(axes, np.zeros(3)) == "all zero"
        low, high = axes.get_ylim()
    assert low < 0 < high


# --- layout

MANY = "optimizer=ovsw lam=0.001,0.002,0.005,0.01,0.02,0.04,0.08,0.16,0.32 "
MANY += "tau=0.00001,0.00002,0.0001,0.0003,0.0009,0.0027,0.0081"
SHAPES = {
    "gamma": ([synthetic_sweep.GAMMA_GRID], {"layers": synthetic_run.RESNET20_LAYERS}),
    "gamma of one optimizer": (
        ["optimizer=ovsw init_scale=0.1,1"],
        {"seeds": (0,), "layers": [f"encoder/blocks/{i}/attention/query" for i in range(30)]},
    ),
    "gamma beside another sweep": (
        ["optimizer=sgd init_scale=0.1,1,10", "optimizer=adam adam_learning_rate=0.001,0.01"],
        {},
    ),
    "LARS and AGS": (LARS_AGS, {}),
    "LARS and AGS, one seed": (LARS_AGS[:2], {"seeds": (0,), "train_images": 20_000}),
    "lam and tau": ([LAM_TAU], {}),
    "many lam and tau": ([MANY], {"seeds": (0,)}),
    "horizon": (HORIZON, {}),
    "tuning": (TUNING, {"seeds": (0,), "held_out": 5000, "data": "/far/" + "images_" * 9}),
    "lines": (["optimizer=sgd,ovsw,adam,bop learning_rate=0.01,0.03,0.1,0.3,1"], {}),
    "words": (["optimizer=sgd,ovsw flip_state=packed,ema"], {}),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stopped", long_but([False, True], False))
def test_labels_are_whole_apart_and_off_the_data(shape, stopped, tmp_path):
    grids, settings = SHAPES[shape]
    folder = synthetic_sweep.write_sweep(tmp_path, grids, epochs=3, **settings)
    if stopped:
        rows = synthetic_run.read_rows(folder)
        synthetic_run.write_rows(folder, rows[: 2 * len(rows) // 3 + 1])
    with style.applied():
        built = figures.build(read_run(folder), lambda _: None)
        assert built
        for fig in built.values():
            assert_readable(fig)
