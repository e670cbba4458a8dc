"""States of one's own in `flip_metrics`: found wherever they are, and bad reports refused."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import ovsw_jax as ovsw

pytestmark = pytest.mark.usefixtures("strict_promotion")

PARAMS = {
    "conv": {"latent_kernel": jnp.full((2, 3), 2.0), "bias": jnp.zeros(3)},
    "dense": {"latent_kernel": jnp.full((2, 1), -6.0)},
}
SIZES = {"conv": 2.0, "dense": 6.0, "total": 3.0}  # of six weights and of two
MASKED = optax.MaskedNode()


class SizeState(NamedTuple):
    mean_size: Any
    weights: Any

    def layer_metrics(self):
        return {"mean_size": (self.mean_size, self.weights)}


def sizes(params):
    mask = ovsw.latent_mask(params)

    def over_latent(f):
        return jax.tree.map(lambda latent, w: f(w) if latent else MASKED, mask, params)

    return SizeState(over_latent(lambda w: jnp.mean(jnp.abs(w))), over_latent(jnp.size))


track_size = optax.GradientTransformation(sizes, lambda u, s, params: (u, sizes(params)))


class WrapperState(NamedTuple):
    """As of a wrapper that reports itself: what it wraps must be found too."""

    inner: Any
    share: Any

    def layer_metrics(self):
        return {"share": (self.share, self.share)}


def wrapped(inner):
    def init(params):
        share = {name: {"latent_kernel": jnp.float32(0.5)} for name in params}
        return WrapperState(inner.init(params), share)

    return optax.GradientTransformation(init, lambda u, s, params: (u, s))


def injected(scale=1.0):
    return optax.chain(track_size, optax.sgd(scale))


def labels(params):
    return jax.tree.map(lambda m: "binary" if m else "real", ovsw.latent_mask(params))


NESTINGS = {
    "alone": track_size,
    "chain": optax.chain(ovsw.ags(), track_size, ovsw.sad(), optax.sgd(0.1)),
    "masked": optax.masked(track_size, ovsw.latent_mask),
    "partition": optax.partition({"binary": track_size, "real": optax.sgd(0.1)}, labels),
    "MultiSteps": optax.MultiSteps(optax.chain(track_size, optax.sgd(0.1)), 2),
    "apply_if_finite": optax.apply_if_finite(track_size, 3),
    "inject_hyperparams": optax.inject_hyperparams(injected)(),
    "a wrapper that reports": wrapped(optax.chain(track_size, optax.sgd(0.1))),
}


@pytest.mark.parametrize("nesting", NESTINGS)
def test_a_state_of_one_s_own_is_found(nesting):
    metrics = ovsw.flip_metrics(NESTINGS[nesting].init(PARAMS))
    assert {name: values["mean_size"] for name, values in metrics.items()} == SIZES
    assert all(x.shape == () and x.dtype == jnp.float32 for x in jax.tree.leaves(metrics))


def test_in_an_nnx_optimizer():
    model = nnx.Dict(conv=nnx.Dict(latent_kernel=nnx.Param(jnp.full((2, 3), 2.0))))
    optimizer = nnx.Optimizer(model, track_size, wrt=nnx.Param)
    assert ovsw.flip_metrics(optimizer.opt_state)["conv"] == {"mean_size": 2.0}


def test_beside_the_states_of_the_library():
    state = NESTINGS["chain"].init(PARAMS)
    metrics = ovsw.flip_metrics(state)
    flips = ["flip_ratio", "silent_ratio", "never_flipped_ratio"]
    others = ["rescaled_filter_ratio", "grad_weight_ratio", "mean_size"]
    assert [list(values) for values in metrics.values()] == [flips + others] * 3
    assert list(metrics) == ["conv", "dense", "total"]
    compiled = jax.jit(ovsw.flip_metrics)(state)
    assert jax.tree.all(jax.tree.map(lambda a, b: jnp.allclose(a, b), compiled, metrics))


def test_a_wrapper_that_reports_hides_nothing_that_it_wraps():
    inner = optax.chain(ovsw.sad(), optax.sgd(0.1))
    metrics = ovsw.flip_metrics(wrapped(inner).init(PARAMS))
    assert metrics["total"] == {**ovsw.flip_metrics(inner.init(PARAMS))["total"], "share": 0.5}


def test_the_protocol_is_what_the_states_of_the_library_have():
    for tx in (ovsw.ags(), ovsw.sad(), track_size):
        assert isinstance(tx.init(PARAMS), ovsw.ReportsMetrics)
    assert not isinstance(ovsw.bop().init(PARAMS), ovsw.ReportsMetrics)


@jax.tree_util.register_pytree_node_class
class Report:
    """A state that is no tuple, and reports what it is given."""

    def __init__(self, report):
        self.report = report

    def tree_flatten(self):
        return (), self.report

    @classmethod
    def tree_unflatten(cls, report, _):
        return cls(report)

    def layer_metrics(self):
        return self.report


def test_totals_are_means_by_weight():
    values = {"a": 1, "b": np.float32(4.0), "c": MASKED}
    report = Report({"x": (values, {"a": 0.2, "b": 0.1, "c": MASKED}), "y": (values, dict(values))})
    total = ovsw.flip_metrics((report,))["total"]
    np.testing.assert_allclose([total["x"], total["y"]], [2.0, 17 / 5], rtol=1e-6)
    # A count can be beyond int32, and the mean of an empty layer is NaN.
    sizes = {"a": 2**40, "b": 0}
    assert ovsw.flip_metrics(Report({"x": ({"a": 3, "b": jnp.nan}, sizes)}))["total"] == {"x": 3}
    nothing = Report({"x": ({"a": 3.0}, {"a": 0})})
    assert ovsw.flip_metrics(nothing)["total"] == {"x": 0}


class OtherState(NamedTuple):
    mean_size: Any

    def layer_metrics(self):
        return {"mean_size": (self.mean_size, self.mean_size)}


def test_two_states_with_a_metric_of_one_name():
    other = OtherState({"conv": {"latent_kernel": 1.0}})
    with pytest.raises(
        ValueError,
        match=r"mean_size of 'conv' is ambiguous: OtherState and SizeState both report it\. Give "
        r"the metric another name in layer_metrics",
    ):
        ovsw.flip_metrics((sizes(PARAMS), other))
    # Of other layers it is no clash.
    other = OtherState({"stem": {"latent_kernel": 1.0}})
    assert ovsw.flip_metrics((sizes(PARAMS), other))["stem"] == {"mean_size": 1}


class Field(NamedTuple):
    layer_metrics: Any


def test_a_field_of_that_name_is_no_report():
    with pytest.raises(TypeError, match=r"layer_metrics=3 of Field is no method\. Make it one"):
        ovsw.flip_metrics(Field(3))


ONE = {"a": 1.0}
BAD = {
    "no dict": ([("x", ONE)], TypeError, r"of Report returned \[.*must be a dict"),
    "nothing": (None, TypeError, "returned None"),
    "no name": ({1: (ONE, ONE)}, TypeError, "name of each metric"),
    "no weights": ({"x": ONE}, TypeError, "tuple of two trees"),
    "three trees": ({"x": (ONE, ONE, ONE)}, TypeError, "tuple of two trees"),
    "weights of other layers": (
        {"x": (ONE, {"b": 1.0})},
        ValueError,
        r"reports 'x' of Report for the layers \['a'\], with weights for \['b'\]; .*same params",
    ),
    "a weight too few": ({"x": ({"a": 1.0, "b": 2.0}, ONE)}, ValueError, "must be the same"),
    "a value per weight": (
        {"x": ({"a": jnp.ones((2, 3))}, ONE)},
        ValueError,
        r"value 'x' of Report for the layer 'a' of shape \(2, 3\); it must be a scalar",
    ),
    "a weight below 0": ({"x": (ONE, {"a": -1})}, ValueError, "weight 'x'.*is -1; .*at least 0"),
    "several weights": ({"x": (ONE, {"a": jnp.ones(3)})}, ValueError, r"weight 'x'.*shape \(3,\)"),
    "text": ({"x": ({"a": "much"}, ONE)}, TypeError, r"value 'x'.*is 'much'; .*real number"),
    "complex": ({"x": ({"a": 1j}, ONE)}, TypeError, "of dtype complex64; it must be a real"),
    "a bool": ({"x": ({"a": True}, ONE)}, TypeError, "of dtype bool; it must be a real number"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_report(name):
    report, error, text = BAD[name]
    with pytest.raises(error, match=text):
        ovsw.flip_metrics((Report(report), ovsw.sad().init(PARAMS)))


class CountedState(NamedTuple):
    count: Any  # type: ignore[assignment]
    size: Any

    def layer_metrics(self):
        return {"size": (self.size, self.size)}


def test_a_state_with_an_axis_of_vmap():
    state = CountedState(jnp.zeros(3, jnp.int32), {"a": jnp.ones(3)})
    of_the_library = jax.vmap(ovsw.ovsw_sgd(0.1).init)(
        jax.tree.map(lambda x: jnp.stack([x] * 3), PARAMS)
    )
    for stacked in (state, OtherState({"a": jnp.ones(3)}), of_the_library):
        with pytest.raises(ValueError, match=r"jax\.vmap\(ovsw\.flip_metrics\)\(opt_state\)"):
            ovsw.flip_metrics(stacked)
        assert jax.tree.leaves(jax.vmap(ovsw.flip_metrics)(stacked)["total"])[0].shape == (3,)
