"""Appendix B: outputs and gradients don't see the size of latent weights and of filter factors.

What is exact, and checked in float64 to 1e-12 of the largest entry of each array:

- gamma, a scale of all latent weights, reaches the network through their signs, which it leaves
  alone, and through alpha(W), the mean |standardised W|. With no factor, or a learned one, nothing
  changes at all, bit for bit and even without batch norm: logits, loss, and the gradients in
  inputs and all parameters, the latent weights (straight-through, not clipped) included.
- alpha(W) standardises with an epsilon of its own, 1e-5 under the root, so that small gamma shrink
  it. To the network that is a change of alpha.
- alpha, a positive factor of each filter in front of batch norm, changes neither those nor the
  gradient in the convolution's own output if batch norm's epsilon is 0. With any epsilon,
  BN(alpha y; epsilon) = BN(y; epsilon / alpha^2). The gradient in alpha itself goes as 1 / alpha.
- With an epsilon of 1e-5 this is the paper's "approximately". How far it goes is below for one
  layer, and drawn for a network by experiments.studies.appendix_b_figure.

Batch norms get random affine parameters: with the initial ones some activations are exactly 0,
where rounding decides on the sign.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from longer import long_but
from test_figure_layout import assert_readable

import ovsw_jax as ovsw
from experiments.figures.points import write_csv
from experiments.studies import appendix_b, appendix_b_figure

pytestmark = pytest.mark.usefixtures("float64")
# The fixture switches a mode on, which may stay on from example to example.
mode_only = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

TOLERANCE = 1e-12
EPSILON = 1e-5
NETWORKS = ("conv", "dense", "resnet")
exponents = st.floats(-4, 3)
seeds = st.integers(0, 2**31)


class Stack(nnx.Module):
    """Binary layers with or without batch norm, and a linear head."""

    def __init__(self, kind, batch_norm, rngs):
        features = 6 if kind == "conv" else 24
        layer = (
            functools.partial(ovsw.nn.BinaryConv, features, features, (3, 3), rngs=rngs)
            if kind == "conv"
            else functools.partial(ovsw.nn.BinaryDense, features, features, rngs=rngs)
        )
        norm = functools.partial(nnx.BatchNorm, features, use_fast_variance=False, rngs=rngs)
        self.layers = nnx.List([layer() for _ in range(3)])
        self.norms = nnx.List([norm() for _ in range(3 * batch_norm)])
        self.head = nnx.Linear(features, 5, rngs=rngs)

    def __call__(self, x):
        for i, layer in enumerate(self.layers):
            x = layer(x)
            x = jax.nn.hard_tanh(self.norms[i](x) if self.norms else x)
        return self.head(x.reshape(len(x), -1, x.shape[-1]).mean(axis=1))


class Network:
    """A network as a pure function of parameters, factors and epsilons."""

    def __init__(self, kind, scale, batch_norm):
        if kind == "resnet":
            model = ovsw.models.SmallResNet(5, in_channels=2, rngs=nnx.Rngs(0))
            self.x_shape = (8, 8, 8, 2)
            shapes = [(8, 8, 8, 16)] * 2 + [(8, 4, 4, 32)] * 2
        else:
            model = Stack(kind, batch_norm, nnx.Rngs(0))
            self.x_shape = (12, 5, 5, 6) if kind == "conv" else (32, 24)
            shapes = [self.x_shape] * 3
        layers = (ovsw.nn.BinaryConv, ovsw.nn.BinaryDense)
        self.binary = [p for p, m in nnx.iter_modules(model) if isinstance(m, layers)]
        for path, module in nnx.iter_modules(model):
            if path in self.binary:
                module.scale = scale
                filters = module.latent_kernel.shape[-1]
                module.filter_scale = nnx.data(
                    nnx.Param(jnp.linspace(0.5, 2, filters)) if scale == "learned" else None
                )
        self.graph, params, rest = nnx.split(model, nnx.Param, ...)
        self.rest = jax.tree.map(lambda x: x.astype(jnp.float64), nnx.to_pure_dict(rest))
        self.template = nnx.to_pure_dict(params)
        self.probes = [np.zeros(s) for s in shapes]
        self.ones = [np.ones(s[-1]) for s in shapes]
        self._compiled = jax.jit(self._run)

    def run(self, params, x, alphas=None, epsilon=EPSILON):
        """Logits, loss and all gradients; `epsilon` is a number, or an array a layer."""
        if not isinstance(epsilon, list):
            epsilon = [np.full(o.shape, epsilon) for o in self.ones]
        return jax.tree.map(np.asarray, self._compiled(params, x, alphas, epsilon))

    def draw(self, seed):
        """Random parameters and a batch; the scale of a batch norm is positive."""
        rng = np.random.default_rng(seed)

        def value(path, x):
            name = path[-1].key
            if name == "scale":
                return rng.uniform(0.5, 1.5, x.shape)
            return rng.normal(size=x.shape) * (0.5 if name == "bias" else 0.2)

        params = jax.tree_util.tree_map_with_path(value, self.template)
        return params, rng.normal(size=self.x_shape)

    def _run(self, params, x, alphas, epsilons):
        """Logits, loss and all gradients; `alphas` replace the factors, one array a layer.

        A probe is added to each convolution's output in front of the factor, so that the gradient
        in the probe is the one in that output.
        """

        def loss(params, x, probes):
            model = nnx.merge(self.graph, params, self.rest)
            modules = dict(nnx.iter_modules(model))
            for i, path in enumerate(self.binary):
                modules[path].bias = nnx.Param(probes[i])
                if alphas is not None:
                    modules[path].scale = "learned"
                    modules[path].filter_scale = nnx.Param(alphas[i])
            for path, module in modules.items():
                if isinstance(module, nnx.BatchNorm):
                    module.epsilon = self._epsilon(path, epsilons)
            model.train()
            logits = model(x)
            labels = jnp.arange(len(x)) % 5
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), logits

        (value, logits), gradients = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(
            params, x, self.probes
        )
        return logits, value, gradients

    def _epsilon(self, path, epsilons):
        """That of the batch norm at `path`: by the binary layer in front of it, if one is."""
        in_front = {"norms": "layers", "bn1": "conv1", "bn2": "conv2"}
        layer = tuple(in_front.get(key, key) for key in path)
        return epsilons[self.binary.index(layer)] if layer in self.binary else EPSILON


@functools.cache
def network(kind, scale=None, batch_norm=True):
    return Network(kind, scale, batch_norm)


def scaled(params, gamma):
    return jax.tree.map(lambda w, m: gamma * w if m else w, params, ovsw.latent_mask(params))


def random_alphas(net, exponent, spread, seed):
    """Around 10**exponent, each filter with its own."""
    rng = np.random.default_rng(seed)
    return [10 ** np.clip(exponent + spread * rng.uniform(-1, 1, o.shape), -4, 3) for o in net.ones]


def largest_change(a, b):
    def relative(x, y):
        return np.max(np.abs(x - y)) / np.max(np.abs(x))

    return np.max(jax.tree.leaves(jax.tree.map(relative, a, b)))


def alpha_of(net, params):
    """The standardised factor of each binary layer, by its formula."""
    factors = []
    for path in net.binary:
        kernel = functools.reduce(lambda node, key: node[key], path, params)["latent_kernel"]
        w = kernel.reshape(-1, kernel.shape[-1])
        standardised = (w - w.mean(axis=0)) / np.sqrt(w.var(axis=0, ddof=1) + 1e-5)
        factors.append(np.abs(standardised).mean(axis=0))
    return factors


@mode_only
@given(
    kind=st.sampled_from(["conv", "dense"]),
    scale=st.sampled_from([None, "learned"]),
    e=exponents,
    seed=seeds,
)
def test_gamma_changes_nothing_bit_for_bit(kind, scale, e, seed):
    net = network(kind, scale)
    params, x = net.draw(seed)
    plain, other = net.run(params, x), net.run(scaled(params, 10.0**e), x)
    jax.tree.map(np.testing.assert_array_equal, plain, other)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(plain))


@pytest.mark.long
@mode_only
@given(kind=st.sampled_from(NETWORKS), e=exponents, seed=seeds)
def test_gamma_behind_a_standardised_factor(kind, e, seed):
    """Exact with batch norm's epsilon at 0, and with one that follows alpha(gamma W)."""
    net = network(kind, "standardized")
    params, x = net.draw(seed)
    larger = scaled(params, 10.0**e)
    plain, other = (net.run(p, x, epsilon=0.0) for p in (params, larger))
    assert largest_change(plain, other) < TOLERANCE
    plain, other = (
        net.run(p, x, epsilon=[EPSILON * a**2 for a in alpha_of(net, p)]) for p in (params, larger)
    )
    assert largest_change(plain, other) < TOLERANCE


