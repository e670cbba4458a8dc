"""ReActNet's block, and its gradients, against its formula, written out in jnp."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ovsw_jax as ovsw
from ovsw_jax.models import ReActBlock

pytestmark = pytest.mark.usefixtures("float64")

SHAPES = {"identity": (4, 4, 1), "wider": (4, 6, 1), "halved": (4, 8, 2)}


def make(in_features, features, strides):
    """A block, its parameters drawn at random so that none of them drops out, and an input."""

    def conv(*sizes, **rest):
        return ovsw.nn.BinaryConv(*sizes, scale=ovsw.nn.mean_magnitude, **rest)

    block = ReActBlock(in_features, features, strides, conv=conv, rngs=nnx.Rngs(0))
    graph, params, statistics = nnx.split(block, nnx.Param, ...)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: jnp.asarray(rng.normal(0, 0.7, p.shape)), params)
    statistics = jax.tree.map(lambda s: s.astype(jnp.float64), statistics)
    x = rng.normal(size=(2, 6, 6, in_features))

    def forward(params, x):
        model = nnx.merge(graph, params, statistics, copy=True)
        model.train()
        return model(x)

    return forward, params, x


def in_jnp(params, x, strides):
    """The output in training, by surrogates: functions whose derivative is the pseudo-gradient."""

    def surrogate_sign(z):  # forward sign(z); derivative that of a piecewise quadratic
        soft = jnp.where(z >= 0, 2 * z - z * z, 2 * z + z * z)
        soft = jnp.where(jnp.abs(z) < 1, soft, jnp.sign(z))
        return soft + jax.lax.stop_gradient(jnp.where(z >= 0, 1.0, -1.0) - soft)

    def straight_through(kernel):
        return kernel + jax.lax.stop_gradient(jnp.where(kernel >= 0, 1.0, -1.0) - kernel)

    def norm(p, z):
        mean = jnp.mean(z, (0, 1, 2))
        variance = jnp.mean(z * z, (0, 1, 2)) - mean**2
        return (z - mean) * (variance + 1e-5) ** -0.5 * p["scale"] + p["bias"]

    def rprelu(p, z):
        z = z - p["shift_in"]
        return jnp.maximum(z, 0) + p["negative_slope"] * jnp.minimum(z, 0) + p["shift_out"]

    def binary(p, z, strides):
        signs = surrogate_sign(z - p["input_sign"]["threshold"])
        signs = jnp.pad(signs, ((0, 0), (1, 1), (1, 1), (0, 0)))
        kernel = straight_through(p["latent_kernel"])
        h, w = z.shape[1:3]
        shifted = [
            signs[:, i : i + h : strides, j : j + w : strides] @ kernel[i, j]
            for i, j in np.ndindex(3, 3)
        ]
        factor = jnp.mean(jnp.abs(p["latent_kernel"]), (0, 1, 2))
        return sum(shifted) * jax.lax.stop_gradient(factor)

    skip = x
    if "shortcut" in params:
        corners = [x[:, i::strides, j::strides] for i in range(strides) for j in range(strides)]
        kernel = params["shortcut"]["conv"]["kernel"][0, 0]
        skip = norm(params["shortcut"]["bn"], sum(corners) / strides**2 @ kernel)
    y = norm(params["bn1"], binary(params["conv1"], x, strides)) + skip
    y = rprelu(params["activation1"], y)
    z = norm(params["bn2"], binary(params["conv2"], y, 1)) + y
    return rprelu(params["activation2"], z)


@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradients(shape):
    forward, params, x = make(*SHAPES[shape])
    plain = nnx.to_pure_dict(params)

    def gradients(function):
        def loss(params, x):
            y = function(params, x)
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))

    (actual, dx), y = gradients(forward)(params, x)
    in_formulas = gradients(lambda p, x: in_jnp(p, x, SHAPES[shape][2]))
    (expected, expected_dx), expected_y = in_formulas(plain, x)
    np.testing.assert_allclose(y, expected_y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-9, atol=1e-11)
    leaves = jax.tree.leaves_with_path(nnx.to_pure_dict(actual))
    for (path, a), b in zip(leaves, jax.tree.leaves(expected), strict=True):
        assert np.any(b != 0), path
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11, err_msg=str(path))
