"""JAX's strict modes: whatever passes with Flax's and Optax's own parts passes with these."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from longer import long_but

import ovsw_jax as ovsw
from ovsw_jax.flip_state import KINDS


@contextlib.contextmanager
def strict(x64):
    """All that JAX checks while it traces, at once."""
    with (
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
        jax.checking_leaks(),
        jax.enable_checks(True),
        jax.enable_x64(x64),
    ):
        yield


# What it checks of the numbers, for which programs must run.
RUNNING = {
    "no NaN, no infinity": lambda: jax.debug_infs(True),
    "no jit": lambda: jax.disable_jit(),
}
BOTH = pytest.mark.parametrize("x64", long_but([False, True], False), ids=["", "x64"])


def conv(rngs, **options):
    return ovsw.nn.BinaryConv(3, 2, (3, 3), rngs=rngs, **options)


# Each of (batch, height, width, 3), with some of whatever has code of its own.
NETWORKS = {
    "conv": lambda r: conv(r, use_bias=True),
    "grouped": lambda r: ovsw.nn.BinaryConv(3, 3, (3, 3), feature_group_count=3, rngs=r),
    "bfloat16": lambda r: conv(r, scale="learned", dtype=jnp.bfloat16),
    "thresholds": lambda r: conv(
        r, scale=None, input_sign=ovsw.nn.LearnedThresholdSign(3, rngs=r), normalize_input=False
    ),
    "magnitude": lambda r: conv(r, scale=None, kernel_sign=ovsw.nn.magnitude_aware_sign),
    "standardized": lambda r: conv(
        r,
        input_sign=ovsw.nn.swish_sign,
        kernel_sign=ovsw.nn.standardized_sign,
        scale=ovsw.nn.mean_magnitude,
    ),
    "dense": lambda r: ovsw.nn.BinaryDense(
        3, 2, use_bias=True, input_sign=ovsw.nn.tanh_sign, rngs=r
    ),
    "activations": lambda r: nnx.Sequential(ovsw.nn.PReLU(3), ovsw.nn.RPReLU(3), ovsw.nn.hardtanh),
    "basic block": lambda r: ovsw.models.BasicBlock(3, 4, 2, rngs=r),
    "padded block": lambda r: ovsw.models.BiRealBlock(
        3, 4, 2, shortcut=ovsw.models.PadShortcut, rngs=r
    ),
    "ReAct block": lambda r: ovsw.models.ReActBlock(3, 4, 2, rngs=r),
    "network": lambda r: ovsw.models.SmallResNet(2, widths=(2,), rngs=r),
}
LINEN = {
    "conv": lambda: ovsw.linen.BinaryConv(2, (3, 3), use_bias=True),
    "dense": lambda: ovsw.linen.BinaryDense(
        2, input_sign=ovsw.linen.LearnedThresholdSign(), normalize_input=False
    ),
}
TRANSFORMS = {
    **{f"sad {kind}": lambda kind=kind: ovsw.sad(state=kind) for kind in KINDS},
    "tracked": lambda: ovsw.track_flip_state(),
    "ags": lambda: ovsw.ags(),
    "bop": lambda: optax.chain(ovsw.track_flip_state(), ovsw.bop(1e-6, adaptivity=1e-3)),
    "lars": lambda: ovsw.lars_sgd(0.1),
    "ovsw_sgd": lambda: ovsw.ovsw_sgd(0.1),
}


def images():
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 3)), jnp.float32)


def gradients(model, x):
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    rest = nnx.to_pure_dict(rest)

    def loss(params, x):
        return jnp.sum(nnx.merge(graph, params, rest, copy=True)(x).astype(jnp.float32))

    return jax.grad(loss, argnums=(0, 1))(nnx.to_pure_dict(params), x)


@BOTH
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name, x64):
    def train_and_evaluate(x):
        model = NETWORKS[name](nnx.Rngs(0))
        made = gradients(model, x)
        model.eval()
        return made, model(x)

    with strict(x64):
        jax.eval_shape(train_and_evaluate, images())


@BOTH
@pytest.mark.parametrize("name", LINEN)
def test_linen_layers(name, x64):
    layer = LINEN[name]()

    def train(x):
        variables = layer.init(jax.random.key(0), x, train=False)
        return jax.grad(lambda v: jnp.sum(layer.apply(v, x, train=True)))(variables)

    with strict(x64):
        jax.eval_shape(train, images())


def two_steps(name, params):
    tx = TRANSFORMS[name]()
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(jax.tree.map(jnp.cos, params), state, params)
        params = optax.apply_updates(params, updates)
    masks = () if name in ("ags", "lars") else ovsw.silent_mask(state)
    return params, masks, () if name == "lars" else ovsw.flip_metrics(state)


PARAMS = {
    "conv": {"latent_kernel": jnp.linspace(-1, 1, 12).reshape(1, 2, 3, 2), "bias": jnp.ones(2)},
    "norm": {"scale": jnp.ones(3)},
}


@BOTH
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name, x64):
    with strict(x64):
        jax.eval_shape(lambda params: two_steps(name, params), PARAMS)


def test_summary_and_binarize():
    with strict(False):
        rngs = nnx.Rngs(0)
        layers = [nnx.Conv(3, 3, (1, 1), use_bias=False, rngs=rngs) for _ in range(3)]
        ovsw.summary(ovsw.binarize(nnx.Sequential(*layers)), (1, 2, 2, 3))


@pytest.mark.parametrize("mode", long_but(RUNNING, "no NaN, no infinity"))
def test_what_runs(mode):
    with RUNNING[mode](), jax.debug_nans(True):
        gradients(NETWORKS["bfloat16"](nnx.Rngs(0)), images())
        two_steps("tracked", PARAMS)


def test_a_jitted_step_moves_nothing_between_host_and_device():
    tx = ovsw.ovsw_sgd(0.1)
    layer = conv(nnx.Rngs(0))
    graph, params = nnx.split(layer, nnx.Param)
    params = nnx.to_pure_dict(params)

    @jax.jit
    def step(params, state, x):
        grads = jax.grad(lambda p: jnp.sum(nnx.merge(graph, p)(x)))(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, ovsw.flip_metrics(state)

    state, x = tx.init(params), images()
    with jax.transfer_guard("disallow"):
        for _ in range(2):
            params, state, _ = step(params, state, x)
