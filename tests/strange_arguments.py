"""Arguments that fit public functions, and ones that don't, as hypothesis draws them.

Other types, numbers out of range, NaN, arrays of any dtype, empty ones, other structures.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx
from hypothesis import strategies as st

import ovsw_jax as ovsw
from ovsw_jax.flip_state import KINDS

# What is no number, array or tree that anything here takes, or a number that fits badly.
NUMBERS = [0, 1, 2, -1, 3, 7, 10**30, 10**400, True, 0.5, -0.5, 0.0, -0.0, 1.0, 1e-3, 5e-4, 1e308]
NUMBERS += [5e-324, np.inf, -np.inf, np.nan, 0.9, 0.999, 1e-4, 1 - 1e-12]
NUMBERS += [np.float32(0.5), np.float16(0.1), np.int32(2), np.uint8(3), np.bool_(True)]
NUMBERS += [np.float64(0.25), jnp.float32(0.01), jnp.bfloat16(0.5), jnp.int32(1)]
OTHERS = [None, "text", "", b"x", 1j, [], (), {}, [1, 2], (3, 3), (2,), (0,), [None], {"a": 1}]
OTHERS += [object(), int, np.zeros(0), np.array("x"), np.array([None]), np.array([1.0, 2.0])]
OTHERS += [np.zeros((2, 2)), jnp.zeros((0, 3)), np.array([0.1j]), Ellipsis, slice(None), range(3)]
OTHERS += [{1, 2}, np.datetime64("2024-01-01"), float, np.float32, "float32"]

numbers = st.sampled_from(NUMBERS) | st.floats() | st.integers() | st.floats(0, 1)
junk = numbers | st.sampled_from(OTHERS)
schedules = st.sampled_from([lambda _: 0.01, optax.constant_schedule(0.3), lambda t: 0.5 / (t + 1)])
not_callable = junk.filter(lambda x: not callable(x))
coefficients = st.floats(0, 1) | st.floats(0, 1) | schedules | not_callable

SHAPES = [(), (1,), (4,), (0,), (3, 2), (0, 2), (3, 0), (1, 1), (2, 3, 2)]
SHAPES += [(2, 2, 3, 4), (3, 3, 0, 2)]
FLOATS = [np.float32, jnp.bfloat16, np.float16]
DTYPES = [*FLOATS, np.float64, np.int32, np.uint8, np.int8, np.bool_, np.complex64]
FILLS = ["normal", "zero", "huge", "tiny", "nan", "inf", "mixed"]


@st.composite
def arrays(draw, shapes=SHAPES, dtypes=DTYPES, fills=FILLS):
    """JAX arrays, NumPy ones at times, of few shapes, so that programs are compiled once."""
    shape, dtype, fill = (draw(st.sampled_from(x)) for x in (shapes, dtypes, fills))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    x = rng.standard_normal(shape)
    huge = float(jnp.finfo(dtype if dtype in FLOATS else np.float32).max)
    special = {"zero": 0.0, "huge": huge, "tiny": 1e-30, "nan": np.nan, "inf": np.inf}
    if jnp.issubdtype(dtype, jnp.inexact):
        if fill == "mixed":
            odd = rng.choice([0.0, -0.0, np.nan, np.inf, -1e9], shape)
            x = np.where(rng.random(shape) < 0.5, odd, x)
        elif fill in special:
            x = np.sign(x) * special[fill]
    with np.errstate(all="ignore"):
        x = np.asarray(x, np.float64).astype(dtype)
    return x if draw(st.integers(0, 4)) == 0 else jnp.asarray(x)


# ---- transforms and their states

params_trees = st.one_of(
    st.fixed_dictionaries({"latent_kernel": arrays(dtypes=FLOATS)}, optional={"b": arrays()}),
    st.builds(
        lambda kernel, bias: {"a": {"latent_kernel": kernel, "bias": bias}}, arrays(), arrays()
    ),
    st.fixed_dictionaries({"kernel": arrays()}),
    st.lists(arrays(), max_size=2),
    arrays(),
    st.sampled_from([None, {}, "text", 3, [None], {"latent_kernel": None}, {"latent_kernel": "x"}]),
)
masks = st.sampled_from([None, True, False, {"latent_kernel": True}, {"b": True}, lambda p: True])
kinds = st.sampled_from(list(KINDS))

OPTIONS = {  # all others are coefficients
    "momentum": st.sampled_from([0.9, 0.99, 0.999]) | coefficients,
    "flip_momentum": st.sampled_from([0.9, 0.99, 0.999]) | coefficients,
    "threshold": st.sampled_from([1e-4, 1e-3]) | coefficients,
    "state": kinds | junk,
    "axes": st.sampled_from([None, (0,), (0, 1), [-1]]) | junk,
    "mask": masks | not_callable,
    "variant": st.sampled_from(["updated", "literal"]) | junk,
    "decay_1d": st.booleans(),
}


@st.composite
def opt_states(draw):
    """States of the transforms, some steps on and nested, and things that are none."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.one_of(params_trees, junk))
    shape = draw(st.sampled_from([(4,), (3, 2), (0, 2), (2, 2, 3, 4), ()]))
    params = {"a": {"latent_kernel": jnp.ones(shape)}, "b": jnp.zeros(2)}
    kind = draw(kinds)
    sad = ovsw.sad(state=kind)
    transforms = [
        *(sad, ovsw.ags(), ovsw.lars_sgd(0.1), optax.masked(sad, {"a": True, "b": False})),
        optax.chain(ovsw.ags(), sad, optax.sgd(0.1)),
        optax.chain(ovsw.track_flip_state(state=kind), sad),
    ]
    tx = draw(st.sampled_from(transforms))
    state = tx.init(params)
    for sign in draw(st.lists(st.sampled_from([-1.0, 1.0]), max_size=2)):
        moved = {**params, "a": {"latent_kernel": sign * params["a"]["latent_kernel"]}}
        _, state = tx.update(params, state, moved)
    if draw(st.integers(0, 5)) == 0:
        return jax.tree.map(lambda x: jnp.stack([x, x]), state)
    return jax.device_get(state) if draw(st.booleans()) else state


