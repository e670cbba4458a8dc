"""Flip state of one kind made into another: every code, any average, and training afterwards."""

import functools
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from longer import long_but

import ovsw_jax as ovsw

strict = pytest.mark.usefixtures("strict_promotion")

CODES = {"packed": np.arange(2**16, dtype=np.uint16), "packed8": np.arange(2**8, dtype=np.uint8)}
# Nats: of one level, and where the middle of the top one lies at phase 0.
UNIT = {"packed": 0.0005, "packed8": 0.08}
TOP_MIDDLE = {"packed": 0.5, "packed8": 0.0}
FLIPS = {"momentum": 0.9, "threshold": 0.05}

phases = st.floats(0, 1, exclude_max=True, width=32)
averages = st.floats(np.float32(2.0**-126).item(), 1, width=32) | st.just(0.0)


def flip_state(history, phase):
    """A state as some steps leave it, around one history."""
    return ovsw.FlipState(
        jnp.asarray(7, jnp.int32),
        {"latent_kernel": jnp.asarray(history)},
        {"latent_kernel": jnp.float32(0.25)},
        jnp.float32(1e-4),
        jnp.float32(phase),
    )


@functools.partial(jax.jit, static_argnums=1)
def convert(flips, state):
    return ovsw.convert_flip_state(flips, state)


def history(flips):
    return np.asarray(flips.history["latent_kernel"])


