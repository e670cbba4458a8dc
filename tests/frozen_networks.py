"""Networks whose float operations are all exact, so that every engine must give the same bits."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from hypothesis import strategies as st

import ovsw_jax as ovsw

EPSILON = 2.0**-10  # of batch norms, so that variance + epsilon is a power of 4

_VALUES = {
    "kernel": [-1, -0.5, -0.25, 0.25, 0.5, 1],
    "latent_kernel": [-1.5, -0.0, 0.0, 0.3, 0.7, -0.2],
    "filter_scale": [-0.5, 0.25, 0.5, 1],
    "bias": [-1, -0.5, 0, 0.25, 2],
    "scale": [-1, -0.5, 0, 0.5, 1, 2],
    "mean": [-3, -0.5, 0, 0.5, 4],
    "var": [0.25 - EPSILON, 1 - EPSILON, 4 - EPSILON],
    "negative_slope": [-1, -0.5, 0, 0.25],
    "threshold": [-1, -0.5, 0, 0.5],
    "shift_in": [-0.5, 0, 0.25],
    "shift_out": [-0.5, 0, 0.25],
}


def exact(model, seed=0):
    """The network with powers of two, and small multiples of them, as its constants; evaluating."""
    rng = np.random.default_rng(seed)
    model.set_attributes(nnx.BatchNorm, epsilon=EPSILON, raise_if_not_found=False)
    for path, variable in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat))):
        values = rng.choice(np.float32(_VALUES[path[-1]]), variable.shape)
        variable.set_value(jnp.asarray(values, jnp.float32))
    nnx.update(model, nnx.state(model))
    model.eval()
    return model


def images(shape, seed=0):
    """A batch of multiples of 1/4, zeros of both signs among them."""
    values = np.random.default_rng(seed).integers(-8, 9, shape) / 4
    return np.where(values == 0, np.float32(-0.0), np.float32(values))


def same(a, b):
    """Whether two results have the same numbers; 0 and -0 are one."""
    return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True)


ACTIVATIONS = ("none", "hardtanh", "relu", "prelu", "rprelu")


@st.composite
def designs(draw):
    """What a `Drawn` network consists of."""
    channels = draw(st.sampled_from([1, 3, 33]))
    layers, width = [], channels
    for _ in range(draw(st.integers(1, 3))):
        groups = draw(st.sampled_from([g for g in (1, 1, 3, 11, width) if width % g == 0]))
        skip = draw(st.booleans())
        features = width if skip else draw(st.sampled_from([groups, 2 * groups, 33 * groups]))
        features = features if features <= 100 else groups
        paddings = ["SAME"] if skip else ["SAME", 1, ((0, 2), (2, 1))]
        padding = draw(st.sampled_from(paddings))
        # A dilated kernel would be larger than a small map with another padding.
        dilations = [1, 1, 2] if padding == "SAME" else [1]
        layers.append(
            {
                "in_features": width,
                "out_features": features,
                "kernel_size": draw(st.sampled_from([(1, 1), (3, 3), (2, 3)])),
                "strides": 1 if skip else draw(st.sampled_from([1, 2])),
                "padding": padding,
                "kernel_dilation": draw(st.sampled_from(dilations)),
                "feature_group_count": groups,
                "use_bias": draw(st.booleans()),
                "scale": draw(st.sampled_from(["learned", None])),
                "operands": draw(st.sampled_from(["both", "both", "both", "weights", "inputs"])),
                "threshold": draw(st.booleans()),
                "norm": draw(st.sampled_from([True, True, False])),
                "activation": draw(st.sampled_from(ACTIVATIONS)),
                "pool": draw(st.sampled_from(["none", "none", "max", "avg"])),
                "skip": skip,
            }
        )
        width = features
    head = draw(st.sampled_from(["mean", "flat", "binary"]))
    return {"channels": channels, "layers": layers, "head": head, "seed": draw(st.integers(0, 9))}


class Drawn(nnx.Module):
    """A network of a design: binary convolutions of every kind, with what may follow them."""

    size = (7, 6)

    def __init__(self, design):
        rngs = nnx.Rngs(0)
        self.design = nnx.static(design)
        self.convs, self.norms, self.activations = nnx.List(), nnx.List(), nnx.List()
        for layer in design["layers"]:
            names = ("in_features", "out_features", "kernel_size", "strides", "padding")
            more = ("kernel_dilation", "feature_group_count", "use_bias", "scale")
            arguments = {name: layer[name] for name in (*names, *more)}
            if layer["operands"] == "weights":
                arguments["input_sign"] = None
            elif layer["threshold"]:
                sign = ovsw.nn.LearnedThresholdSign(layer["in_features"], rngs=rngs)
                arguments |= {"input_sign": sign, "normalize_input": False}
            if layer["operands"] == "inputs":
                arguments["kernel_sign"] = None
            self.convs.append(ovsw.nn.BinaryConv(**arguments, rngs=rngs))
            features = layer["out_features"]
            self.norms.append(ovsw.nn.BatchNorm(features, rngs=rngs))
            kinds = {"prelu": ovsw.nn.PReLU, "rprelu": ovsw.nn.RPReLU}
            kind = kinds.get(layer["activation"], ovsw.nn.PReLU)
            self.activations.append(kind(features, rngs=rngs))
        self.head = None
        self.eval()
        x = jax.eval_shape(
            lambda x: self.features(x), jnp.zeros((1, *self.size, design["channels"]))
        )
        count = int(np.prod(x.shape[1:])) if design["head"] != "mean" else x.shape[-1]
        make = ovsw.nn.BinaryDense if design["head"] == "binary" else nnx.Linear
        more = {"scale": "learned"} if design["head"] == "binary" else {}
        self.head = nnx.data(make(count, 5, **more, rngs=rngs))

    def features(self, x):
        for number, layer in enumerate(self.design["layers"]):
            before, x = x, self.convs[number](x)
            if layer["pool"] == "max" and min(x.shape[1:3]) > 1:
                x = nnx.max_pool(x, (2, 2), strides=(1, 1), padding="SAME")
            x = self.norms[number](x) if layer["norm"] else x
            if layer["pool"] == "avg" and min(x.shape[1:3]) > 1:
                x = nnx.avg_pool(x, (2, 2), strides=(1, 1), padding="SAME")
            x = x + before if layer["skip"] else x
            activation = layer["activation"]
            if activation in ("prelu", "rprelu"):
                x = self.activations[number](x)
            elif activation != "none":
                x = ovsw.nn.hardtanh(x) if activation == "hardtanh" else nnx.relu(x)
        return x

    def __call__(self, x):
        x = self.features(x)
        if self.design["head"] == "mean":
            # Of a power of two of elements, so that it is exact.
            return self.head(x[:, :2, :2].mean((1, 2)) if min(x.shape[1:3]) > 1 else x[:, 0, 0])
        return self.head(x.reshape(len(x), -1))
