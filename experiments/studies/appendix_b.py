"""Appendix B measured: what scaling latent weights or filter factors changes, and what not.

The network is a `SmallResNet` with random batch-norm affine parameters, in training mode, on one
batch of random images with random labels. With the initial affine parameters (1 and 0) some
activations are exactly 0 or exactly 1, where a sign or a hardtanh jumps, and a rounding error
decides on which side; random ones leave no such tie.

Batch norm removes a positive factor of its input up to its epsilon, and the scale of the latent
weights reaches the logits through nothing but such a factor. So the measurement is made twice:
with epsilon 0, where Appendix B is exact, and with 1e-5, as networks are trained.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import ovsw_jax as ovsw

SCALES = tuple(10.0 ** (k / 2) for k in range(-8, 7))  # 1e-4 to 1e3
EPSILONS = (0.0, 1e-5)
DTYPES = ("float64", "float32")
IMAGES, CLASSES = 64, 10
LAM = 0.04  # floor of AGS, as in the authors' code for CIFAR


@dataclass(frozen=True)
class Change:
    """How far one scaled network is from the unscaled one.

    Attributes:
      scaled: "gamma" (all latent weights times `scale`) or "alpha" (the factor of filter i times
        `scale` r_i, with r_i log-uniform in [1/2, 2]).
      scale: the factor.
      dtype: of parameters and images.
      epsilon: of batch norm.
      logits: max |change| / max |logit|.
      gradients: the same of each gradient array, the largest of them.
    """

    scaled: str
    scale: float
    dtype: str
    epsilon: float
    logits: float
    gradients: float


@dataclass(frozen=True)
class Ratio:
    """Median over all filters of |G_i| / |W_i|, with latent weights times `scale`.

    Attributes:
      scale: gamma.
      plain: of the loss gradient.
      after_ags: of what `ovsw.ags(LAM)` makes of it.
    """

    scale: float
    plain: float
    after_ags: float


def measure_changes(
    scales: Sequence[float] = SCALES, dtypes: Sequence[str] = DTYPES, seed: int = 0
) -> list[Change]:
    """All changes: gamma and alpha, with both epsilons."""
    changes = []
    for dtype, epsilon in itertools.product(dtypes, EPSILONS):
        with jax.enable_x64(dtype == "float64"):
            network = _network(dtype, seed)
            for name, variants in (
                ("gamma", network.with_scaled_weights(scales)),
                ("alpha", network.with_scaled_factors(scales)),
            ):
                plain = network.run(epsilon, *next(variants))
                for scale, variant in zip(scales, variants, strict=True):
                    logits, gradients = _changes(plain, network.run(epsilon, *variant))
                    changes.append(Change(name, scale, dtype, epsilon, logits, gradients))
    return changes


def measure_ratios(
    scales: Sequence[float] = SCALES, dtype: str = "float32", seed: int = 0
) -> list[Ratio]:
    """The ratio that decides on flips, with the usual epsilon."""
    with jax.enable_x64(dtype == "float64"):
        network = _network(dtype, seed)
        variants = network.with_scaled_weights(scales)
        next(variants)
        ratios = []
        for scale, (params, factors) in zip(scales, variants, strict=True):
            _, gradients = network.run(1e-5, params, factors)
            tx = ovsw.ags(LAM)
            lifted, _ = jax.jit(tx.update)(gradients, tx.init(params), params)
            plain, after_ags = (_median_ratio(g, params) for g in (gradients, lifted))
            ratios.append(Ratio(scale, plain, after_ags))
    return ratios


@functools.cache  # compiled once for all scales and epsilons
def _network(dtype: str, seed: int) -> "_Network":
    return _Network(dtype, seed)


class _Network:
    """The network with its batch, as functions of parameters and of the filters' factors."""

    def __init__(self, dtype: str, seed: int):
        rng = np.random.default_rng(seed)
        model = ovsw.models.SmallResNet(CLASSES, in_channels=1, rngs=nnx.Rngs(seed))
        self._binary = [p for p, m in nnx.iter_modules(model) if isinstance(m, ovsw.nn.BinaryConv)]
        graph_and_states: Any = nnx.split(model, nnx.Param, ...)
        self._graph, params, rest = graph_and_states

        def cast(x: Any) -> jax.Array:
            return jnp.asarray(x, dtype)

        self._rest = jax.tree.map(cast, nnx.to_pure_dict(rest))
        self.params = jax.tree_util.tree_map_with_path(
            lambda path, x: cast(_affine(path, x, rng)), nnx.to_pure_dict(params)
        )
        self._images = cast(rng.normal(size=(IMAGES, 8, 8, 1)))
        self._labels = jnp.asarray(rng.integers(CLASSES, size=IMAGES))
        self._random = [2.0 ** rng.uniform(-1, 1, self._filters(p)) for p in self._binary]
        self.run = jax.jit(self._run)

    def with_scaled_weights(self, scales: Sequence[float]) -> Iterator[tuple[Any, None]]:
        """The parameters as they are, then with latent weights times each scale."""
        mask = ovsw.latent_mask(self.params)
        for scale in (1.0, *scales):
            yield jax.tree.map(lambda w, m, s=scale: w * s if m else w, self.params, mask), None

    def with_scaled_factors(self, scales: Sequence[float]) -> Iterator[tuple[Any, Any]]:
        """Factors of 1 for each filter, then random ones times each scale."""
        dtype = self._images.dtype
        yield self.params, [jnp.ones(len(r), dtype) for r in self._random]
        for scale in scales:
            yield self.params, [jnp.asarray(r * scale, dtype) for r in self._random]

    def _filters(self, path: Sequence[Any]) -> int:
        node = self.params
        for key in path:
            node = node[key]
        return int(node["latent_kernel"].shape[-1])

    def _run(
        self, epsilon: float, params: Any, factors: Sequence[jax.Array] | None
    ) -> tuple[jax.Array, Any]:
        """Logits, and the gradients of the mean loss in all parameters."""

        def loss(params: Any) -> tuple[jax.Array, jax.Array]:
            model = nnx.merge(self._graph, params, self._rest)
            modules: dict[Any, Any] = dict(nnx.iter_modules(model))
            for module in modules.values():
                if isinstance(module, nnx.BatchNorm):
                    module.epsilon = epsilon
            for path, factor in zip(self._binary, factors or (), strict=factors is not None):
                modules[path].scale = "learned"  # a factor of its own instead of alpha(W)
                modules[path].filter_scale = nnx.Param(factor)
            model.train()
            logits = model(self._images)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, self._labels)
            return jnp.mean(losses), logits

        gradients, logits = jax.grad(loss, has_aux=True)(params)
        return logits, gradients


