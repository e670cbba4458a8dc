"""Signs that give 0 at 0, as the official code's do; their pseudo-gradients are the library's."""

import jax
import jax.numpy as jnp


@jax.custom_jvp
def official_input_sign(x):
    return jnp.sign(x)


@official_input_sign.defjvp
def _(primals, tangents):
    (x,), (tangent,) = primals, tangents
    return jnp.sign(x), jnp.maximum(2 - 2 * jnp.abs(x), 0) * tangent


@jax.custom_jvp
def official_kernel_sign(x):
    return jnp.sign(x)


@official_kernel_sign.defjvp
def _(primals, tangents):
    return jnp.sign(primals[0]), tangents[0]
