"""What a user's own network must be to be trained, and the errors if it is not."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

import ovsw_jax as ovsw

# Arguments of a `__call__` that say whether the network trains, and what they then are.
_MODES = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}
_MOST_NAMED = 3


def modes(model: nnx.Module, training: bool) -> dict[str, bool]:
    """The arguments of the model's call that say whether it trains."""
    takes = inspect.signature(type(model).__call__).parameters
    return {name: value is training for name, value in _MODES.items() if name in takes}


def abstract(make: Callable[[nnx.Rngs], Any]) -> nnx.Module:
    """The network that a constructor makes, without numbers.

    Raises:
      ValueError: if it is no NNX module, or not all of its state can be carried.
    """

    def made() -> nnx.Module:
        model = make(nnx.Rngs(0, params=0))  # both streams, which the network may keep
        if not isinstance(model, nnx.Module):
            raise ValueError(f"it is no NNX module, but {_kind(model)}")
        return model

    model = nnx.eval_shape(made)
    _check_module(model)
    return model


def _check_module(model: nnx.Module) -> None:
    for path, value in nnx.iter_graph(model):
        if isinstance(value, nnx.Intermediate):
            raise ValueError(
                f"{_name(path)} is an nnx.Intermediate that the constructor makes, and those are "
                "no state. Make it in the call, as by self.sow, or make it an nnx.Variable"
            )
    for path, module in nnx.iter_modules(model):
        _check_arrays(path, module)


def _check_arrays(path: tuple[Any, ...], module: nnx.Module) -> None:
    for name, value in vars(module).items():
        inside = isinstance(value, tuple | list | dict | functools.partial)
        if isinstance(value, functools.partial):
            value = (*value.args, *value.keywords.values())
        held = jax.tree.leaves(value) if inside else [value]
        # Those that are part of the state are abstract here.
        if any(isinstance(x, jax.Array) for x in held):
            raise ValueError(
                f"{_name((*path, name))} is an array outside any Variable, which is no part of the "
                "network's state: make it an nnx.Variable, or a NumPy array"
            )


def check_params(params: Any, binary: str) -> None:
    """Raises ValueError unless they can be trained, and are latent as `Config.binary` says."""
    for path, x in traverse_util.flatten_dict(params).items():
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                f"its parameter {_name(path)} is {x.dtype}, which has no gradient: make it "
                "floating-point, or an nnx.Variable of another kind than nnx.Param"
            )
    latent = any(jax.tree.leaves(ovsw.latent_mask(params)))
    if binary == "both" and not latent:
        raise ValueError("no binary layer: none of its parameters is a latent_kernel")
    if binary != "both" and latent:
        raise ValueError(f"binary={binary}, but one of its parameters is a latent_kernel")


def as_logits(output: Any) -> jax.Array:
    """The output of a network as logits in float32 at least.

    Raises:
      ValueError: if it is no floating-point array.
    """
    if not isinstance(output, jax.Array):
        raise ValueError(f"it gives {_kind(output)}, and must give one array of logits")
    if not jnp.issubdtype(output.dtype, jnp.floating):
        raise ValueError(f"its logits are {output.dtype}, and must be floating-point")
    return output.astype(jnp.promote_types(output.dtype, jnp.float32))


def check_same_structure(before: Any, after: Any) -> None:
    """Raises ValueError if a call in training changed attributes, or made or removed Variables.

    Both graphs are without Variables for inspection.
    """
    if before != after:
        changed = [
            name for name, value in after.attributes if (name, value) not in before.attributes
        ]
        names = [name for name in changed if not name.startswith("_pytree__")]
        raise ValueError(
            f"a call changes what it consists of ({_some(names) or 'something is gone'}), and each "
            "step begins with what the constructor made. Make every nnx.Variable there, keep in "
            "one what changes, and use nnx.Intermediate for what is to be looked at"
        )


def check_same_state(before: Any, after: Any) -> None:
    """Raises ValueError if a call in training changed the shape or dtype of a Variable."""
    old, new = _described(before), _described(after)
    if different := [f"{k} is {old[k]} and becomes {new[k]}" for k in old if old[k] != new[k]]:
        raise ValueError(
            f"a call changes its state: {_some(different)}. A Variable must keep its shape and "
            "dtype, whatever the batch; use nnx.Intermediate for what is to be looked at"
        )


def _described(state: Any) -> Mapping[str, str]:
    flat = traverse_util.flatten_dict(state)
    return {_name(path): f"{x.dtype}{list(x.shape)}" for path, x in flat.items()}


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" * (len(names) > _MOST_NAMED)
    return ", ".join(names[:_MOST_NAMED]) + more


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(map(str, path)) or "the network"


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"
