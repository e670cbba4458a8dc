"""A whole training step in JAX, as a worker of `benchmarks.training_step`."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.extend.core import Var

import ovsw_jax as ovsw
from benchmarks import networks, plain_jax, worker

CODES = {"ovsw_jax": networks.NETWORKS, "plain": plain_jax.NETWORKS}
OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "sgd": lambda: optax.chain(
        optax.add_decayed_weights(5e-4, mask=partial(jax.tree.map, lambda p: p.ndim > 1)),
        optax.sgd(0.1, momentum=0.9),
    ),
    "ovsw": lambda: ovsw.ovsw_sgd(0.1),
}
IMAGE = (32, 32, 3)
CLASSES = 10

Apply = Callable[..., tuple[jax.Array, Any]]


class Training:
    """A network in training: forward and backward pass, optimizer, statistics of batch norm.

    Attributes:
      info: seconds of the first step, from tracing to its result; bytes of temporaries of the
        compiled step; bytes that the backward pass takes from the forward pass.
    """

    def __init__(
        self,
        network: str,
        batch_size: int,
        *,
        code: str = "ovsw_jax",
        optimizer: str = "ovsw",
        metrics: bool = False,
        dtype: str = "float32",
    ):
        """Compiles the step and makes the first one.

        Args:
          network: key of `networks.NETWORKS`.
          batch_size: images in a step, the same ones in every step.
          code: "ovsw_jax" for the library's layers, "plain" for those of `plain_jax`.
          optimizer: key of `OPTIMIZERS`.
          metrics: also compute `ovsw.flip_metrics` in every step.
          dtype: of the forward and the backward pass; parameters are float32.
        """
        apply, params, statistics = make_network(network, code, dtype)
        loss = loss_of(apply)
        tx = OPTIMIZERS[optimizer]()

        def step(params: Any, statistics: Any, state: Any, images: Any, labels: Any) -> Any:
            gradient = jax.value_and_grad(loss, has_aux=True)
            (value, statistics), grads = gradient(params, statistics, images, labels)
            updates, state = tx.update(grads, state, params)
            measured = ovsw.flip_metrics(state) if metrics else {}
            return (optax.apply_updates(params, updates), statistics, state), (value, measured)

        keys = jax.random.split(jax.random.key(0))
        images = jax.random.normal(keys[0], (batch_size, *IMAGE))
        labels = jax.random.randint(keys[1], (batch_size,), 0, CLASSES)
        self._state = (params, statistics, jax.jit(tx.init)(params))
        self._batch = jax.block_until_ready((images, labels))
        kept = residual_bytes(loss, params, statistics, *self._batch)
        started = time.perf_counter()
        lowered = jax.jit(step, donate_argnums=(0, 1, 2)).lower(*self._state, *self._batch)
        self._step = lowered.compile()
        self.step()
        self.wait()
        memory: Any = self._step.memory_analysis()
        self.info: dict[str, Any] = {
            "first_step_seconds": time.perf_counter() - started,
            "temporary_bytes": memory.temp_size_in_bytes,
            "kept_bytes": kept,
        }

    def step(self) -> None:
        """Starts one step."""
        self._state, self._measured = self._step(*self._state, *self._batch)

    def wait(self) -> None:
        """Returns when all steps are done."""
        jax.block_until_ready((self._state, self._measured))


def make_network(network: str, code: str, dtype: str = "float32") -> tuple[Apply, Any, Any]:
    """A network as a pure function of its state.

    Args:
      network: key of `networks.NETWORKS`.
      code: key of `CODES`.
      dtype: of the forward pass; parameters are float32.

    Returns:
      A function of (parameters, statistics, images) that gives logits and new statistics, as in
      training; parameters; statistics of batch norm.
    """
    narrow = None if dtype == "float32" else jnp.dtype(dtype)

    def make() -> nnx.Module:
        return CODES[code][network](CLASSES, dtype=narrow, rngs=nnx.Rngs(0))

    @jax.jit
    def init() -> tuple[Any, Any]:
        parts: Any = nnx.split(make(), nnx.Param, ...)
        return nnx.to_pure_dict(parts[1]), nnx.to_pure_dict(parts[2])

    graph = nnx.split(nnx.eval_shape(make), nnx.Param, ...)[0]

    def apply(params: Any, statistics: Any, images: Any) -> tuple[jax.Array, Any]:
        model: Any = nnx.merge(graph, params, statistics)
        model.train()
        logits = model(images)
        return logits, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))

    params, statistics = init()
    return apply, params, statistics


def loss_of(apply: Apply) -> Apply:
    """The mean cross-entropy of a network, as a function of (..., images, labels)."""

    def loss(params: Any, statistics: Any, images: Any, labels: Any) -> tuple[jax.Array, Any]:
        logits, statistics = apply(params, statistics, images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), statistics

    return loss


def residual_bytes(loss: Apply, params: Any, *rest: Any) -> int:
    """What the backward pass of `loss` takes from its forward pass, arguments left out.

    As the transformation has it, before the compiler: it may still compute again instead of
    keeping, or keep two arrays as one.
    """

    def residuals(params: Any, *rest: Any) -> Any:
        return jax.vjp(lambda p: loss(p, *rest), params, has_aux=True)[1]

    traced = jax.make_jaxpr(residuals)(params, *rest).jaxpr
    kept = {v for v in traced.outvars if isinstance(v, Var)} - {*traced.invars}
    arrays: list[Any] = [v.aval for v in kept]
    return sum(x.size * x.dtype.itemsize for x in arrays)


if __name__ == "__main__":
    worker.serve(Training)
