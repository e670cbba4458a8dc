"""The transforms that the contract is for, and how it trains with them."""

import dataclasses
import functools
import inspect
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

import ovsw_jax as ovsw
from ovsw_jax.flip_state import KINDS

STEPS = 12
# A horizon of 7 steps, so that weights fall silent and wake up within a test.
FLIPS = {"momentum": 0.9, "threshold": 0.05}


def sad(state):
    def make(tau=0.02, momentum=0.9, threshold=0.05):
        return ovsw.silence_aware_decay(tau, momentum=momentum, threshold=threshold, state=state)

    return make


def track(state):
    def make(momentum=0.9, threshold=0.05):
        return ovsw.track_flip_state(momentum=momentum, threshold=threshold, state=state)

    return make


def ags(lam=0.5):
    return ovsw.scale_by_ags(lam)


def ovsw_sgd(learning_rate=0.5, weight_decay=0.01, lam=0.5, tau=0.02, momentum=0.9, threshold=0.05):
    flips = {"flip_momentum": momentum, "threshold": threshold}
    return ovsw.ovsw_sgd(learning_rate, weight_decay=weight_decay, lam=lam, tau=tau, **flips)


def lars_sgd(learning_rate=0.5, eta=0.5, momentum=0.9, weight_decay=0.01):
    return optax.chain(
        ovsw.track_flip_state(**FLIPS),
        ovsw.lars_sgd(learning_rate, eta=eta, momentum=momentum, weight_decay=weight_decay),
    )


def bop(threshold=0.02, adaptivity=0.2):
    return optax.chain(ovsw.track_flip_state(**FLIPS), ovsw.bop(threshold, adaptivity=adaptivity))


def clip_latent(limit=0.125):  # a number of bfloat16, which the contract compares with float32
    return optax.chain(ovsw.track_flip_state(**FLIPS), ovsw.clip_latent(limit))


@dataclasses.dataclass(frozen=True)
class Case:
    make: Callable[..., optax.GradientTransformationExtraArgs]
    only_latent: bool = True  # leaves outside the mask pass through

    @property
    def hyperparameters(self):
        return {name: p.default for name, p in inspect.signature(self.make).parameters.items()}


CASES = {
    "ags": Case(ags),
    **{f"sad {state}": Case(sad(state)) for state in KINDS},
    "track packed": Case(track("packed")),
    "ovsw_sgd": Case(ovsw_sgd, only_latent=False),
    "lars_sgd": Case(lars_sgd, only_latent=False),
    "bop": Case(bop),
    "clip_latent": Case(clip_latent),
}


@functools.cache
def reference_run(case):
    """(params, state, updates) of one run on one device, which most tests must repeat."""
    return compiled_train(case)(normal(0), normal(1, STEPS))


@functools.cache
def compiled_train(case):
    return jax.jit(functools.partial(train, case.make()))


def normal(seed, *leading, dtype=np.float32):
    """A tree of params or gradients; one latent kernel, because each costs compilation."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(0.1 * rng.standard_normal(leading + shape), dtype)

    return {
        "conv": {"latent_kernel": draw(3, 3, 8, 16), "bias": draw(16)},
        "head": {"kernel": draw(8, 10)},
    }


def at(tree, index):
    return jax.tree.map(lambda x: np.asarray(x)[index], tree)


def train(tx, params, gradients):
    """Scans over the gradients; returns final params and state, and the updates of every step."""

    def step(carry, grads):
        params, state = carry
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), updates

    (params, state), updates = jax.lax.scan(step, (params, tx.init(params)), gradients)
    return params, state, updates


def step_by_step(update, tx, params, gradients):
    state, seen = tx.init(params), []
    for t in range(len(jax.tree.leaves(gradients)[0])):
        grads = at(gradients, t)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(updates)
    return params, state, jax.tree.map(lambda *u: np.stack(u), *seen)


def latent_only(tree):
    return jax.tree.map(lambda use, x: x if use else None, ovsw.latent_mask(tree), tree)


def assert_same(actual, expected):
    """Equal trees: flip codes and counts exactly, floats to the rounding of a few steps."""
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, expected)
    chex.assert_trees_all_close(actual, expected, rtol=1e-5, atol=2e-6)
