"""Plots for loops of one's own: what they count, that they can be read, and bad arguments."""

import itertools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from test_figure_layout import assert_readable

import ovsw_jax as ovsw
from ovsw_jax import plots

NAMES = [f"layer{i}/{j}/conv" for i in range(3) for j in range(4)]


def tracked(names, steps=40):
    """Params and state of an optimizer whose horizon is shorter than the training."""
    rng = np.random.default_rng(0)
    params = {
        name: {"latent_kernel": rng.normal(size=(6, 5)).astype(np.float32), "bias": np.zeros(5)}
        for name in names
    }
    sigma = ovsw.threshold_for_horizon(0.999, 10)
    tx = optax.chain(ovsw.track_flip_state(threshold=sigma))
    state, history = tx.init(params), []
    for _ in range(steps):
        moved = jax.tree.map(lambda w: w + 0.2 * rng.normal(size=w.shape), params)
        params = jax.tree.map(lambda w: np.asarray(w, np.float32), moved)
        state = tx.update(params, state, params)[1]
        history.append(ovsw.flip_metrics(state))
    return params, state, history


@pytest.fixture(scope="module")
def training():
    return tracked(NAMES)


def test_bars_count_weights_by_kind(training):
    params, state, _ = training
    figure = plots.latent_histogram(params, state, bins=10)
    assert [axes.get_title() for axes in figure.axes] == NAMES
    silent, never = ovsw.silent_mask(state), ovsw.never_flipped_mask(state)
    for axes, name in zip(figure.axes, NAMES, strict=True):
        is_silent, is_never = (m[name]["latent_kernel"] for m in (silent, never))
        kinds = [is_never, is_silent & ~is_never, ~is_silent & ~is_never]
        for patch, kind in zip(axes.patches, kinds, strict=True):
            values, edges, baseline = patch.get_data()
            w = params[name]["latent_kernel"][np.asarray(kind)]
            inner = [np.sum((w >= a) & (w < b)) for a, b in itertools.pairwise(edges)]
            inner[0] += np.sum(w < edges[0])
            inner[-1] += np.sum(w >= edges[-1])
            np.testing.assert_array_equal(values - baseline, inner)
        beyond = np.abs(params[name]["latent_kernel"]) > edges[-1]
        assert np.sum(beyond) <= np.ceil(0.01 * beyond.size)
        assert f"silent {np.mean(is_silent):.1%}" in axes.texts[0].get_text()
    assert_readable(figure)


def test_curves_are_the_metrics_in_percent(training):
    *_, history = training
    steps = [10 * (i + 1) for i in range(len(history))]
    figure = plots.flip_curves(history, steps=steps)
    flips, silent = figure.axes
    assert silent.get_xlabel() == "Step"
    for axes, metric in ((flips, "flip_ratio"), (silent, "silent_ratio")):
        lines = {line.get_label(): line for line in axes.lines}
        assert set(lines) == {*NAMES, "total"}
        for name, line in lines.items():
            np.testing.assert_array_equal(line.get_xdata(), steps)
            expected = [100 * float(entry[name][metric]) for entry in history]
            np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-6)
    assert_readable(figure)


@pytest.mark.parametrize("names", [["a"], NAMES[:2], ["a/very/long/name/of/a/layer/" * 3]])
def test_few_layers_and_long_names_can_be_read(names):
    params, state, history = tracked(names, steps=3)
    assert_readable(plots.latent_histogram(params, state))
    assert_readable(plots.flip_curves(history, metrics=["never_flipped_ratio"]))


def test_an_nnx_model_and_its_optimizer():
    rngs = nnx.Rngs(0)
    binary = ovsw.nn.BinaryDense(4, 4, use_bias=True, rngs=rngs)
    model = nnx.Sequential(nnx.Linear(4, 4, rngs=rngs), binary)
    optimizer = nnx.Optimizer(model, ovsw.ovsw_sgd(0.1), wrt=nnx.Param)
    figure = plots.latent_histogram(nnx.state(model, nnx.Param), optimizer.opt_state)
    assert [axes.get_title() for axes in figure.axes] == ["layers/1"]
    assert plots.flip_curves([ovsw.flip_metrics(optimizer.opt_state)]).axes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda p, s, h: plots.latent_histogram(p, s, layers=["x"]),
            r"layers=\['x'\] must be",
        ),
        (lambda p, s, h: plots.latent_histogram(p, s, bins=3), "bins=3 must be a positive even"),
        (lambda p, s, h: plots.latent_histogram(p, optax.sgd(1.0).init(p)), "holds no flip state"),
        (
            lambda p, s, h: plots.latent_histogram(jax.tree.map(lambda x: x * np.nan, p), s),
            "no latent weight of .* is finite",
        ),
        (lambda p, s, h: plots.flip_curves([]), "history has 0 entries"),
        (lambda p, s, h: plots.flip_curves(h, steps=[1]), "40 entries and steps has 1"),
        (
            lambda p, s, h: plots.flip_curves(h, metrics=["x"]),
            r"metrics=\['x'\] must be some",
        ),
    ],
)
def test_bad_arguments(training, call, message):
    with pytest.raises(ValueError, match=message):
        call(*training)


@pytest.mark.parametrize("history", [3, [3], [{}], [{"total": 1.0}], {"total": {"loss": 1.0}}])
def test_what_is_no_history(history):
    with pytest.raises(TypeError, match=r"history.* must .*ovsw\.flip_metrics returned"):
        plots.flip_curves(history)


def test_traced_numbers_are_refused(training):
    params, state, _ = training
    with pytest.raises(TypeError, match="latent_histogram draws numbers, and these are traced"):
        jax.jit(lambda p: plots.latent_histogram(p, state) and 0)(params)


def test_the_library_does_not_need_matplotlib():
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import ovsw_jax\n"
        "try:\n    import ovsw_jax.plots\n"
        "except ImportError as error:\n    assert 'ovsw-jax[plots]' in str(error)\n"
        "else:\n    raise SystemExit(1)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# --- tables


def test_a_table_of_metrics():
    metrics = {
        "conv": {"flip_ratio": jnp.float32(0.125), "grad_weight_ratio": 1.5},
        "total": {"flip_ratio": np.float32(1e-6), "grad_weight_ratio": 2},
    }
    table = ovsw.table(metrics)
    head, rule, conv, _, total = map(str.split, str(table).splitlines())
    assert head == ["layer", "flip_ratio", "grad_weight_ratio"]
    assert len(rule) == 1
    assert conv == ["conv", "12.5", "%", "1.5"]
    assert total == ["total", "<0.1", "%", "2"]
    assert table.to_markdown().splitlines()[-1] == "| **total** | **<0.1 %** | **2** |"
    assert '<td style="text-align: right">12.5 %</td>' in table._repr_html_()
    assert "&lt;0.1 %" in table._repr_html_()


def test_a_table_of_what_is_no_metric():
    for nothing in ([1], {}, {"total": {}}):
        with pytest.raises(TypeError, match="no dict of dicts"):
            ovsw.table(nothing)
    with pytest.raises(TypeError, match="are traced: return them"):
        jax.jit(lambda x: ovsw.table({"a": {"b": x}}) and 0)(1.0)
    with pytest.raises(TypeError, match="must be one number: take one member"):
        ovsw.table({"a": {"b": np.zeros(2)}})
    with pytest.raises(TypeError, match=r"metrics\['a'\]\['b'\]='x' is no number"):
        ovsw.table({"a": {"b": "x"}})
