"""Rules traced for a GPU, where layers are computed together, do what they do layer by layer.

What is traced for a GPU also runs here, so all of this is computed on the CPU.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import ovsw_jax as ovsw
from ovsw_jax.rows import apart, in_rows, sums

pytestmark = pytest.mark.usefixtures("strict_promotion")


def kernels(seed, shapes, dtype=np.float32):
    """Weights, and gradients of which some filters lie below any floor that is tried."""
    rng = np.random.default_rng(seed)
    sizes = [10.0 ** rng.uniform(-4, 0, shape[-1:]) for shape in shapes]
    drawn = [
        (rng.normal(size=s), rng.normal(size=s) * n) for s, n in zip(shapes, sizes, strict=True)
    ]
    weights, gradients = (
        {f"layer{i}": {"latent_kernel": jnp.asarray(x, dtype)} for i, x in enumerate(arrays)}
        for arrays in zip(*drawn, strict=True)
    )
    return weights, gradients


def run(platform, tx, params, gradients, steps=1):
    """Params and state after some steps, traced anew for a platform."""

    @jax.jit
    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    with ovsw.nn.compute_for(platform):
        state = tx.init(params)
        for i in range(steps):
            turned = jax.tree.map(lambda g, i=i: jnp.roll(g, i, axis=0), gradients)
            params, state = step(params, state, turned)
    return params, state


def both(tx, params, gradients, steps=1):
    """On a CPU, on a GPU; that the second computes layers together is checked, too."""
    with ovsw.nn.compute_for("gpu"):
        assert in_rows(jax.tree.leaves(params))
    return run("cpu", tx, params, gradients, steps), run("gpu", tx, params, gradients, steps)


def assert_same(expected, actual, tolerance=1e-5):
    """Equal trees: codes, counts and shares exactly, other floats up to rounding."""
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, expected)
    chex.assert_trees_all_close(actual, expected, rtol=tolerance, atol=tolerance)


@st.composite
def arrays_and_axes(draw):
    shapes = draw(st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=5))
    subsets = (draw(st.lists(st.booleans(), min_size=4, max_size=4)) for _ in shapes)
    return [
        (tuple(shape), tuple(axis for axis in range(len(shape)) if chosen[axis]))
        for shape, chosen in zip(shapes, subsets, strict=True)
    ]


@settings(max_examples=25, deadline=None)
@given(cases=arrays_and_axes(), adjacent=st.booleans())
def test_a_row_has_the_sums_of_one_array_and_zeros(cases, adjacent):
    values = [np.arange(1, 1 + np.prod(s, dtype=int), dtype=np.int32).reshape(s) for s, _ in cases]
    found = sums([jnp.asarray(x) for x in values], [axes for _, axes in cases], adjacent=adjacent)
    assert sorted(found.of) == list(range(len(values)))
    for x, (_, axes), row in zip(values, cases, found.of, strict=True):
        expected = x.sum(axes).ravel()
        np.testing.assert_array_equal(found.values[row][found.filled[row]], expected)
        assert found.sizes[row] == found.filled[row].sum() == expected.size
        assert not np.any(found.values[row][~found.filled[row]])


NETWORK = [(3, 3, 4, 8), (3, 3, 4, 8), (1, 1, 4, 8), (20, 6), (5, 0), (7,)]


@pytest.mark.parametrize("state", ["packed", "packed8", "ema"])
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.float64])
def test_ovsw_by_platform(state, dtype):
    with jax.enable_x64(dtype is np.float64):
        params, gradients = kernels(0, NETWORK, dtype)
        tx = ovsw.ovsw_sgd(0.1, lam=0.5, flip_momentum=0.9, threshold=0.05, state=state)
        expected, actual = both(tx, params, gradients, steps=8)
        assert_same(expected, actual, 1e-2 if dtype == jnp.bfloat16 else 1e-5)
        metrics = ovsw.flip_metrics(actual[1])["total"]
        assert 0 < metrics["flip_ratio"] < 1
        assert 0 < metrics["rescaled_filter_ratio"] < 1


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), lam=st.floats(0, 2, width=32))
def test_ags_by_platform(seed, lam):
    """Filters that are not scaled keep every bit, and those that are not finite show."""
    params, gradients = kernels(seed, [(4, 5), (4, 5), (2, 3)])
    gradients["layer1"]["latent_kernel"] = gradients["layer1"]["latent_kernel"].at[1, 2].set(np.nan)

    def scaled(platform):
        tx = ovsw.scale_by_ags(jnp.float32(lam))
        with ovsw.nn.compute_for(platform):
            updates, state = jax.jit(lambda g, p: tx.update(g, tx.init(p), p))(gradients, params)
        return updates, state.rescaled_filter_ratio, state.filters, state.grad_weight_ratio

    expected, actual = scaled("cpu"), scaled("gpu")
    assert_same(expected, actual)
    leaves = map(jax.tree.leaves, (gradients, expected[0], actual[0]))
    for g, on_cpu, on_gpu in zip(*leaves, strict=True):
        kept = np.asarray(on_cpu == g)
        np.testing.assert_array_equal(on_gpu[kept], g[kept])


def test_stacked_layers_by_platform():
    params, gradients = kernels(1, [(3, 2, 4, 5), (3, 2, 4, 5), (2, 4, 5)])
    axes = {f"layer{i}": {"latent_kernel": (1, -2) if i < 2 else (0,)} for i in range(3)}
    assert_same(*both(ovsw.scale_by_ags(0.3, axes=axes), params, gradients))


def test_vmap_by_platform():
    params, gradients = kernels(2, [(4, 3, 5), (4, 2, 6)])
    tx = ovsw.ovsw_sgd(0.1, axes=(0,))

    def update(params, gradients):
        return tx.update(gradients, tx.init(params), params)

    def on(platform):
        with ovsw.nn.compute_for(platform):
            return jax.jit(lambda *a: jax.vmap(update)(*a))(params, gradients)

    assert_same(on("cpu"), on("gpu"))


def test_a_floor_for_each_filter():
    params, gradients = kernels(3, [(4, 5), (3, 5)])
    assert_same(*both(ovsw.scale_by_ags(jnp.linspace(0, 1, 5)), params, gradients))


@pytest.mark.parametrize("make", [ovsw.scale_by_ags, ovsw.sad, ovsw.track_flip_state, ovsw.bop])
def test_buffers_may_be_donated(make):
    """JAX gives no donated buffer to a result whose layout is pinned."""
    params, gradients = kernels(4, [(4, 5), (3, 6)])
    tx = make()
    with ovsw.nn.compute_for("gpu"):
        state = tx.init(params)
        step = jax.jit(lambda g, s, p: tx.update(g, s, p), donate_argnums=(0, 1))
        chex.assert_tree_all_finite(step(gradients, state, params))


def test_layers_are_computed_one_by_one_where_they_differ():
    a, b = jnp.ones((2, 3)), jnp.ones(4)
    assert not in_rows([a, b])  # on a CPU
    with ovsw.nn.compute_for("gpu"):
        assert not in_rows([a])  # there is nothing to share
        assert in_rows([a, b], [a.astype(jnp.bfloat16), b])  # both are computed in float32
        mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
        whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
        assert not jax.jit(lambda x: jnp.array(in_rows([x, x])))(jax.device_put(b, split))
        assert not jax.jit(lambda x: jnp.array(in_rows([x, x])))(jax.device_put(b, whole))
        with jax.enable_x64(True):
            assert not in_rows([a, jnp.ones(4, jnp.float64)])


@pytest.mark.parametrize("kind", list(AxisType)[:2])
def test_sharded_filters(kind):
    params, gradients = kernels(5, [(4, 6), (4, 6), (3, 8)])
    tx = ovsw.ovsw_sgd(0.1, lam=0.5)
    expected = run("cpu", tx, params, gradients, 3)
    mesh = jax.make_mesh((2,), ("model",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        split = NamedSharding(mesh, PartitionSpec(None, "model"))
        actual = run("gpu", tx, *jax.device_put((params, gradients), split), 3)
    assert_same(jax.device_get(expected), jax.device_get(actual))


def test_shard_map_of_layers_that_vary_and_layers_that_do_not():
    params, gradients = kernels(6, [(4, 6), (3, 8), (3, 8)])
    mesh = jax.make_mesh((2,), ("model",), axis_types=(AxisType.Auto,))
    split, whole = PartitionSpec(None, "model"), PartitionSpec()
    specs = {name: {"latent_kernel": split if name == "layer0" else whole} for name in params}
    tx = ovsw.scale_by_ags(0.5)

    def update(params, gradients):
        return tx.update(gradients, tx.init(params), params)[0]

    mapped = jax.shard_map(update, mesh=mesh, in_specs=(specs, specs), out_specs=specs)
    with ovsw.nn.compute_for("gpu"):
        actual = jax.jit(mapped)(params, gradients)
    expected = jax.jit(update)(params, gradients)
    assert_same(jax.device_get(expected), jax.device_get(actual))


def test_what_is_computed_apart_is_the_same():
    arrays = [jnp.arange(6).reshape(2, 3), jnp.float32(2), jnp.zeros((0, 3))]
    chex.assert_trees_all_equal(apart(arrays), arrays)