def _affine(path: Sequence[Any], x: jax.Array, rng: np.random.Generator) -> Any:
    """Random values for the scale and bias of a batch norm; anything else as it is."""
    name = str(path[-1].key)
    if name == "scale":
        return rng.uniform(0.5, 1.5, x.shape)
    return rng.uniform(-0.5, 0.5, x.shape) if name == "bias" else x


def _changes(plain: tuple[jax.Array, Any], other: tuple[jax.Array, Any]) -> tuple[float, float]:
    logits = _relative(plain[0], other[0])
    gradients = jax.tree.leaves(jax.tree.map(_relative, plain[1], other[1]))
    return logits, float(np.max(gradients))  # unlike max(), it does not lose a NaN


def _relative(a: jax.Array, b: jax.Array) -> float:
    return float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(a)))


def _median_ratio(gradients: Any, params: Any) -> float:
    """Median over the filters of all latent kernels."""
    ratios = [
        _filter_norms(g) / _filter_norms(w)
        for g, w, latent in zip(
            *map(jax.tree.leaves, (gradients, params, ovsw.latent_mask(params))), strict=True
        )
        if latent
    ]
    return float(np.median(np.concatenate(ratios)))


def _filter_norms(kernel: jax.Array) -> Any:
    wide = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1])
    return np.linalg.norm(wide, axis=0)
