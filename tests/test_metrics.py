"""Metrics and masks against the oracle's counts, in every nesting of optimizer states."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest

import ovsw_jax as ovsw

pytestmark = pytest.mark.usefixtures("strict_promotion")

STEPS = 20
MU, SIGMA, LAM = 0.8, 0.1, 0.3  # a horizon of 4 steps
SHAPES = {"layer1/0/conv1": (3, 3, 2, 6), "layer1/1/conv1": (1, 1, 9, 7), "linear": (10, 5)}
FLIP_METRICS = {"flip_ratio", "silent_ratio", "never_flipped_ratio"}
AGS_METRICS = {"rescaled_filter_ratio", "grad_weight_ratio"}


def nested(leaves):
    """A parameter tree with lists of layers, as NNX gives it, and a leaf that is not latent."""
    first, second, linear = ({"latent_kernel": leaves[name]} for name in SHAPES)
    head = {"kernel": jnp.ones((2, 3))}
    return {"layer1": [{"conv1": first}, {"conv1": second}], "linear": linear, "head": head}


def kernels(step):
    """Weights of one step; each layer flips at a rate of its own, and some weights never."""
    out = {}
    for i, (name, shape) in enumerate(SHAPES.items()):
        fixed = np.random.default_rng(i)
        size, lazy = 0.1 + fixed.random(shape), fixed.random(shape) < 0.3
        rng = np.random.default_rng((step, i))
        negative = (rng.random(shape) < 0.1 + 0.15 * i) & ~lazy
        out[name] = np.where(negative, -size, size).astype(np.float32)
    return out


def gradients(step):
    rng = np.random.default_rng((step, 99))
    size = {"layer1/0/conv1": 0.1, "layer1/1/conv1": 0.3, "linear": 1.0}
    return {
        name: (size[name] * rng.standard_normal(shape)).astype(np.float32)
        for name, shape in SHAPES.items()
    }


@pytest.fixture(scope="module")
def expected():
    """Metrics and masks after `STEPS` updates, by the oracle."""
    layers, counts, masks = {}, {}, {}
    for name, shape in SHAPES.items():
        tracker = oracle.FlipTracker(MU, SIGMA)
        for step in range(STEPS):
            flipped, silent = tracker.update(kernels(step)[name])
        axes = tuple(range(len(shape) - 1))
        ags = oracle.ags(gradients(STEPS - 1)[name], kernels(STEPS - 1)[name], LAM, axes)
        layers[name] = {
            "flip_ratio": flipped.mean(),
            "silent_ratio": silent.mean(),
            "never_flipped_ratio": 1 - tracker.ever_flipped.mean(),
            "rescaled_filter_ratio": ags.rescaled.mean(),
            "grad_weight_ratio": ags.ratio.mean(),
        }
        counts[name] = dict.fromkeys(FLIP_METRICS, flipped.size)
        counts[name] |= dict.fromkeys(AGS_METRICS, shape[-1])
        masks[name] = silent, ~tracker.ever_flipped
    total = {
        metric: np.average(
            [layers[name][metric] for name in SHAPES], weights=[counts[n][metric] for n in SHAPES]
        )
        for metric in FLIP_METRICS | AGS_METRICS
    }
    return {"metrics": {**layers, "total": total}, "masks": masks}


def run(tx):
    """Shows the transform the weights and gradients of each step; returns its state."""
    state, update = tx.init(nested(kernels(0))), jax.jit(tx.update)
    for step in range(STEPS):
        _, state = update(nested(gradients(step)), state, nested(kernels(step)))
    return state


def rules(state="packed"):
    return optax.chain(ovsw.ags(LAM), ovsw.sad(0.01, momentum=MU, threshold=SIGMA, state=state))


def partitioned():
    """Two groups, each with rules of its own, and one without."""

    def labels(params):
        return {
            "layer1": jax.tree.map(lambda _: "convolutions", params["layer1"]),
            "linear": {"latent_kernel": "dense"},
            "head": {"kernel": "rest"},
        }

    groups = {"convolutions": rules(), "dense": rules("ema"), "rest": optax.sgd(0.1)}
    return optax.partition(groups, labels)


NESTINGS = {
    "chain": rules,
    "chain of float averages": lambda: rules("ema"),
    "observer": lambda: optax.chain(
        ovsw.ags(LAM),
        ovsw.track_flip_state(momentum=MU, threshold=SIGMA),
        optax.sgd(0.1, momentum=0.9),
    ),
    "ovsw_sgd": lambda: ovsw.ovsw_sgd(0.1, lam=LAM, flip_momentum=MU, threshold=SIGMA),
    "masked": lambda: optax.masked(rules(), ovsw.latent_mask),
    "partition": partitioned,
    "apply_if_finite": lambda: optax.apply_if_finite(rules(), 3),
    "inject_hyperparams": lambda: optax.inject_hyperparams(ovsw.ovsw_sgd)(
        0.1, lam=LAM, flip_momentum=MU, threshold=SIGMA
    ),
    "chain in masked in a chain": lambda: optax.chain(
        optax.masked(optax.chain(rules(), optax.identity()), ovsw.latent_mask),
        optax.sgd(0.1, momentum=0.9),
    ),
}


def assert_metrics(actual, expected):
    assert set(actual) == set(expected)
    for name, metrics in expected.items():
        assert set(actual[name]) == set(metrics)
        for metric, value in metrics.items():
            number = actual[name][metric]
            assert number.shape == ()
            assert number.dtype == jnp.float32
            np.testing.assert_allclose(number, value, rtol=1e-5, err_msg=f"{name} {metric}")


@pytest.mark.parametrize("nesting", NESTINGS)
def test_metrics_and_masks_of_each_layer(nesting, expected):
    """And in total; masks are trees like the params."""
    state = run(NESTINGS[nesting]())
    assert_metrics(ovsw.flip_metrics(state), expected["metrics"])
    for mask_of, which in ((ovsw.silent_mask, 0), (ovsw.never_flipped_mask, 1)):
        mask = mask_of(state)
        wanted = nested({name: masks[which] for name, masks in expected["masks"].items()})
        wanted["head"]["kernel"] = optax.MaskedNode()
        chex.assert_trees_all_equal(mask, wanted)
        assert {leaf.dtype for leaf in jax.tree.leaves(mask)} == {jnp.dtype(bool)}


def test_metrics_are_the_same_in_a_compiled_step(expected):
    state = run(NESTINGS["ovsw_sgd"]())
    assert_metrics(jax.jit(ovsw.flip_metrics)(state), expected["metrics"])
    for mask_of in (ovsw.silent_mask, ovsw.never_flipped_mask):
        chex.assert_trees_all_equal(jax.jit(mask_of)(state), mask_of(state))


def test_the_example_tells_the_metrics_apart(expected):
    """Guards the tests of this file: equal numbers would hide a mix-up."""
    total = {round(float(value), 6) for value in expected["metrics"]["total"].values()}
    assert len(total) == len(FLIP_METRICS | AGS_METRICS)
    silent, never = (
        np.concatenate([m[i].ravel() for m in expected["masks"].values()]) for i in (0, 1)
    )
    assert 0 < never.mean() < silent.mean() < 1


@pytest.mark.parametrize(
    ("tx", "metrics"),
    [
        (ovsw.ags(), AGS_METRICS),
        (ovsw.sad(), FLIP_METRICS),
        (ovsw.track_flip_state(), FLIP_METRICS),
    ],
)
def test_each_transform_reports_what_it_knows(tx, metrics):
    reported = ovsw.flip_metrics(run(tx))
    assert set(reported) == {*SHAPES, "total"}
    assert all(set(values) == metrics for values in reported.values())


def test_before_the_first_update_every_weight_is_silent_and_has_never_flipped():
    state = ovsw.sad().init(nested(kernels(0)))
    total = ovsw.flip_metrics(state)["total"]
    assert (total["flip_ratio"], total["silent_ratio"], total["never_flipped_ratio"]) == (0, 1, 1)
    assert all(jnp.all(mask) for mask in jax.tree.leaves(ovsw.silent_mask(state)))
    assert all(jnp.all(mask) for mask in jax.tree.leaves(ovsw.never_flipped_mask(state)))


@pytest.mark.long
@pytest.mark.parametrize("mask", ["tree", "function"])
def test_layers_that_the_caller_s_mask_selects(mask):
    def only_linear(params):
        chosen = jax.tree.map(lambda _: False, params)
        return chosen | {"linear": True, "head": {"kernel": True}}

    chosen = only_linear(nested(kernels(0))) if mask == "tree" else only_linear
    for tx in (ovsw.ags(mask=chosen), ovsw.sad(mask=chosen), ovsw.track_flip_state(mask=chosen)):
        grads = nested(gradients(0))
        updates, state = tx.update(grads, tx.init(nested(kernels(0))), nested(kernels(0)))
        # A leaf by another name is a layer of its own, under its whole path.
        assert set(ovsw.flip_metrics(state)) == {"linear", "head/kernel", "total"}
        assert updates["layer1"] == grads["layer1"]


def test_latent_mask_finds_the_key_anywhere_in_the_path():
    params = {
        "a": [{"latent_kernel": 1.0}, {"kernel": 1.0, "latent_kernel_2": 1.0}],
        "latent_kernel": {"stacked": 1.0},
        "bias": 1.0,
    }
    assert ovsw.latent_mask(params) == {
        "a": [{"latent_kernel": True}, {"kernel": False, "latent_kernel_2": False}],
        "latent_kernel": {"stacked": True},
        "bias": False,
    }


def test_metrics_of_a_kernel_at_the_root():
    params = {"latent_kernel": jnp.ones((3, 4))}
    assert set(ovsw.flip_metrics(ovsw.sad().init(params))) == {"latent_kernel", "total"}
