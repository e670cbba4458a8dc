"""In which precision to compute: float32 at least, whatever the arrays are kept in."""

from typing import Any

import jax
import jax.numpy as jnp


def accurate_dtype(*arrays: jax.Array) -> Any:
    """The dtype in which to compute with `arrays`: float64 if one of them is, else float32."""
    return jnp.float64 if any(x.dtype == jnp.float64 for x in arrays) else jnp.float32
