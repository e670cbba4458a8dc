"""SGD with LARS as the OvSW paper states it (Algorithm 2): one learning rate for each layer."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from ovsw_jax.axes import Axes, axes_of_kernels, check_axes
from ovsw_jax.fitting import check_average, check_fits, check_params, check_state, lacks_gradient
from ovsw_jax.hyperparams import (
    FLOAT32_MAX,
    Hyperparameter,
    check_coefficient,
    check_flag,
    check_sgd_momentum,
    known_values,
    value_at,
)
from ovsw_jax.latent import (
    LatentLeaves,
    Mask,
    all_gradients,
    leaves_like,
    named_leaves,
)
from ovsw_jax.precision import accurate_dtype

LarsVariant = Literal["updated", "literal"]


class LarsState(NamedTuple):
    """State of `lars_sgd`.

    Attributes:
      count: int32 scalar, updates made.
      velocity: tree like the params, momentum V in their dtypes.
      local_rate: tree like the params with `optax.MaskedNode` outside the mask: lambda of each
        layer at the latest update, a float32 scalar (float64 for float64 layers); of a stack of
        layers as `axes` names them, an array with all axes of the kernel, those of a layer of
        size 1.
    """

    count: jax.Array  # type: ignore[assignment]  # optax calls it so; tuple.count is hidden
    velocity: Any
    local_rate: Any


def lars_sgd(
    learning_rate: Hyperparameter,
    *,
    eta: Hyperparameter = 0.02,
    momentum: Hyperparameter = 0.9,
    weight_decay: Hyperparameter = 5e-4,
    variant: LarsVariant = "updated",
    axes: Axes | None = None,
    mask: Mask | None = None,
    decay_1d: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD with LARS for latent kernels and plain SGD for all other parameters (Algorithm 2).

    .. math::
      \lambda &= \frac{\eta \|W\|}{\|G\| + \varphi \|W\|} \\
      V &\leftarrow m V + (G + \varphi W) \\
      W &\leftarrow W - \beta \lambda V

    with one 2-norm over each layer (leaf). :math:`\lambda` has no epsilon, and multiplies the
    whole momentum. Parameters outside the mask take :math:`\lambda = 1`.

    Where the fraction is 0 or not defined, the layer waits: its momentum is updated, its weights
    aren't.

    - W = 0: :math:`\lambda = 0`, the value of the fraction while G is not 0. A layer of zeros
      never moves, so keep what starts at zero (biases) out of the mask.
    - G = 0 and :math:`\varphi = 0`: :math:`\lambda = 0`. Its limit is infinite, and would throw
      the layer along its old momentum, though nothing was learnt in this step.
    - A gradient near 0 with :math:`\varphi = 0` does throw it: that is the rule.
    - :math:`\lambda` and :math:`\beta \lambda` stop at the largest float, and norms neither
      overflow nor underflow, so no finite W, G and V make a NaN.
    - A NaN in G or W makes :math:`\lambda` NaN, and so the layer; an infinite gradient makes its
      own weight NaN. Guard with `optax.apply_if_finite`.

    This is not `optax.lars`. There the ratio is :math:`\eta \|W\| / \|G + \varphi W\|` (1 where
    either norm is 0), and it and the learning rate multiply the gradient before the momentum, so
    that a gradient keeps the ratio of its own step; here the momentum sums plain gradients, and
    all of it takes today's ratio. `scale_by_ags` scales each filter instead of the layer, only
    upwards, and before the momentum.

    Args:
      learning_rate: :math:`\beta \ge 0`.
      eta: :math:`\eta > 0`, about the relative step of a layer for a learning rate of 1.
      momentum: m, in [0, 1).
      weight_decay: :math:`\varphi \ge 0`, on every parameter in the mask, and on the others of two
        or more axes, as stacked biases have.
      variant: which momentum moves the weights of layers in the mask: `"updated"`, the one made in
        this step, as SGD implementations do; `"literal"`, the one before it, as Algorithm 2
        prints: its first step moves nothing.
      axes: axes that make up one layer, where one array holds several, as `nnx.vmap` stacks them:
        a tuple of integers for every leaf in the mask, or a tree as of `scale_by_ags`, such as
        `ovsw.layer_axes(model)`. None: all of them, one rate for the array.
      mask: which leaves take the layer's rate: a pytree of bools, a function from params to one,
        or None for `latent_mask`. `True` is LARS everywhere.
      decay_1d: also decay parameters outside the mask with fewer than two axes.

    Any of the four numbers may be an array or a schedule of the update count.

    Returns:
      A gradient transformation with a `LarsState`. It computes in float32 (float64 for float64
      leaves); updates take the dtype of the gradients.

    Raises:
      ValueError: if a hyperparameter is known to be out of range (schedules and traced values are
        not checked) or `variant` is unknown; at `init` if the mask selects nothing, or `axes` don't
        fit, as for `scale_by_ags`; at `update` if params are missing or have other shapes than the
        gradients.
      TypeError: if a hyperparameter is not a number, `axes` hold anything but integers, a weight or
        gradient in the mask is not a real floating-point array, or any parameter is complex.

    Example:
      >>> import jax.numpy as jnp, optax, ovsw_jax as ovsw
      >>> params = {"latent_kernel": jnp.array([[3.0], [4.0]]), "bias": jnp.zeros(1)}
      >>> tx = optax.chain(ovsw.track_flip_state(), ovsw.lars_sgd(1.0, eta=0.1, weight_decay=0.0))
      >>> grads = {"latent_kernel": jnp.array([[2.0], [0.0]]), "bias": jnp.ones(1)}
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> updates["latent_kernel"].tolist()  # a tenth of |W| = 5, whatever the size of G
      [[-0.5], [-0.0]]
      >>> updates["bias"].tolist()
      [-1.0]

    Source: OvSW (Xiang et al., ECCV 2024), Algorithm 2; You et al., arXiv:1708.03888.
    """
    check_coefficient("learning_rate", learning_rate)
    _check_eta(eta)
    check_sgd_momentum(momentum)
    check_coefficient("weight_decay", weight_decay)
    if not isinstance(variant, str) or variant not in get_args(LarsVariant):
        raise ValueError(
            f"variant={variant!r} is not a variant of Algorithm 2: use 'updated' (the weights move "
            "by V(t+1), as SGD implementations do) or 'literal' (by V(t), as printed)."
        )

    check_flag("decay_1d", decay_1d)
    check_axes(axes)

    def init_fn(params: Any) -> LarsState:
        latent = LatentLeaves(params, mask)
        _check_real(params)
        shapes = map(_rate_shape, latent.weights, _layers(axes, params, latent))
        return LarsState(
            jnp.zeros((), jnp.int32),
            optax.tree.zeros_like(params),
            latent.only_scalars(
                jnp.zeros(shape, accurate_dtype(w))
                for shape, w in zip(shapes, latent.weights, strict=True)
            ),
        )

    def update_fn(
        updates: Any, state: LarsState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, LarsState]:
        del extra_args
        check_params(params, "lars_sgd")
        check_state(state, LarsState)
        latent = LatentLeaves(params, mask)
        latent.gradients(updates)  # checks that none is missing in the mask
        latent.check_only(state.local_rate, "state of lars_sgd")
        beta, eta_now, m, phi = (
            value_at(h, state.count) for h in (learning_rate, eta, momentum, weight_decay)
        )
        latent.check_fits(eta=eta_now)
        layers = dict(zip(latent.indices, _layers(axes, params, latent), strict=True))
        moved: list[tuple[Any, Any]] = []
        rates = []
        for i, ((name, weight), gradient, velocity) in enumerate(
            zip(
                named_leaves(params),
                all_gradients(updates, params),
                leaves_like(latent.treedef, state.velocity, "momentum"),
                strict=True,
            )
        ):
            if lacks_gradient(gradient):  # Optax allows parameters without one
                moved.append((gradient, velocity))
                continue
            check_average(name, velocity, weight, "momentum")
            weight = jnp.asarray(weight)
            decay = phi if i in latent.indices or decay_1d or weight.ndim > 1 else 0.0
            check_fits([(name, weight)], learning_rate=beta, momentum=m, weight_decay=decay)
            rate = beta
            if i in latent.indices:
                rates.append(_local_rate(gradient, weight, eta_now, phi, layers[i]))
                rate = _capped(jnp.asarray(beta, rates[-1].dtype) * rates[-1])
            literal = i in latent.indices and variant == "literal"
            moved.append(_step(gradient, weight, velocity, rate, m, decay, literal))
        return latent.treedef.unflatten(u for u, _ in moved), LarsState(
            optax.safe_increment(state.count),
            latent.treedef.unflatten(v for _, v in moved),
            latent.only_scalars(
                r.astype(accurate_dtype(w)) for r, w in zip(rates, latent.weights, strict=True)
            ),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _check_real(params: Any) -> None:
    for name, leaf in named_leaves(params):
        if jnp.iscomplexobj(leaf):
            raise TypeError(
                f"params hold complex numbers at {name!r}, of which lars_sgd would "
                "drop the imaginary part. Give them an optimizer of their own by optax.partition."
            )


def _layers(axes: Axes | None, params: Any, latent: LatentLeaves) -> list[tuple[int, ...] | None]:
    """The axes of one layer in each leaf; None where the leaf is one."""
    given = axes_of_kernels(axes, params, latent)
    if given is None:
        return [None] * len(latent.weights)
    return [
        None if len(layer) == weight.ndim else layer
        for layer, weight in zip(given, latent.weights, strict=True)
    ]


def _rate_shape(weight: jax.Array, layer: tuple[int, ...] | None) -> tuple[int, ...]:
    return (
        () if layer is None else tuple(1 if i in layer else n for i, n in enumerate(weight.shape))
    )


def _local_rate(
    gradient: jax.Array, weight: jax.Array, eta: Any, phi: Any, layer: tuple[int, ...] | None
) -> jax.Array:
    """Line 5, as eta / (|G| / |W| + phi), which no size of G and W overflows."""
    dtype = accurate_dtype(gradient, weight)
    g_size, w_size = (_root_mean_square(x.astype(dtype), layer) for x in (gradient, weight))
    relative = g_size / jnp.where(w_size == 0, 1, w_size) + jnp.asarray(phi, dtype)
    waits = (w_size == 0) | (relative == 0)
    rate = _capped(jnp.asarray(eta, dtype) / jnp.where(waits, 1, relative))
    return jnp.where(waits, 0, rate)


def _root_mean_square(x: jax.Array, axes: tuple[int, ...] | None) -> jax.Array:
    """The 2-norm over sqrt(size): never beyond the largest element, so it can't overflow.

    Over `axes`, which stay with size 1; None: over all, to a scalar.
    """
    keep = axes is not None
    largest = jnp.max(jnp.abs(x), axis=axes, initial=0, keepdims=keep)
    usable = (largest >= jnp.finfo(x.dtype).tiny) & jnp.isfinite(largest)
    unit = jnp.where(usable, largest, 1)
    squares = jnp.sum(jnp.square(x / unit), axis=axes, keepdims=keep)
    return unit * jnp.sqrt(squares / max(x.size // max(squares.size, 1), 1))


def _capped(rate: jax.Array) -> jax.Array:
    return jnp.minimum(rate, jnp.finfo(rate.dtype).max)  # NaN stays NaN


def _step(
    gradient: jax.Array,
    weight: jax.Array,
    velocity: jax.Array,
    rate: Any,
    momentum: Any,
    phi: Any,
    literal: bool,
) -> tuple[jax.Array, jax.Array]:
    """Lines 6 and 7: the update of W, and V(t+1)."""
    dtype = accurate_dtype(gradient, weight)
    g, w, v = (x.astype(dtype) for x in (gradient, weight, velocity))
    new = jnp.asarray(momentum, dtype) * v + (g + jnp.asarray(phi, dtype) * w)
    # A sum beyond the range stays finite, because a rate of 0 times infinity is NaN.
    largest = jnp.finfo(dtype).max
    new = jnp.where(jnp.isfinite(g), jnp.clip(new, -largest, largest), new)
    update = -jnp.asarray(rate, dtype) * (v if literal else new)
    return update.astype(gradient.dtype), new.astype(velocity.dtype)


def _check_eta(eta: Hyperparameter) -> None:
    for v in known_values("eta", eta):
        if not 0 < v <= FLOAT32_MAX:
            raise ValueError(
                f"eta={v:g} is out of range: it must be finite and > 0, in float32 too. It is "
                "the step of a layer relative to its weights, for a learning rate of 1; start from "
                "0.02."
            )
