"""For which platform layers are traced: what they keep and how they sum differs by platform.

`jax.lax.platform_dependent` can choose how something is computed, but not what is kept for the
backward pass: all its branches must keep the same arrays. So this is chosen when a function is
traced, before it is known where it will run.
"""

from contextlib import AbstractContextManager
from typing import Any, Literal, cast, get_args

import jax

Platform = Literal["cpu", "gpu", "tpu"]

_chosen = jax.make_user_context(None)  # a part of the key by which jit knows what it has compiled


def compute_for(platform: Platform) -> AbstractContextManager[None]:
    """A context in which layers and rules are traced for a platform; else for JAX's default one.

    Results are the same up to rounding. What differs is what training costs: on a CPU the signs of
    activations are kept as bits and counted; on a GPU and a TPU they are computed again from the
    activations, so that they are part of the compiler's fused kernels. On a GPU `scale_by_ags` and
    the flip state compute with all layers together. Needed only to compile for a
    device that is absent, or for another than the default: functions that `jax.jit` has compiled
    outside the context are compiled again inside.

    Args:
      platform: `"cpu"`, `"gpu"` or `"tpu"`.

    Returns:
      A context manager.

    Raises:
      ValueError: if the platform has another name.

    >>> import jax, jax.numpy as jnp, ovsw_jax as ovsw
    >>> from flax import nnx
    >>> layer = ovsw.nn.BinaryDense(4, 2, rngs=nnx.Rngs(0))
    >>> with ovsw.nn.compute_for("tpu"):
    ...     program = jax.jit(layer).trace(jnp.ones((8, 4))).lower(lowering_platforms=("tpu",))

    Source: ours.
    """
    if not isinstance(platform, str) or platform not in get_args(Platform):
        raise ValueError(
            f"platform={platform!r} is unknown: layers are traced for one of "
            f"{', '.join(map(repr, get_args(Platform)))}."
        )
    return cast(AbstractContextManager[None], _chosen(platform))


def platform() -> Platform:
    """For which platform to trace: that of `compute_for`, else of the default device or backend."""
    chosen: Any = _chosen.value or _default()
    # What else there is (Metal, plugins) gets what every compiler can do.
    return chosen if chosen in get_args(Platform) else "cpu"


def _default() -> str:
    config: Any = jax.config
    device = config.jax_default_device
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform
