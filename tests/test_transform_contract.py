"""One contract for every transform: each test runs for each of `CASES`."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract_cases import (
    CASES,
    STEPS,
    assert_same,
    at,
    compiled_train,
    latent_only,
    normal,
    reference_run,
    step_by_step,
    train,
)
from flax import nnx

import ovsw_jax as ovsw

pytestmark = pytest.mark.usefixtures("strict_promotion")


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture
def tx(case):
    return case.make()


@pytest.fixture
def reference(case):
    """(params, state, updates) of one compiled run on one device, which most tests must repeat."""
    return reference_run(case)


def test_scan_equals_jitted_steps_equals_eager_steps(tx, reference):
    params, gradients = normal(0), normal(1, STEPS)
    jitted = step_by_step(jax.jit(tx.update), tx, params, gradients)
    assert_same(reference, jitted)
    few = at(gradients, slice(3))
    _, _, updates = step_by_step(tx.update, tx, params, few)
    assert_same(updates, at(jitted[2], slice(3)))


def test_the_contract_sees_flips_silent_and_woken_weights():
    """Guards the tests of this file: without flips most of them could not fail."""
    _, state, _ = reference_run(CASES["ovsw_sgd"])
    total = ovsw.flip_metrics(state)["total"]
    for name in ("flip_ratio", "silent_ratio", "never_flipped_ratio"):
        assert 0.05 < total[name] < 0.95
    assert 0.05 < total["rescaled_filter_ratio"] <= 1


def test_no_retrace_and_no_change_of_state_structure_across_steps(tx):
    params, gradients = normal(0), normal(1, STEPS)
    first = tx.init(params)
    chex.clear_trace_counter()
    update = jax.jit(chex.assert_max_traces(tx.update, n=1))
    _, last, _ = step_by_step(update, tx, params, gradients)

    chex.assert_trees_all_equal_shapes_and_dtypes(first, last)
    weak = [[x.weak_type for x in jax.tree.leaves(state)] for state in (first, last)]
    assert weak[0] == weak[1]


def test_extra_args_are_accepted(tx):
    params, grads = normal(0), normal(1)
    plain = tx.update(grads, tx.init(params), params)
    extra = tx.update(grads, tx.init(params), params, value=jnp.zeros(()), step="ignored")
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    assert_same(extra, plain)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].only_latent])
def test_leaves_outside_the_mask_pass_through_and_cost_no_state(name):
    tx = CASES[name].make()
    params, grads = normal(0), normal(1)
    updates, state = tx.update(grads, tx.init(params), params)
    chex.assert_trees_all_equal(updates["head"], grads["head"])
    chex.assert_trees_all_equal(updates["conv"]["bias"], grads["conv"]["bias"])
    in_state = {x.shape for x in jax.tree.leaves(state)}
    assert in_state <= {(), (3, 3, 8, 16)}


def test_partition(tx, reference):
    def labels(tree):
        return jax.tree.map(lambda use: "latent" if use else "rest", ovsw.latent_mask(tree))

    split = optax.partition({"latent": tx, "rest": optax.sgd(0.5)}, labels)
    params, state, _ = jax.jit(functools.partial(train, split))(normal(0), normal(1, STEPS))
    assert_same(latent_only(params), latent_only(reference[0]))
    assert_same(ovsw.flip_metrics(state), ovsw.flip_metrics(reference[1]))


def test_inject_hyperparams(case, reference):
    injected = optax.inject_hyperparams(case.make)()
    params, state, updates = jax.jit(functools.partial(train, injected))(
        normal(0), normal(1, STEPS)
    )
    assert set(state.hyperparams) == set(case.hyperparameters)
    assert_same(updates, reference[2])
    assert_same(ovsw.flip_metrics(state), ovsw.flip_metrics(reference[1]))
    chex.assert_trees_all_equal_shapes_and_dtypes(params, reference[0])


def test_injected_hyperparams_can_be_changed_between_steps(case):
    params, grads = normal(0), normal(1)
    injected = optax.inject_hyperparams(case.make)()
    state = injected.init(params)
    changed = {name: v * jnp.float32(0.75) for name, v in state.hyperparams.items()}
    updates, state = injected.update(grads, state._replace(hyperparams=changed), params)
    tx = case.make(**changed)
    assert_same((updates, state.inner_state), tx.update(grads, tx.init(params), params))


def test_multi_steps_counts_one_update_for_each_group(case, tx):
    # Each gradient comes twice, as the mean of itself less and itself more of something else.
    params, gradients, other = normal(0), normal(1, STEPS), normal(2, STEPS)
    parts = jax.tree.map(
        lambda g, o: jnp.stack([g - o, g + o], axis=1).reshape(2 * STEPS, *g.shape[1:]),
        gradients,
        other,
    )
    grouped = optax.MultiSteps(tx, every_k_schedule=2)
    with jax.numpy_dtype_promotion("standard"):  # MultiSteps itself mixes dtypes
        actual_params, state, _ = jax.jit(functools.partial(train, grouped))(params, parts)
    expected_params, expected_state, _ = reference_run(case)
    assert_same(actual_params, expected_params)
    assert_same(state.inner_opt_state, expected_state)


def test_bfloat16_params(tx):
    params, grads = normal(0, dtype=jnp.bfloat16), normal(1, dtype=jnp.bfloat16)
    wide_params, wide_grads = (
        jax.tree.map(lambda x: x.astype(jnp.float32), t) for t in (params, grads)
    )
    state = tx.init(params)
    updates, after = jax.jit(tx.update)(grads, state, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, grads)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)

    expected, wide_after = tx.update(wide_grads, tx.init(wide_params), wide_params)
    updates = jax.tree.map(lambda u: u.astype(jnp.float32), updates)
    chex.assert_trees_all_close(updates, expected, rtol=2e-2, atol=1e-4)
    # Norms, S and the metrics are float32 at any precision of the params.
    assert_same(ovsw.flip_metrics(after), ovsw.flip_metrics(wide_after))


def test_float64_params(tx, reference):
    with jax.enable_x64(True):
        params, grads = normal(0, dtype=np.float64), normal(1, STEPS, dtype=np.float64)
        state = tx.init(params)
        params, after, updates = jax.jit(functools.partial(train, tx))(params, grads)
        chex.assert_trees_all_equal_shapes_and_dtypes(updates, grads)
        chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
        narrow = jax.tree.map(lambda p: p.astype(np.float32), params)
    chex.assert_trees_all_close(narrow, reference[0], rtol=1e-3, atol=1e-4)


class Network(nnx.Module):
    """Parameters named as those of `normal`, none of them in a binary layer of the library."""

    def __init__(self, params):
        self.conv = nnx.Dict(
            latent_kernel=nnx.Param(params["conv"]["latent_kernel"]),
            bias=nnx.Param(params["conv"]["bias"]),
        )
        self.head = nnx.Dict(kernel=nnx.Param(params["head"]["kernel"]))


def test_nnx_optimizer(tx, reference):
    gradients = normal(1, STEPS)
    network = Network(normal(0))
    optimizer = nnx.Optimizer(network, tx, wrt=nnx.Param)
    update = nnx.jit(lambda optimizer, network, grads: optimizer.update(network, grads))
    for t in range(STEPS):
        grads = nnx.state(Network(at(gradients, t)), nnx.Param)
        update(optimizer, network, grads)
    trained = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    assert_same(trained, reference[0])
    assert_same(ovsw.flip_metrics(optimizer.opt_state), ovsw.flip_metrics(reference[1]))


def test_donated_buffers(tx, reference):
    params, gradients = normal(0), normal(1, STEPS)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for t in range(STEPS):
        given = params, state
        params, state = step(params, state, at(gradients, t))
        # Scalars that a step only overwrites are no arguments of the compiled program.
        assert all(x.is_deleted() for x in jax.tree.leaves(given) if x.ndim)
    assert_same((params, state), reference[:2])


def test_vmap_over_seeds_equals_separate_runs(case, tx):
    params, gradients = normal(0, 3), normal(1, 3, STEPS)
    together = jax.jit(jax.vmap(functools.partial(train, tx)))(params, gradients)
    for seed in range(3):
        alone = [at(tree, seed) for tree in (params, gradients)]
        assert_same(at(together, seed), compiled_train(case)(*alone))


@pytest.mark.long
def test_vmap_over_hyperparameters_equals_separate_runs(case):
    params, gradients = normal(0), normal(1, STEPS)
    defaults = case.hyperparameters
    # The defaults, then each hyperparameter alone a little and much changed.
    rows = [defaults] + [
        {**defaults, name: defaults[name] * factor} for name in defaults for factor in (1.05, 0.6)
    ]

    def run(values):
        return train(case.make(**values), params, gradients)

    stacked = {name: jnp.array([row[name] for row in rows], jnp.float32) for name in defaults}
    together = jax.jit(jax.vmap(run))(stacked)
    alone = jax.jit(run)
    for i in range(len(rows)):
        expected = alone({name: values[i] for name, values in stacked.items()})
        assert_same(at(together, i), expected)


def test_schedules_equal_the_values_at_each_step(case):
    params, gradients = normal(0), normal(1, STEPS)
    shrink = 1 - 0.05 * np.arange(STEPS, dtype=np.float32)
    tables = {name: jnp.float32(v) * shrink for name, v in case.hyperparameters.items()}
    tx = case.make(**{name: lambda count, t=table: t[count] for name, table in tables.items()})
    scheduled = jax.jit(functools.partial(train, tx))(params, gradients)

    @jax.jit
    def update(grads, state, params, values):
        # Constant functions, because optax.sgd has another state for a number.
        now = case.make(**{name: lambda _, v=v: v for name, v in values.items()})
        return now.update(grads, state, params)

    state, seen = tx.init(params), []
    for t in range(STEPS):
        values = {name: table[t] for name, table in tables.items()}
        grads = at(gradients, t)
        updates, state = update(grads, state, params, values)
        params = optax.apply_updates(params, updates)
        seen.append(updates)
    assert_same(scheduled, (params, state, jax.tree.map(lambda *u: np.stack(u), *seen)))


@pytest.mark.long
def test_pmap_equals_one_device_on_the_mean_gradient(tx, reference):
    noise = np.random.default_rng(3).standard_normal(8).astype(np.float32)
    noise -= noise.mean()

    def replica(params, gradients, noise):
        other = jax.tree.map(lambda g: g + noise, gradients)
        return train(tx, params, jax.lax.pmean(other, "device"))

    parallel = jax.pmap(replica, axis_name="device", in_axes=(None, None, 0))
    everywhere = parallel(normal(0), normal(1, STEPS), noise)
    for device in range(8):
        assert_same(at(everywhere, device), reference)


@pytest.mark.parametrize("decay_1d", [False, True])
def test_ovsw_sgd_is_the_chain_of_its_parts(decay_1d):
    options = {"momentum": 0.7, "weight_decay": 0.2, "lam": 0.3, "tau": 0.04}
    options |= {"flip_momentum": 0.8, "threshold": 0.1, "axes": (0, 1), "decay_1d": decay_1d}
    tx = ovsw.ovsw_sgd(0.5, **options)
    decayed = {"conv": {"latent_kernel": True, "bias": decay_1d}, "head": {"kernel": True}}
    parts = optax.chain(
        ovsw.scale_by_ags(0.3, axes=(0, 1)),
        ovsw.silence_aware_decay(0.04, momentum=0.8, threshold=0.1),
        optax.add_decayed_weights(0.2, mask=decayed),
        optax.sgd(0.5, momentum=0.7),
    )
    params, gradients = normal(0), normal(1, STEPS)
    params["conv"]["bias"] += 1  # so that its decay shows
    assert_same(train(tx, params, gradients)[2], train(parts, params, gradients)[2])


def test_ovsw_sgd_takes_another_mask():
    tx = ovsw.ovsw_sgd(0.5, mask={"conv": False, "head": {"kernel": True}})
    assert set(ovsw.flip_metrics(tx.init(normal(0)))) == {"head/kernel", "total"}