@strict
@given(phases, st.sampled_from(sorted(CODES)))
def test_every_code_survives_the_way_over_the_average(phase, state):
    before = flip_state(CODES[state], phase)
    there = convert(before, "ema")
    chex.assert_trees_all_equal(convert(there, state), before)
    # What the levels mean, by the docstrings of packed and packed8.
    level = (CODES[state] & (len(CODES[state]) // 2 - 1)).astype(np.float64)
    top = len(CODES[state]) // 2 - 1
    nats = np.minimum((level - top + TOP_MIDDLE[state] - phase) * UNIT[state], 0)
    np.testing.assert_allclose(
        np.log(np.abs(history(there).astype(np.float64)[level > 1])), nats[level > 1], atol=3e-6
    )
    for mask in (ovsw.silent_mask, ovsw.never_flipped_mask):
        chex.assert_trees_all_equal(mask(there), mask(before))


@strict
@given(phases)
def test_one_byte_survives_the_way_over_two(phase):
    before = flip_state(CODES["packed8"], phase)
    again = convert(convert(before, "packed"), "packed8")
    chex.assert_trees_all_equal(again, before)  # two bytes hold S to e^-16, one to e^-10


@strict
@given(st.lists(averages, min_size=1, max_size=40), phases, st.sampled_from(sorted(CODES)))
def test_an_average_is_rounded_to_within_half_a_level(values, phase, state):
    s = np.array(values, np.float32)
    signed = np.where(np.arange(len(s)) % 2, s, -s)
    before = flip_state(np.resize(signed, 40), phase)
    coded = convert(before, state)
    assert history(coded).dtype == CODES[state].dtype
    never = ovsw.never_flipped_mask
    chex.assert_trees_all_equal(never(coded), never(before))
    back = history(convert(coded, "ema"))
    np.testing.assert_array_equal(np.signbit(back), np.signbit(history(before)))
    s, back = (np.abs(x).astype(np.float64) for x in (history(before), back))
    lowest = math.exp(-(len(CODES[state]) // 2 - 3) * UNIT[state])
    held = s > lowest
    error = np.abs(np.log(back[held]) - np.log(s[held]))
    # At the top half a level may lie above S = 1, and the state stands for up to a level less.
    at_the_top = s[held] > math.exp(-UNIT[state])
    assert np.all(error <= np.where(at_the_top, 1.0, 0.5) * UNIT[state] + 3e-6)
    assert np.all(back[~held] <= 1.1 * lowest * math.exp(UNIT[state]))


@pytest.mark.parametrize("other", ["packed8", "ema"])
@pytest.mark.parametrize("back", [False, True])
def test_training_afterwards_is_that_of_the_other_kind(other, back):
    """On the same signs silent masks differ only in the weight-steps that rounding decides."""
    made, used = (other, "packed") if back else ("packed", other)
    steps, switch, weights = 2000, 700, 400
    rng = np.random.default_rng(3)
    flips = rng.random((steps, weights)) < 10.0 ** rng.uniform(-4, -0.5, weights)
    signs = jnp.asarray(np.where(np.cumsum(flips, 0) % 2, 1.0, -1.0), jnp.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def observe(state, opt_state, signs):
        tx = ovsw.track_flip_state(momentum=0.99, threshold=1e-4, state=state)

        def step(opt_state, sign):
            params = {"latent_kernel": sign}
            _, opt_state = tx.update(params, opt_state, params)
            return opt_state, ovsw.silent_mask(opt_state)["latent_kernel"]

        return jax.lax.scan(step, opt_state, signs)

    def init(state):
        tx = ovsw.track_flip_state(momentum=0.99, threshold=1e-4, state=state)
        return tx.init({"latent_kernel": signs[0]})

    opt_state, _ = observe(made, init(made), signs[:switch])
    converted = ovsw.convert_flip_state(opt_state, used)
    opt_state, silent = observe(used, converted, signs[switch:])
    expected_state, expected = observe(used, init(used), signs)
    share = np.mean(np.asarray(silent) != np.asarray(expected)[switch:])
    assert share < (2e-3 if other == "packed8" else 1e-4)
    chex.assert_trees_all_equal(
        ovsw.never_flipped_mask(opt_state), ovsw.never_flipped_mask(expected_state)
    )
    assert opt_state.count == expected_state.count


def sad(state):
    return ovsw.sad(0.02, **FLIPS, state=state)


def by_label(params):
    return jax.tree.map(lambda latent: "binary" if latent else "real", ovsw.latent_mask(params))


WRAPPERS = {
    "alone": sad,
    "chain": lambda state: optax.chain(ovsw.ags(), sad(state), optax.sgd(0.1, momentum=0.9)),
    "MultiSteps": lambda state: optax.MultiSteps(optax.chain(sad(state), optax.sgd(0.1)), 1),
    "apply_if_finite": lambda state: optax.apply_if_finite(
        optax.chain(sad(state), optax.sgd(0.1)), 3
    ),
    "masked": lambda state: optax.chain(optax.masked(sad(state), ovsw.latent_mask), optax.sgd(0.1)),
    "partition": lambda state: optax.partition(
        {"binary": optax.chain(sad(state), optax.sgd(0.1)), "real": optax.adam(0.01)}, by_label
    ),
    "inject_hyperparams": lambda state: optax.inject_hyperparams(ovsw.sad, static_args=("state",))(
        0.02, **FLIPS, state=state
    ),
}


def params_and_gradients(steps, dtype=np.float32):
    rng = np.random.default_rng(0)
    params = {
        "conv": {"latent_kernel": jnp.asarray(0.1 * rng.standard_normal((5, 16)), dtype)},
        "bias": jnp.zeros(4, dtype),
    }
    draw = lambda w: jnp.asarray(rng.standard_normal((steps, *w.shape)), w.dtype)  # noqa: E731
    return params, jax.tree.map(draw, params)


def train(tx, params, opt_state, gradients):
    def step(carry, grads):
        params, opt_state = carry
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    return jax.lax.scan(step, (params, opt_state), gradients)[0]


@pytest.mark.parametrize("name", long_but(WRAPPERS, "partition"))
def test_training_goes_on_under_every_wrapper(name):
    params, gradients = params_and_gradients(12)
    txs = {state: WRAPPERS[name](state) for state in ("packed", "ema")}
    first = jax.tree.map(lambda g: g[:6], gradients)
    rest = jax.tree.map(lambda g: g[6:], gradients)
    start = train(txs["packed"], params, txs["packed"].init(params), first)
    converted = ovsw.convert_flip_state(start[1], "ema")
    abstract = jax.eval_shape(txs["ema"].init, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(converted, abstract)
    for mask in (ovsw.silent_mask, ovsw.never_flipped_mask):
        chex.assert_trees_all_equal(mask(converted), mask(start[1]))

    ended, opt_state = train(txs["ema"], start[0], converted, rest)
    expected, expected_state = train(txs["packed"], *start, rest)
    chex.assert_trees_all_close(ended, expected, rtol=1e-5, atol=1e-6)
    for mask in (ovsw.silent_mask, ovsw.never_flipped_mask):
        chex.assert_trees_all_equal(mask(opt_state), mask(expected_state))


@pytest.mark.long
def test_the_state_of_an_nnx_optimizer():
    model = ovsw.nn.BinaryDense(6, 4, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 6)), jnp.float32)

    def step(optimizer):
        grads = nnx.grad(lambda m: jnp.sum(m(x) ** 2))(model)
        optimizer.update(model, grads)

    def make(state):
        return nnx.Optimizer(model, optax.chain(sad(state), optax.sgd(0.5)), wrt=nnx.Param)

    packed, ema = make("packed"), make("ema")
    for _ in range(3):
        step(packed)
    before = ovsw.flip_metrics(packed.opt_state)
    assert before["total"]["never_flipped_ratio"] < 1
    ema.opt_state = ovsw.convert_flip_state(packed.opt_state, "ema")
    chex.assert_trees_all_close(ovsw.flip_metrics(ema.opt_state), before)
    step(ema)
    after = ovsw.flip_metrics(ema.opt_state)["total"]
    assert after["never_flipped_ratio"] <= before["total"]["never_flipped_ratio"]


@pytest.mark.parametrize(
    ("axis_type", "compiled"), [(AxisType.Auto, True), (AxisType.Explicit, False)]
)
def test_histories_stay_where_they_are(axis_type, compiled):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(axis_type,))
    params, _ = params_and_gradients(1)
    with jax.set_mesh(mesh):
        placed = NamedSharding(mesh, PartitionSpec(None, "x"))
        params["conv"]["latent_kernel"] = jax.device_put(params["conv"]["latent_kernel"], placed)
        opt_state = ovsw.sad().init(params)
        for state in ("ema", "packed8", "packed", "packed8", "ema"):
            opt_state = (convert if compiled else ovsw.convert_flip_state)(opt_state, state)
            kernel = opt_state.history["conv"]["latent_kernel"]
            assert kernel.sharding.is_equivalent_to(placed, 2)


def test_members_of_a_vmap_are_converted_inside_it():
    params, _ = params_and_gradients(1)
    tx = ovsw.sad()
    states = jax.vmap(tx.init)(jax.tree.map(lambda x: jnp.stack([x] * 3), params))
    with pytest.raises(ValueError, match=r"leading axis.*jax.vmap\(ovsw.convert_flip_state\)"):
        ovsw.convert_flip_state(states, "ema")
    together = jax.vmap(lambda s: ovsw.convert_flip_state(s, "ema"))(states)
    one = ovsw.convert_flip_state(tx.init(params), "ema")
    chex.assert_trees_all_equal(jax.tree.map(lambda x: x[1], together), one)


@pytest.mark.long
@pytest.mark.usefixtures("float64")
def test_averages_of_float64_weights():
    params, gradients = params_and_gradients(3, np.float64)
    packed, ema = ovsw.sad(**FLIPS), ovsw.sad(**FLIPS, state="ema")
    _, opt_state = train(packed, params, packed.init(params), gradients)
    converted = ovsw.convert_flip_state(opt_state, "ema", dtype=np.float64)
    chex.assert_trees_all_equal_shapes_and_dtypes(converted, jax.eval_shape(ema.init, params))
    train(ema, params, converted, gradients)
    again = ovsw.convert_flip_state(converted, "packed")
    chex.assert_trees_all_equal(again, opt_state)
    # Far below float32's smallest number, but flipped all the same.
    odd = converted._replace(history={"latent_kernel": jnp.array([-1e-60, 1e-200, -0.0, 0.0])})
    for kind, dtype in (("packed", None), ("packed8", None), ("ema", np.float32)):
        coded = ovsw.convert_flip_state(odd, kind, dtype=dtype)
        never = ovsw.never_flipped_mask(coded)["latent_kernel"]
        assert never.tolist() == [False, False, True, True]
        signs = ovsw.convert_flip_state(coded, "ema").history["latent_kernel"]
        assert np.signbit(signs).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"state": "float"}, ["state='float'", "'packed'", "'packed8'", "'ema'"]),
        ({"state": None}, ["state=None", "use 'packed'"]),
        ({"state": ["ema"]}, ["state=['ema']", "use 'packed'"]),
        ({"state": "ema", "dtype": "bfloat16"}, ["dtype='bfloat16'", "use float32, or float64"]),
        ({"state": "ema", "dtype": "f31"}, ["dtype='f31'", "use float32, or float64"]),
        ({"state": "ema", "dtype": np.float64}, ["dtype=float64", "set jax_enable_x64"]),
    ],
)
def test_arguments_out_of_range(arguments, parts):
    opt_state = ovsw.sad().init({"latent_kernel": jnp.ones(3)})
    with pytest.raises(ValueError, match=".*".join(map(re.escape, parts))):
        ovsw.convert_flip_state(opt_state, **arguments)


@pytest.mark.parametrize("opt_state", [(), None, optax.adam(0.1).init({"w": jnp.ones(2)}), 3])
def test_nothing_to_convert(opt_state):
    with pytest.raises(ValueError, match=r"holds no flip state .* ovsw.track_flip_state\(\)"):
        ovsw.convert_flip_state(opt_state, "ema")
