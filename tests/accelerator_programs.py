"""Small programs for compilers of accelerators: every rule, kind of flip state, layer and block.

    python tests/accelerator_programs.py v5e:2x2 [layers ...]

prints what the target's compiler says of each, or of those named, a line of JSON. As few programs
as hold them all: each one takes the TPU's compiler up to half a minute.
"""

import functools
import json
import sys

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import SingleDeviceSharding

import ovsw_jax as ovsw
from experiments.accelerators import compile_for, open_target, read

KINDS = ("packed", "packed8", "ema")
# By the name of the public transform, with its kind of flip state where it has one of several.
RULES = {
    "scale_by_ags": lambda: ovsw.scale_by_ags(0.04),
    **{
        f"silence_aware_decay {kind}": functools.partial(ovsw.silence_aware_decay, state=kind)
        for kind in KINDS
    },
    "track_flip_state packed": ovsw.track_flip_state,
    "ovsw_sgd packed": lambda: ovsw.ovsw_sgd(0.1),
    "lars_sgd": lambda: ovsw.lars_sgd(0.1),
    "bop": ovsw.bop,
    "clip_latent": ovsw.clip_latent,
}
FEATURES = 16
SAME_LAYERS = 4  # of one optimizer, which a GPU computes together
SMALL = (256, 8, 8, FEATURES)
# An activation of 67 MB in bfloat16. A TPU keeps what is small in its fast memory, where it is no
# temporary; this is what shows how much the backward pass keeps.
LARGE = (8192, 16, 16, FEATURES)


class Layers(nnx.Module):
    """One of each: signs, factors, activations, batch norm, and the two binary layers."""

    def __init__(self, *, dtype, rngs):
        conv = functools.partial(
            ovsw.nn.BinaryConv, FEATURES, FEATURES, (3, 3), dtype=dtype, rngs=rngs
        )
        self.plain = conv(scale="learned", use_bias=True)
        self.norm = ovsw.nn.BatchNorm(FEATURES, dtype=dtype, rngs=rngs)
        self.prelu = ovsw.nn.PReLU(FEATURES, rngs=rngs)
        self.threshold = conv(
            input_sign=ovsw.nn.LearnedThresholdSign(FEATURES, rngs=rngs),
            normalize_input=False,
            scale=ovsw.nn.mean_magnitude,
        )
        self.rprelu = ovsw.nn.RPReLU(FEATURES, rngs=rngs)
        self.sharpened = conv(
            input_sign=ovsw.nn.clipped_ste_sign, kernel_sign=ovsw.nn.SharpeningSign(2.0)
        )
        self.scaled = conv(kernel_sign=ovsw.nn.magnitude_aware_sign, scale=None)
        self.dense = ovsw.nn.BinaryDense(
            FEATURES, FEATURES, kernel_sign=ovsw.nn.standardized_sign, dtype=dtype, rngs=rngs
        )

    def __call__(self, x):
        x = self.prelu(self.norm(self.plain(x)))
        x = self.rprelu(self.threshold(x))
        x = self.scaled(ovsw.nn.hardtanh(self.sharpened(x)))
        return self.dense(x.mean((1, 2)))


class Blocks(nnx.Module):
    """One of each, with a shortcut of each kind."""

    def __init__(self, *, dtype, rngs):
        models, wide = ovsw.models, 2 * FEATURES
        options = {"dtype": dtype, "rngs": rngs}
        self.blocks = nnx.List(
            [
                models.BasicBlock(FEATURES, FEATURES, **options),
                models.BiRealBlock(FEATURES, wide, 2, shortcut=models.PadShortcut, **options),
                models.ReActBlock(wide, wide, 2, **options),
            ]
        )

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return x.mean((1, 2))


def training(make, images):
    """A step that trains a network by SGD, and its arguments."""

    def network():
        return make(dtype=jnp.bfloat16, rngs=nnx.Rngs(0))

    graph, *states = nnx.split(nnx.eval_shape(network), nnx.Param, ...)
    params, rest = map(nnx.to_pure_dict, states)

    def step(params, rest, images):
        def loss(params):
            model = nnx.merge(graph, params, rest)
            y = model(images).astype(jnp.float32)
            return jnp.mean(jnp.square(y)), nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))

        gradients, moved = jax.grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients), moved

    return step, (params, rest, jax.ShapeDtypeStruct(images, jnp.bfloat16))


def rules():
    """Every rule beside the others, each with weights of its own."""
    leaf = jax.ShapeDtypeStruct((3, 3, FEATURES, FEATURES), jnp.float32)
    params = {name: {"latent_kernel": leaf} for name in RULES}
    params["ovsw_sgd packed"] = {i: {"latent_kernel": leaf} for i in range(SAME_LAYERS)}
    transforms = {name: make() for name, make in RULES.items()}
    state = {name: jax.eval_shape(tx.init, params[name]) for name, tx in transforms.items()}

    def step(params, state, gradients):
        moved, states = {}, {}
        for name, tx in transforms.items():
            updates, states[name] = tx.update(gradients[name], state[name], params[name])
            moved[name] = optax.apply_updates(params[name], updates)
        return moved, states

    return step, (params, state, params)


PROGRAMS = {
    "rules": rules,
    "layers": functools.partial(training, Layers, SMALL),
    "blocks": functools.partial(training, Blocks, SMALL),
    "large": functools.partial(
        training, functools.partial(ovsw.models.BiRealBlock, FEATURES, FEATURES), LARGE
    ),
}


def main(target_name, *names):
    target = open_target(target_name)
    sharding = SingleDeviceSharding(target.devices[0])
    for name in names or PROGRAMS:
        step, arguments = PROGRAMS[name]()
        placed = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), arguments
        )
        reading = read(compile_for(target, jax.jit(step, donate_argnums=0), *placed))
        figures = {n: getattr(reading, n) for n in ("cycles", "temporaries", "moved", "kernels")}
        print(json.dumps({"program": name, "figures": figures}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
