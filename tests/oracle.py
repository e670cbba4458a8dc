"""OvSW in plain NumPy float64, written from the equations; imports nothing of the library.

Arrays are numpy.float64 throughout. A filter's axes are given as the tuple that its norm reduces.
"""

import dataclasses

import numpy as np

GRADIENT_FLOOR = 1e-6
WEIGHT_FLOOR = 1e-3


def sign(x, of_zero=1.0):
    """The sign of x as -1.0 or 1.0, and `of_zero` where x is 0 or -0.0."""
    x = np.asarray(x, np.float64)
    return np.where(x == 0, of_zero, np.sign(x))


def filter_norm(x, axes, floor=0.0):
    """2-norm over `axes` (kept as length 1), at least `floor`; its squares can't overflow."""
    x = np.asarray(x, np.float64)
    largest = np.max(np.abs(x), axis=axes, keepdims=True, initial=0.0)
    divisor = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
    norm = divisor * np.sqrt(np.sum((x / divisor) ** 2, axis=axes, keepdims=True))
    return np.maximum(norm, floor)


@dataclasses.dataclass(frozen=True)
class Ags:
    """Eq. 14 for one kernel: the new gradient; per filter, whether it was rescaled and |G|/|W|."""

    gradient: np.ndarray
    rescaled: np.ndarray
    ratio: np.ndarray


def ags(gradient, weight, lam, axes=(0, 1, 2)):
    gradient = np.asarray(gradient, np.float64)
    gradient_norm = filter_norm(gradient, axes, GRADIENT_FLOOR)
    weight_norm = filter_norm(weight, axes, WEIGHT_FLOOR)
    ratio = gradient_norm / weight_norm
    rescaled = ratio < lam
    factor = np.where(rescaled, lam * weight_norm / gradient_norm, 1.0)
    return Ags(gradient * factor, np.squeeze(rescaled, axes), np.squeeze(ratio, axes))


class FlipTracker:
    """Eq. 15, literally: S <- mu S + (1 - mu) * [the sign differs from the previous step's]."""

    def __init__(self, momentum=0.999, threshold=1e-4, sign_of_zero=1.0):
        self.momentum, self.threshold, self.sign_of_zero = momentum, threshold, sign_of_zero
        self.last_sign = None
        self.ema = None
        self.ever_flipped = None

    def update(self, weight):
        """Takes W(t); returns which weights flipped since W(t-1) and which are silent."""
        now = sign(weight, self.sign_of_zero)
        if self.last_sign is None:  # initialisation is not a flip
            self.last_sign, self.ema = now, np.zeros(now.shape)
            self.ever_flipped = np.zeros(now.shape, bool)
        flipped = now != self.last_sign
        self.ema = self.momentum * self.ema + (1 - self.momentum) * flipped
        self.ever_flipped |= flipped
        self.last_sign = now
        return flipped, self.ema < self.threshold


def sad(gradient, weight, silent, tau):
    """Eq. 16: the silent weights' gradients grow by tau * W."""
    return np.asarray(gradient, np.float64) + tau * silent * np.asarray(weight, np.float64)


def sgd_step(weight, velocity, gradient, learning_rate, momentum, weight_decay):
    """Heavy-ball SGD with decay added to the gradient: returns W and V after the step."""
    velocity = momentum * velocity + (gradient + weight_decay * weight)
    return weight - learning_rate * velocity, velocity


@dataclasses.dataclass
class Algorithm3:
    """One latent kernel trained by Algorithm 3; `step` returns what the step used."""

    weight: np.ndarray
    lam: float
    tau: float
    sgd_momentum: float
    weight_decay: float
    tracker: FlipTracker
    axes: tuple = (0, 1, 2)

    def __post_init__(self):
        self.weight = np.asarray(self.weight, np.float64)
        self.velocity = np.zeros_like(self.weight)

    def step(self, gradient, learning_rate):
        """Moves weight and velocity; returns (flipped, silent, gradient after AGS and SAD)."""
        flipped, silent = self.tracker.update(self.weight)
        scaled = ags(gradient, self.weight, self.lam, self.axes).gradient
        woken = sad(scaled, self.weight, silent, self.tau)
        self.weight, self.velocity = sgd_step(
            self.weight, self.velocity, woken, learning_rate, self.sgd_momentum, self.weight_decay
        )
        return flipped, silent, woken


def lars_rate(gradient, weight, eta, weight_decay):
    """Line 5 of Algorithm 2, over the whole layer; 0 where it is 0/0 or infinite."""
    gradient_norm = filter_norm(gradient, None).item()
    weight_norm = filter_norm(weight, None).item()
    divisor = gradient_norm + weight_decay * weight_norm
    return 0.0 if weight_norm == 0 or divisor == 0 else eta * weight_norm / divisor


@dataclasses.dataclass
class Algorithm2:
    """One layer trained by SGD with LARS; `step` returns the layer's rate."""

    weight: np.ndarray
    eta: float
    sgd_momentum: float
    weight_decay: float
    literal: bool = False  # move by the momentum of before the step

    def __post_init__(self):
        self.weight = np.asarray(self.weight, np.float64)
        self.velocity = np.zeros_like(self.weight)

    def step(self, gradient, learning_rate):
        rate = lars_rate(gradient, self.weight, self.eta, self.weight_decay)
        before = self.velocity
        decayed = np.asarray(gradient, np.float64) + self.weight_decay * self.weight
        self.velocity = self.sgd_momentum * before + decayed
        used = before if self.literal else self.velocity
        self.weight = self.weight - learning_rate * rate * used
        return rate


class Bop:
    """Helwegen et al.: flips a sign where the average gradient exceeds the threshold along it."""

    def __init__(self, weight, threshold, adaptivity):
        self.weight = sign(weight)
        self.threshold, self.adaptivity = threshold, adaptivity
        self.momentum = np.zeros(self.weight.shape)

    def step(self, gradient):
        """Moves weight and momentum; returns how far |m| is from the threshold."""
        gradient = np.asarray(gradient, np.float64)
        self.momentum = (1 - self.adaptivity) * self.momentum + self.adaptivity * gradient
        along = self.momentum * self.weight
        self.weight = np.where(along > self.threshold, -self.weight, self.weight)
        return np.abs(np.abs(self.momentum) - self.threshold)


def silence_horizon(momentum, threshold, longest=10**7):
    """Steps that one flip keeps S at or above the threshold, counted by running the average."""
    ema, steps = 1 - momentum, 0
    while ema >= threshold:
        ema, steps = momentum * ema, steps + 1
        if steps > longest:
            raise ValueError(f"no silence within {longest} steps")
    return steps