@pytest.mark.long
@mode_only
@given(kind=st.sampled_from(NETWORKS), e=exponents, spread=st.floats(0, 3), seed=seeds)
def test_alpha_changes_nothing(kind, e, spread, seed):
    """Neither logits and loss, nor gradients in inputs, weights and each convolution's output."""
    net = network(kind)
    params, x = net.draw(seed)
    alphas = random_alphas(net, e, spread, seed)
    plain, other = (net.run(params, x, a, 0.0) for a in (net.ones, alphas))
    assert largest_change(plain, other) < TOLERANCE
    plain, other = (net.run(params, x, a, [EPSILON * f**2 for f in a]) for a in (net.ones, alphas))
    assert largest_change(plain, other) < TOLERANCE


@pytest.mark.long
@pytest.mark.parametrize("kind", ["conv", "dense"])
def test_without_batch_norm_both_show(kind):
    """The tests above can fail; what needs no batch norm holds without it."""
    for scale, visible in ((None, False), ("standardized", True)):
        net = network(kind, scale, batch_norm=False)
        params, x = net.draw(0)
        change = largest_change(net.run(params, x), net.run(scaled(params, 1e-3), x))
        assert change > 0.1 if visible else change == 0
    alphas = random_alphas(net, 0.0, 1.0, 0)
    assert largest_change(net.run(params, x, net.ones), net.run(params, x, alphas)) > 0.1


