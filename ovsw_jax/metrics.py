"""What the states of an optimizer report of each layer and of the whole network."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from ovsw_jax.flip_state import FlipState
from ovsw_jax.latent import named_leaves
from ovsw_jax.reading import ambiguous, check_unbatched, find_states, no_flip_state

Metrics = dict[str, dict[str, jax.Array]]


@runtime_checkable
class ReportsMetrics(Protocol):
    """A state of a transform that `flip_metrics` reads.

    A state reports by having the method `layer_metrics`; it inherits from nothing, and its fields
    and structure as a pytree are its own. `FlipState` and `AgsState` report so. In a chain, a
    wrapper or another state it is found like them.

    Example:
      >>> import jax, jax.numpy as jnp, optax, ovsw_jax as ovsw
      >>> from typing import Any, NamedTuple
      >>> class SizeState(NamedTuple):
      ...     mean_size: Any  # per param, the mean of |W|
      ...     weights: Any  # per param, how many weights it has
      ...     def layer_metrics(self):
      ...         return {"mean_size": (self.mean_size, self.weights)}
      >>> def observe(params):
      ...     return SizeState(
      ...         jax.tree.map(lambda w: jnp.mean(jnp.abs(w)), params),
      ...         jax.tree.map(jnp.size, params),
      ...     )
      >>> track_size = optax.GradientTransformation(
      ...     observe, lambda updates, state, params: (updates, observe(params))
      ... )
      >>> params = {"a": jnp.ones((2, 3)), "b": 3 * jnp.ones(2)}
      >>> state = optax.chain(track_size, optax.sgd(0.1)).init(params)
      >>> float(ovsw.flip_metrics(state)["total"]["mean_size"])  # of eight weights
      1.5

    Source: ours.
    """

    def layer_metrics(self) -> Mapping[str, tuple[Any, Any]]:
        """What the state says of each layer.

        Returns:
          From the name of each metric to two trees. The first has a real scalar per layer, at the
          place of the layer's params; what is outside the transform's mask is an
          `optax.MaskedNode`. The second has the weight of that layer in the total, a scalar >= 0,
          at the same places: the total is the weighted mean, and 0 if all weights are 0. The
          value of a layer of weight 0 does not count, even if it is NaN.
        """


def flip_metrics(opt_state: Any) -> Metrics:
    """Flips, silent weights and rescaled filters, per layer and in total.

    Args:
      opt_state: state of any optimizer that contains `scale_by_ags`, `silence_aware_decay` or
        `track_flip_state`, however nested (chain, masked, partition, MultiSteps,
        inject_hyperparams, `nnx.Optimizer.opt_state`), or a state of your own that reports
        (`ReportsMetrics`). Under `vmap`, call it inside.

    Returns:
      A dict from layer name (its path, as `layer1/0/conv1`), and from `"total"`, to float32
      scalars. With a flip state: `flip_ratio`, `silent_ratio`, `never_flipped_ratio`, shares of
      weights (0 to 1) at the latest update. With AGS: `rescaled_filter_ratio`, the share of
      filters below the floor, and `grad_weight_ratio`, the mean over filters of |G_i| / |W_i|.
      Totals weigh every weight, or every filter, alike. A stack of layers in one kernel, as
      `nnx.vmap` makes it, counts as one layer. With a state of your own: its metrics.

    Raises:
      ValueError: if `opt_state` contains none of them, holds a leading axis of `vmap`, tracks a
        layer twice, has two layers of one name or one called `total`, or if two states report a
        metric of one name for a layer; or if a state reports anything but scalars, a negative
        number as a weight, or other layers in its values than in their weights.
      TypeError: if `layer_metrics` of a state returns no mapping from names to two trees of
        numbers.

    Example:
      >>> import jax.numpy as jnp, optax, ovsw_jax as ovsw
      >>> params = {"conv": {"latent_kernel": jnp.ones((3, 3, 8, 4))}}
      >>> metrics = ovsw.flip_metrics(ovsw.ovsw_sgd(0.1).init(params))
      >>> sorted(metrics), float(metrics["conv"]["never_flipped_ratio"])
      (['conv', 'total'], 1.0)

    Source: Eqs. 14 to 16 of OvSW (Xiang et al., ECCV 2024).
    """
    layers: Metrics = {}
    weights: Metrics = {}  # what one layer counts in the totals
    reporter: dict[tuple[str, str], str] = {}

    # Those of the flip state come first, wherever it is in a chain.
    states = find_states(opt_state, ReportsMetrics)
    states.sort(key=lambda state: not isinstance(state, FlipState))
    for state in states:
        check_unbatched(state, "flip_metrics")
    for state in states:
        source = type(state).__name__
        for metric, report in _report(state, source).items():
            values, counts = _named_numbers(report, f"{metric!r} of {source}")
            for (name, value), (_, count) in zip(values, counts, strict=True):
                if name == "total" or metric in layers.get(name, {}):
                    first = reporter.get((name, metric), source)
                    raise ValueError(_clash(name, metric, {first, source}))
                reporter[name, metric] = source
                layers.setdefault(name, {})[metric] = value
                weights.setdefault(name, {})[metric] = count
    if not layers:
        raise ValueError(no_flip_state(opt_state))
    layers["total"] = _totals(layers, weights)
    return layers


def _totals(layers: Metrics, weights: Metrics) -> dict[str, jax.Array]:
    totals = {}
    for metric in dict.fromkeys(m for values in layers.values() for m in values):
        names = [name for name in layers if metric in layers[name]]
        weight = jnp.stack([weights[name][metric] for name in names])
        value = jnp.stack([layers[name][metric] for name in names])
        value = jnp.where(weight == 0, 0, value)  # the mean of an empty layer is NaN
        whole = jnp.sum(weight)
        totals[metric] = jnp.sum(value * weight) / jnp.where(whole > 0, whole, 1)
    return totals


def _clash(name: str, metric: str, sources: set[str]) -> str:
    if len(sources) == 1:
        return ambiguous(name, metric)
    return (
        f"{metric} of {name!r} is ambiguous: {' and '.join(sorted(sources))} both report it. Give "
        "the metric another name in layer_metrics of one of them."
    )


def _report(state: Any, source: str) -> Mapping[str, tuple[Any, Any]]:
    """What `layer_metrics` of a state returns; TypeError unless it maps names to pairs."""
    if not callable(state.layer_metrics):
        raise TypeError(
            f"layer_metrics={state.layer_metrics!r} of {source} is no method. Make it one that "
            "returns the metrics of each layer, or give the field another name."
        )
    report = state.layer_metrics()
    named = isinstance(report, Mapping) and all(isinstance(name, str) for name in report)
    if not named or not all(isinstance(x, tuple) and len(x) == 2 for x in report.values()):
        raise TypeError(
            f"layer_metrics() of {source} returned {report!r}. It must be a dict from the name of "
            "each metric to a tuple of two trees: a scalar per layer, and its weight in the total."
        )
    return report


def _named_numbers(report: tuple[Any, Any], what: str) -> list[list[tuple[str, jax.Array]]]:
    """The values and weights of one metric as float32, with the names of their layers."""
    values, weights = map(named_leaves, report)
    places, weight_places = ([name for name, _ in leaves] for leaves in (values, weights))
    if places != weight_places:
        raise ValueError(
            f"layer_metrics() reports {what} for the layers {places}, with weights for "
            f"{weight_places}; they must be the same. Build both trees from the same params."
        )
    for name, x in weights:
        _check_weight(x, f"weight {what} for the layer {name!r}")
    return [
        [(name, _number(x, f"{part} {what} for the layer {name!r}")) for name, x in leaves]
        for part, leaves in (("value", values), ("weight", weights))
    ]


def _check_weight(x: Any, what: str) -> None:
    """Raises ValueError for a negative number; an array's are not looked at."""
    if isinstance(x, int | float | np.integer | np.floating) and x < 0:
        raise ValueError(
            f"layer_metrics() reports a {what} that is {x}; it must be at least 0, such as how "
            "many weights the layer has."
        )


def _number(x: Any, what: str) -> jax.Array:
    try:
        # A count of Python can be beyond int32.
        number = jnp.asarray(float(x) if type(x) is int else x)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(_no_number(what, repr(x))) from error
    if not any(jnp.issubdtype(number.dtype, real) for real in (jnp.floating, jnp.integer)):
        raise TypeError(_no_number(what, f"of dtype {number.dtype}"))
    if number.shape:
        raise ValueError(
            f"layer_metrics() reports a {what} of shape {number.shape}; it must be a scalar, such "
            "as a mean over the layer. A state made by vmap is read inside: "
            "jax.vmap(ovsw.flip_metrics)(opt_state)."
        )
    return number.astype(jnp.float32)


def _no_number(what: str, value: str) -> str:
    return (
        f"layer_metrics() reports a {what} that is {value}; it must be a real number. Return "
        "optax.MaskedNode() for layers of which there is nothing to say."
    )
