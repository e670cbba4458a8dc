"""Made-up run folders of sweeps, for the tests of figures and summary."""

import itertools
import math
import zlib
from pathlib import Path

import numpy as np
import synthetic_run

GAMMAS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0)
GAMMA_GRID = "optimizer=sgd,ovsw init=normal,uniform init_scale=" + ",".join(map(str, GAMMAS))

LARS_AGS = (
    "optimizer=lars eta=0.001,0.003,0.01,0.02,0.05,0.1",
    "optimizer=ags lam=0.005,0.01,0.02,0.04,0.08,0.16",
    "optimizer=sgd",
)
LAM_TAU = "optimizer=ovsw lam=0.01,0.02,0.04,0.08 tau=0.0001,0.0003,0.0009"
HORIZON = ("optimizer=ovsw threshold=1e-5,3e-5,1e-4,3e-4,9e-4", "optimizer=sgd")
TUNING = (
    "optimizer=sgd learning_rate=0.01,0.03,0.1 weight_decay=0.0005,0.00005",
    "optimizer=adam adam_learning_rate=0.0001,0.0003,0.001,0.003,0.01,0.03",
    "optimizer=lars eta=0.001,0.003,0.01,0.02,0.05,0.1",
    "optimizer=bop bop_threshold=1e-8,1e-7,1e-6 bop_adaptivity=0.0001,0.001",
    "optimizer=ags lam=0.005,0.01,0.02,0.04,0.08,0.16",
    "optimizer=sad tau=0.0001,0.0003,0.0009,0.0027,0.008,0.01",
    "optimizer=ovsw lam=0.01,0.04,0.16 tau=0.0003,0.0009",
)


def points(grids):
    """(optimizer, point) of every grid, written without the code under test."""
    for grid in grids:
        fields = dict(part.split("=") for part in grid.split())
        names = list(fields)
        for values in itertools.product(*(fields[name].split(",") for name in names)):
            point = {n: _typed(v) for n, v in zip(names, values, strict=True)}
            yield point.pop("optimizer"), point


def _typed(text):
    try:
        return float(text)
    except ValueError:
        return text


def write_sweep(
    folder: Path,
    grids,
    *,
    seeds=(0, 1, 2),
    epochs=12,
    evaluate_every=1,
    layers=synthetic_run.DIGITS_LAYERS,
    diverging=lambda optimizer, point: False,
    **config,
) -> Path:
    """Writes config.json, versions.json and metrics.jsonl of a sweep that came to its end."""
    optimizers = list(dict.fromkeys(name for name, _ in points(grids)))
    synthetic_run.write_run(
        folder,
        layers=layers,
        seeds=seeds,
        epochs=epochs,
        optimizers=optimizers,
        latents=False,
        grids=list(grids),
        evaluate_every=evaluate_every,
        **({"lam": 0.04, "tau": 9e-4, "eta": 0.01, "flip_momentum": 0.999} | config),
    )
    rows = []
    for optimizer, point in points(grids):
        rng = np.random.default_rng(zlib.crc32(repr((optimizer, point)).encode()))
        shift, flips = _effect(point)
        for epoch, seed in itertools.product(range(1, epochs + 1), seeds):
            row = synthetic_run._row(optimizer, seed, epoch, epochs, layers, rng)
            row["point"] = point
            row["test_top1"] = float(np.clip(row["test_top1"] - shift, 0.1, 1))
            for values in (row, *row["layers"].values()):
                values["epoch_flip_ratio"] *= flips
            if diverging(optimizer, point):
                row |= {"loss": math.nan, "test_top1": 0.1}
            if epoch % evaluate_every and epoch != epochs:
                del row["test_top1"]
            rows.append(row)
    synthetic_run.write_rows(folder, rows)
    return folder


def _effect(point):
    """Loss of top-1, and factor of the flips, as a scale or coefficient moves off its best."""
    shift, flips = 0.0, 1.0
    for field, best in {
        "init_scale": 0.1,
        "eta": 0.02,
        "lam": 0.04,
        "tau": 9e-4,
        "threshold": 1e-4,
        "learning_rate": 0.1,
        "adam_learning_rate": 1e-3,
        "bop_threshold": 1e-6,
    }.items():
        if field in point:
            shift += 0.03 * math.log10(max(point[field], 1e-7) / best) ** 2
    if "init_scale" in point:
        flips = min(3.0, point["init_scale"] ** -0.5)
        flips = 0.0 if point["init_scale"] > 500 else flips
    shift += 0.02 * (point.get("init") == "uniform")
    return shift, flips