def train(net, params, x, tx, steps=6):
    """Signs of all latent weights after each step, and the last optimizer state."""

    @jax.jit
    def step(gradients, params, state):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    state, signs = tx.init(params), []
    for _ in range(steps):
        gradients = net.run(params, x, epsilon=0.0)[2][0]
        params, state = step(gradients, params, state)
        leaves = zip(*map(jax.tree.leaves, (params, ovsw.latent_mask(params))), strict=True)
        signs.append(np.concatenate([np.ravel(w >= 0) for w, latent in leaves if latent]))
    return np.array(signs), state


def flips(signs):
    return int((signs[1:] != signs[:-1]).sum())


@pytest.mark.long
@pytest.mark.parametrize("kind", long_but(NETWORKS, "conv"))
@pytest.mark.parametrize("gamma", [1.7, 1e3])
def test_ags_makes_flips_independent_of_gamma(kind, gamma):
    """Where the floor holds for all filters: OvSW with momentum and decay, over several steps.

    AGS lifts |G_i| to lam |W_i|, and both decays go as W, so the whole step scales with W.
    """
    net = network(kind, "standardized")
    params, x = net.draw(0)
    params = scaled(params, 50.0)  # |G_i| / |W_i| below lam, now and for larger weights
    tx = ovsw.ovsw_sgd(0.3, lam=0.8)
    plain, state = train(net, params, x, tx)
    other, other_state = train(net, scaled(params, gamma), x, tx)
    assert flips(plain) > 0.05 * plain[0].size
    np.testing.assert_array_equal(plain, other)
    for s in (state, other_state):
        assert ovsw.flip_metrics(s)["total"]["rescaled_filter_ratio"] == 1
    without = optax.sgd(0.3, momentum=0.9)
    assert flips(train(net, scaled(params, gamma), x, without)[0]) < 0.01 * flips(plain)


@pytest.mark.long
def test_measurement_and_figure(tmp_path):
    scales = (1e-4, 1.0, 1e3)
    changes = appendix_b.measure_changes(scales, dtypes=("float64",))
    exact = [c for c in changes if c.epsilon == 0]
    assert len(exact) == 6
    assert max(max(c.logits, c.gradients) for c in exact) < TOLERANCE
    assert all(c.logits > 0.1 for c in changes if c.epsilon and c.scale == 1e-4)
    ratios = [
        appendix_b.Ratio(1e-4, 250.0, 250.0),
        appendix_b.Ratio(1e3, 2.5e-5, 0.04),
    ]
    assert_readable(appendix_b_figure.figure(changes, ratios))
    write_csv(tmp_path / "table.csv", list(appendix_b_figure.rows(changes, ratios)))
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines[0] == "scaled,scale,dtype,epsilon,quantity,value"
    assert len(lines) == 1 + 2 * len(changes) + 2 * len(ratios)
    assert lines[-1] == "gamma,1000,float32,1e-05,median |G_i| / |W_i| after AGS,0.04"


@pytest.mark.long
def test_the_gradient_per_weight_falls_as_the_weights_grow():
    ratios = appendix_b.measure_ratios((0.01, 1.0, 100.0), dtype="float64")
    # Within what the usual epsilon leaves of the invariance.
    np.testing.assert_allclose([r.plain * r.scale for r in ratios], ratios[1].plain, rtol=1e-4)
    assert ratios[0].after_ags == ratios[0].plain
    assert ratios[2].after_ags == pytest.approx(appendix_b.LAM, rel=1e-5)
