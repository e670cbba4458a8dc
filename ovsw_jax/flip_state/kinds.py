"""The kinds of flip state, by name."""

from typing import Literal

import jax

from ovsw_jax.flip_state.ema import Ema
from ovsw_jax.flip_state.packed import Packed
from ovsw_jax.flip_state.packed8 import Packed8
from ovsw_jax.flip_state.protocol import FlipStateKind

StateKind = Literal["packed", "packed8", "ema"]

KINDS: dict[str, FlipStateKind] = {kind.name: kind for kind in (Packed(), Packed8(), Ema())}


def kind_named(state: StateKind) -> FlipStateKind:
    """The kind of that name; ValueError if there is none."""
    if not isinstance(state, str) or state not in KINDS:
        *others, last = (f"{name!r} ({kind.description})" for name, kind in KINDS.items())
        raise ValueError(
            f"state={state!r} is not a kind of flip state: use {', '.join(others)} or {last}."
        )
    return KINDS[state]


def kind_of(history: jax.Array) -> FlipStateKind:
    """The kind that a stored history is of, by its dtype; ValueError if there is none."""
    for kind in KINDS.values():
        if kind.holds(history.dtype):
            return kind
    raise ValueError(
        f"a flip state of the optimizer state has dtype {history.dtype}, which no kind of flip "
        f"state stores ({', '.join(map(repr, KINDS))}). Use the state that the transform's init or "
        "latest update gave, in the dtypes that it had."
    )
