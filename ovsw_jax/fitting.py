"""Whether state, gradients and hyperparameters fit the weights that they are given for."""

from collections.abc import Collection, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def check_params(params: Any, rule: str) -> None:
    """Raises ValueError if `update` was called without params; `rule` is the public name."""
    if params is None:
        raise ValueError(
            f"{rule} reads the weights, but params=None: call update(gradients, state, params), "
            "with the params at which the gradients were taken."
        )


def check_state(state: Any, kind: type) -> None:
    """Raises TypeError unless an optimizer state is of the class that `init` makes."""
    if not isinstance(state, kind):
        raise TypeError(
            f"the optimizer state is of type {type(state).__name__}, not {kind.__name__}. Pass the "
            "state that this transform's init or latest update gave. Restore a checkpoint of plain "
            "dicts and lists into tx.init(params), which has the structure."
        )
    axes = np.shape(getattr(state, "count", 0))
    if axes:
        raise ValueError(
            f"the optimizer state has a leading axis of {axes}, as vmap makes it. "
            "Call update inside jax.vmap too, with params and gradients that have that axis."
        )


def is_masked(x: Any) -> bool:
    """Whether `x` stands where the mask left a parameter out."""
    return isinstance(x, optax.MaskedNode)


def lacks_gradient(gradient: Any) -> bool:
    """Whether there is no gradient: None (in filtered gradients), or float0 (of integers)."""
    dtype = getattr(gradient, "dtype", None)
    return gradient is None or is_masked(gradient) or dtype == jax.dtypes.float0


def canonical(x: Any) -> Any:
    """A NumPy number or array as JAX converts it: float64 to float32 unless 64 bits are on."""
    return jnp.asarray(x) if isinstance(x, float | np.ndarray | np.generic) else x


def check_gradient(name: str, gradient: Any, weight: Any) -> None:
    """Raises unless a gradient is a floating-point array of the shape of its weights."""
    dtype = getattr(gradient, "dtype", type(gradient).__name__)
    if not hasattr(gradient, "shape") or not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(
            f"gradient of {name!r} has dtype {dtype}; it must be a floating-point array. Where "
            "there is no gradient (integer counters) give None or float0, or give these params an "
            "optimizer of their own by optax.partition."
        )
    if gradient.shape != np.shape(weight):
        raise ValueError(
            f"gradient of {name!r} has shape {gradient.shape}, its weights {np.shape(weight)}; "
            "they must be equal. Pass `params` as they were when the gradient was taken."
        )


def check_entry(name: str, entry: Any, weight: Any, what: str) -> None:
    """Raises unless what a state holds of some weights is an array of their shape."""
    if is_masked(entry):
        raise ValueError(made_with_another_mask(what, lacking=[name]))
    if not hasattr(entry, "shape"):
        raise TypeError(
            f"{what} of {name!r} is a {type(entry).__name__}, which is no array. Restore a "
            "checkpoint into tx.init(params), which has the structure."
        )
    if entry.shape != np.shape(weight):
        raise ValueError(
            f"weights of {name!r} have shape {np.shape(weight)}, their {what} {entry.shape}; they "
            "must be equal. Initialise the optimizer with these params, or pass the params that it "
            "was initialised with."
        )


def check_average(name: str, entry: Any, weight: Any, what: str) -> None:
    """Like `check_entry`, and raises unless the dtype can hold an average of gradients."""
    check_entry(name, entry, weight, what)
    if not jnp.issubdtype(entry.dtype, jnp.floating):
        raise ValueError(
            f"{what} of {name!r} has dtype {entry.dtype}, which can't average gradients. Use the "
            "state that this transform's init or latest update gave."
        )


def made_with_another_mask(
    what: str, lacking: Collection[str], surplus: Collection[str] = ()
) -> str:
    """The message about a state of other layers than the mask selects."""
    differences = [
        f"{verb} {', '.join(map(repr, sorted(names)))}"
        for verb, names in (("lacks", lacking), ("has in excess", surplus))
        if names
    ]
    return (
        f"{what} is not of the layers that the mask selects ({'; '.join(differences)}): it was "
        "made with another mask, or of other params. Use those that the optimizer state was made "
        "with, or initialise the optimizer again with these."
    )


def check_fits(weights: Iterable[tuple[str, Any]], **hyperparameters: Any) -> None:
    """Raises ValueError where one is an array that would change the shape of an update.

    Args:
      weights: what the hyperparameters act on, arrays with the names of their layers.
      **hyperparameters: their values of this step, by name.
    """
    weights = list(weights)
    for hyperparameter, value in hyperparameters.items():
        shape = np.shape(value)
        for name, weight in weights if shape else ():
            try:
                fits = np.broadcast_shapes(shape, np.shape(weight)) == np.shape(weight)
            except ValueError:
                fits = False
            if not fits:
                raise ValueError(
                    f"{hyperparameter} has shape {shape}, weights of {name!r} {np.shape(weight)}, "
                    "which it must broadcast to. Give a single number."
                )
