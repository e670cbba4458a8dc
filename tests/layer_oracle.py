"""Signs and convolutions in NumPy, written as their definitions."""

import itertools

import numpy as np


def numpy_sign(x):
    return np.where(x >= 0, 1.0, -1.0)


def numpy_conv(signs, kernel, strides=(1, 1), pads=((0, 0), (0, 0)), dilation=(1, 1), groups=1):
    """A convolution written as its definition: a sum over the window, pixel by pixel."""
    signs = np.pad(signs, ((0, 0), *pads, (0, 0)))
    size, per_group, filters = kernel.shape[:2], kernel.shape[2], kernel.shape[3]
    shape = [
        (n - (k - 1) * d - 1) // s + 1
        for n, k, d, s in zip(signs.shape[1:3], size, dilation, strides, strict=True)
    ]
    out = np.zeros((len(signs), *shape, filters))
    for n, i, j, f in itertools.product(*map(range, out.shape)):
        first = f // (filters // groups) * per_group
        for a, b, c in itertools.product(range(size[0]), range(size[1]), range(per_group)):
            row, column = i * strides[0] + a * dilation[0], j * strides[1] + b * dilation[1]
            out[n, i, j, f] += signs[n, row, column, first + c] * kernel[a, b, c, f]
    return out


def slopes(f, x, step=1e-6):
    """Central differences of a scalar f(x) of a float64 array x, entry by entry."""
    x, out = np.array(x, np.float64), np.zeros(np.shape(x))
    for i in np.ndindex(x.shape):
        ends = []
        for h in (step, -step):
            moved = x.copy()
            moved[i] += h
            ends.append(float(f(moved)))
        out[i] = (ends[0] - ends[1]) / (2 * step)
    return out
