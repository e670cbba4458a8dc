"""Numbers of features, classes and the like: positive integers."""

import numpy as np


def is_count(value: object) -> bool:
    """Whether a value is a positive integer, of Python or NumPy."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return False
    return bool(value > 0)


def check_counts(**counts: object) -> None:
    """Raises ValueError unless every argument is a positive integer."""
    for name, value in counts.items():
        if not is_count(value):
            raise ValueError(f"{name}={value!r} must be a positive integer.")
