"""Finds states in an optimizer state, and words the errors about those that can't be read."""

from typing import Any

import jax


def find_states(opt_state: Any, kind: type) -> list[Any]:
    """All states of one class in `opt_state`, in tree order.

    Args:
      opt_state: state of any optimizer.
      kind: a class, or a protocol that can be checked at runtime. A state that is found is searched
        too: it may be that of a wrapper, with the states of other transforms inside.
    """

    def is_kind(x: Any) -> bool:
        return isinstance(x, kind)

    found = []
    for state in filter(is_kind, jax.tree.leaves(opt_state, is_leaf=is_kind)):
        found.append(state)
        for part in _parts(state):
            found += find_states(part, kind)
    return found


def _parts(node: Any) -> list[Any]:
    """The children of a node of a tree; none of a leaf."""
    children = jax.tree.leaves(node, is_leaf=lambda x: x is not node)
    return [child for child in children if child is not node]


def check_unbatched(state: Any, reader: str) -> None:
    """Raises ValueError if the count of `state` has an axis of `vmap`.

    Args:
      state: of a transform; one without a `count` passes.
      reader: the public name of the function that reads it.
    """
    shape = getattr(getattr(state, "count", 0), "shape", ())  # of a plain tuple it is a method
    if shape:
        raise ValueError(
            f"the optimizer state has a leading axis of {shape}, as vmap makes "
            f"it. Call {reader} inside: jax.vmap(ovsw.{reader})(opt_state)."
        )


def ambiguous(name: str, what: str) -> str:
    """The message about an optimizer state that holds two answers for one layer."""
    return (
        f"{what} of {name!r} is ambiguous: the optimizer tracks that layer twice, or two layers "
        "have that name ('total' is the name of the totals). Chain either ovsw.sad() or "
        "ovsw.track_flip_state(), or look at one part of the optimizer state at a time."
    )


def no_flip_state(opt_state: Any) -> str:
    """The message about an optimizer state in which nothing is tracked."""
    return (
        f"the optimizer state ({type(opt_state).__name__}) holds no flip state of any layer. Chain "
        "ovsw.track_flip_state() with the optimizer to observe it, or ovsw.sad() to act on it."
    )
