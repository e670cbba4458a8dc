"""What a kind of flip state must do, so that rules, metrics and conversion work with it."""

from typing import Any, Protocol, runtime_checkable

import jax

from ovsw_jax.hyperparams import Hyperparameter


@runtime_checkable
class FlipStateKind(Protocol):
    """Stores of each weight its last sign, and enough of the average S of Eq. 15.

    What is stored of one kernel is its history, an array of the kernel's shape. `phase` is a
    float32 scalar that all histories of a `FlipState` share: what the time steps so far left over,
    for kinds that count whole time steps. Every method is elementwise and works under `jit`.

    Attributes:
      name: the value of `state=` that selects this kind.
      description: a few words on what it costs, for error messages.
    """

    @property
    def name(self) -> str:
        """See the class."""

    @property
    def description(self) -> str:
        """See the class."""

    def holds(self, dtype: Any) -> bool:
        """Whether a stored array of this dtype is a history of this kind; of one kind alone."""

    def check_range(self, momentum: Hyperparameter, threshold: Hyperparameter) -> None:
        """Raises ValueError if it cannot hold the horizon that the known values span."""

    def init(self, weight: jax.Array) -> jax.Array:
        """History of weights that never flipped, and whose signs are those of `weight`."""

    def update(
        self,
        history: jax.Array,
        positive: jax.Array,
        flipped: jax.Array,
        momentum: jax.Array | float,
        phase: jax.Array,
    ) -> jax.Array:
        """History after one step of Eq. 15.

        Args:
          history: before the step.
          positive: bool, same shape; whether the weight is >= 0 now.
          flipped: bool, same shape; whether that differs from the last sign.
          momentum: scalar mu.
          phase: before the step.
        """

    def next_phase(self, phase: jax.Array, momentum: jax.Array | float) -> jax.Array:
        """The phase after one step."""

    def last_sign_positive(self, history: jax.Array) -> jax.Array:
        """Whether the last sign is +; bool."""

    def silent(self, history: jax.Array, threshold: jax.Array, phase: jax.Array) -> jax.Array:
        """Whether S < sigma, by the phase after the step that wrote `history`; bool.

        S is at most 1, so every weight is silent at a threshold above 1. A weight that never
        flipped is silent at every threshold.
        """

    def never_flipped(self, history: jax.Array) -> jax.Array:
        """Whether the weight has kept the sign of its initialisation; bool.

        No number of steps without a flip makes it True of a weight that flipped.
        """

    def average(self, history: jax.Array, phase: jax.Array) -> jax.Array:
        """S in floating point, 0 only for weights that never flipped."""

    def of_average(self, average: jax.Array, positive: jax.Array, phase: jax.Array) -> jax.Array:
        """History at `phase` of weights with this S and last sign; the inverse of `average`."""

    def in_dtype(self, history: jax.Array, dtype: Any) -> jax.Array:
        """The history with averages of this dtype; as it is, if it holds none."""
