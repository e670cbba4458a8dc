"""What drawn figures and their CSV files hold, and what a run measured, for tests."""

import csv

import numpy as np
import synthetic_run
from matplotlib.container import ErrorbarContainer


def values_of(folder, optimizer, point, key, epoch):
    """Percentages of all seeds, read without the code under test."""
    return [
        100 * row[key]
        for row in synthetic_run.read_rows(folder)
        if (row["optimizer"], row.get("point"), row["epoch"]) == (optimizer, point, epoch)
    ]


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def bars(axes):
    """(x, mean, std) of every curve with error bars, as drawn."""
    found = []
    for container in axes.containers:
        assert isinstance(container, ErrorbarContainer)
        line, _, segments = container
        x, y = line.get_data()
        half = [(s[1, 1] - s[0, 1]) / 2 for s in segments[0].get_segments()]
        found.append((np.asarray(x, float), np.asarray(y, float), np.array(half)))
    return found
