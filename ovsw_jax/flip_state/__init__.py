"""Flip state: when each latent weight last changed sign, updated at every step (Eq. 15).

`kinds.py` names the kinds of flip state. Each is a class with the methods of
`protocol.FlipStateKind`, in a file of its own: it says what is stored of a weight.
"""

from ovsw_jax.flip_state.kinds import KINDS, StateKind, kind_named, kind_of
from ovsw_jax.flip_state.protocol import FlipStateKind
from ovsw_jax.flip_state.rule import FlipRule
from ovsw_jax.flip_state.state import FlipState, never_flipped_tree, silent_tree

__all__ = [
    "KINDS",
    "FlipRule",
    "FlipState",
    "FlipStateKind",
    "StateKind",
    "kind_named",
    "kind_of",
    "never_flipped_tree",
    "silent_tree",
]