# ---- layers and networks


def not_huge(x):
    """No number of features that would fill the memory."""
    return not isinstance(x, int) or x < 100


dtypes = st.sampled_from([None, np.float32, jnp.bfloat16, "float16", np.int8, "x", 3, complex])
signs = st.sampled_from([None, ovsw.nn.sign, ovsw.nn.approx_sign])
ints = st.sampled_from([1, 2, 3]) | st.integers(-3, 9) | junk.filter(not_huge)
MODULE_OPTIONS = {
    "in_features": ints,
    "out_features": ints,
    "features": ints,
    "num_classes": ints,
    "in_channels": ints,
    "kernel_size": st.sampled_from([1, 2, 3, (3, 3), (1, 2), (2, 2, 2)]) | junk,
    "strides": ints,
    "stem_strides": ints,
    "padding": st.sampled_from(["SAME", "VALID", "CIRCULAR", "REFLECT", "CAUSAL", 0, 1]) | junk,
    "kernel_dilation": ints,
    "feature_group_count": ints,
    "use_bias": st.booleans(),
    "scale": st.sampled_from(["standardized", "learned", None, ovsw.nn.mean_magnitude]) | junk,
    "input_sign": signs | junk,
    "kernel_sign": signs | junk,
    "normalize_input": st.booleans(),
    "dtype": dtypes,
    "param_dtype": dtypes.filter(lambda d: d is not None),
    "sign": signs | not_callable,
    "negative_slope_init": st.floats(-1, 1) | junk,
    "widths": st.sampled_from([(2,), (2, 4), [3, 3], (4, 2)]) | junk,
    "average_pool": st.booleans(),
}
inputs = arrays(
    shapes=[*SHAPES, (2, 5, 3), (2, 4, 4, 2), (2, 4, 4, 3), (0, 4, 4, 3), (1, 2, 2, 2, 1)]
)


def ordinary():
    rngs = nnx.Rngs(0)
    return nnx.Sequential(*(nnx.Linear(n, n + 1, rngs=rngs) for n in (2, 3, 4)))


MODELS = [
    ordinary,
    lambda: nnx.Linear(2, 2, rngs=nnx.Rngs(0)),
    lambda: linen.Dense(3),
    lambda: nnx.Linear,
    lambda: nnx.BatchNorm(2, rngs=nnx.Rngs(0)),
    lambda: nnx.eval_shape(ordinary),
]
made = functools.cache(lambda make: make())  # when one is drawn, not in every process
models = st.sampled_from(MODELS + 2 * [ordinary]).map(made) | junk
