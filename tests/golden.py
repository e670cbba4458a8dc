"""Reference numbers of the authors' PyTorch code: tests/reference/MANIFEST.md says which.

The repository holds all but those that need images of CIFAR-10. Where the full files are present,
in shared/golden beside the checkout, tests read the rest from there.
"""

import functools
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from tests import golden_cut

FULL_FOLDER = pathlib.Path(__file__).parents[2] / "shared" / "golden"


@functools.cache
def arrays_in(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of a file; none if there is no such file."""
    if not path.is_file():
        return {}
    with np.load(path) as archive:
        return dict(archive)


class Reference(Mapping[str, np.ndarray]):
    """The arrays of `<name>.npz`: the committed ones, then those of the full file.

    Looking up an array that is in neither skips the calling test.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.committed = arrays_in(golden_cut.FOLDER / f"{name}.npz")

    @property
    def full(self) -> dict[str, np.ndarray]:
        return arrays_in(FULL_FOLDER / f"{self.name}.npz")

    def __getitem__(self, key: str) -> np.ndarray:
        if key in self.committed:
            return self.committed[key]
        if key not in self.full:
            pytest.skip(
                f"{key} of {self.name}.npz is not in the repository (tests/reference/MANIFEST.md "
                f"says why), nor is the full file in {FULL_FOLDER}"
            )
        return self.full[key]

    def __contains__(self, key: object) -> bool:
        return key in self.committed or key in self.full

    def __iter__(self) -> Iterator[str]:
        return iter(self.full | self.committed)

    def __len__(self) -> int:
        return len(self.full | self.committed)


load = functools.cache(Reference)


def to_hwio(kernel: np.ndarray) -> np.ndarray:
    """The official OIHW order, behind any number of leading axes, in Flax's HWIO order."""
    return np.moveaxis(kernel, (-4, -3), (-1, -2))


class LinearCongruential:
    """The manifest's generator: one independent stream for each of `size` elements."""

    def __init__(self, size: int, seed: int) -> None:
        start = np.arange(size, dtype=np.uint64) * np.uint64(2654435761) + np.uint64(seed)
        self.state = (start & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        for _ in range(16):  # the manifest throws the first 16 away
            self.advance()

    def advance(self) -> np.ndarray:
        self.state = self.state * np.uint32(1664525) + np.uint32(1013904223)  # wraps mod 2^32
        return self.state

    def uniform(self) -> np.ndarray:
        """Float64 in [-0.5, 0.5), exact in float32."""
        return (self.advance() >> 8) * 2.0**-24 - 0.5


@functools.cache
def trajectory_gradients() -> tuple[np.ndarray, np.ndarray]:
    """Start weights (16, 8, 3, 3) and gradients (12000, 16, 8, 3, 3), float32, of a trajectory."""
    data = load("sad_trajectory")
    shape = tuple(int(n) for n in data["shape"])
    size, fan_in = int(np.prod(shape)), int(np.prod(shape[1:]))
    filter_of = np.arange(size) // fan_in
    stream = LinearCongruential(size, int(data["seed"]))

    period = data["periods"][(stream.state >> 20) % 6]
    phase = ((stream.advance() >> 8) % 16384).astype(np.int64)
    start = stream.uniform() + stream.uniform() + stream.uniform() + stream.uniform()
    start = start * np.sqrt(2 / fan_in) * np.sqrt(3)
    start[filter_of == 14] = 0.0
    start[(filter_of % 2 == 0) & (np.arange(size) % fan_in < 3)] = 0.0

    scale = np.where(filter_of == 15, 0.0, 2.0 ** data["sc_exp"][filter_of])
    gradients = np.empty((len(data["d001/lr"]), size), np.float32)
    for step, row in enumerate(gradients):
        wave = 1 - 2 * (((step + phase) // period) % 2)
        row[:] = (stream.uniform() + float(data["D"]) * wave) * scale
    return start.astype(np.float32).reshape(shape), gradients.reshape(-1, *shape)
