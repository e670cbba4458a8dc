"""Steps with numbers that are not finite: found, skipped and counted, all on the device."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

_MOST_NAMED = 3  # layers in a message
Tree = TypeVar("Tree")


class Skips(NamedTuple):
    """How the latest steps of a training went.

    Attributes:
      in_a_row: int32 scalar, steps skipped since the last one that was taken.
      wrong: (1 + parameters,) bools: what was not finite in the latest skipped step. The first
        stands for loss and batch statistics, the others for each parameter's gradient, in the
        order of the tree's leaves.
    """

    in_a_row: jax.Array
    wrong: jax.Array


def no_skips(params: Any) -> Skips:
    """`Skips` before the first step."""
    return Skips(jnp.zeros((), jnp.int32), jnp.zeros(1 + len(jax.tree.leaves(params)), bool))


def look_at(
    skips: Skips, loss: jax.Array, statistics: Any, gradients: Any, max_skipped: int
) -> tuple[jax.Array, Skips]:
    """Decides whether to take a step, and counts.

    After `max_skipped` skipped steps in a row the training is given up: it takes no further step.
    So the result does not depend on when the host reads the count. Under `jax_debug_nans` every
    step is taken, as JAX looks for NaN in results only.

    Args:
      skips: of the steps before.
      loss: of this step.
      statistics: after this step. They can be NaN although the loss is finite, and stay so.
      gradients: of this step, a tree of arrays.
      max_skipped: steps skipped in a row that give the training up.

    Returns:
      A bool scalar, and the `Skips` after this step.
    """
    floats = [x for x in jax.tree.leaves(statistics) if jnp.issubdtype(x.dtype, jnp.floating)]
    forward = ~jnp.isfinite(loss) | has_nan(floats)
    backward = [~jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(gradients)]
    wrong = jnp.stack([forward, *backward])
    given_up = skips.in_a_row >= max_skipped
    finite = ~jnp.any(wrong)
    searches = jax.config.jax_debug_nans  # type: ignore[attr-defined]
    made = finite & ~given_up | searches
    return made, Skips(
        jnp.where(made, 0, skips.in_a_row + 1), jnp.where(finite | given_up, skips.wrong, wrong)
    )


def has_nan(arrays: Sequence[jax.Array]) -> jax.Array:
    """Whether any array holds NaN. Infinity is allowed: a running minimum may start there."""
    return jnp.any(jnp.array([jnp.any(jnp.isnan(x)) for x in arrays], bool))


def if_made(made: jax.Array, new: Tree, old: Tree) -> Tree:
    """The new tree if the step is taken, else the old one bit for bit."""
    return jax.tree.map(lambda x, y: jnp.where(made, x, y), new, old)


def name_wrong(params: Any, wrong: Sequence[bool]) -> str:
    """`Skips.wrong` of one training in words.

    >>> params = {"conv": {"latent_kernel": 0.0}, "fc": {"bias": 0.0, "kernel": 0.0}}
    >>> name_wrong(params, [True, False, True, True])
    'the loss or the batch statistics, and the gradients of fc/bias, fc/kernel'
    """
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    layers = [_layer(path) for path, bad in zip(paths, wrong[1:], strict=True) if bad]
    names = ", ".join(layers[:_MOST_NAMED])
    if len(layers) > _MOST_NAMED:
        names += f" and {len(layers) - _MOST_NAMED} more"
    parts = ["the loss or the batch statistics"] * bool(wrong[0])
    return ", and ".join([*parts, *[f"the gradients of {names}"] * bool(layers)])


def _layer(path: Sequence[Any]) -> str:
    """Name of a parameter in a nested dict; of a latent kernel, that of its layer."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/").removesuffix(
        "/latent_kernel"
    )
