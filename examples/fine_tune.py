"""python examples/fine_tune.py [FOLDER]: a trained network learns other classes, and is exported.

The digits network tells odd from even digits: a new head on trained latent weights, five epochs.
Then FOLDER gets the one-bit file and, with the extra `deploy`, an ONNX model.
"""

import pathlib
import sys

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import ovsw_jax as ovsw

EPOCHS, BATCH = 5, 64

# The network's own test images stay test images: the same split as in its training.
values, digits = load_digits(return_X_y=True)
pixels = np.round(values * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
train_x, test_x, train_y, test_y = train_test_split(
    pixels, (digits % 2).astype(np.int32), test_size=360, stratify=digits, random_state=0
)

net = ovsw.models.pretrained("digits")
model = net.model()
model.linear = nnx.Linear(model.linear.in_features, 2, rngs=nnx.Rngs(0))
steps = EPOCHS * (len(train_x) // BATCH)
optimizer = nnx.Optimizer(
    model, ovsw.ovsw_sgd(optax.cosine_decay_schedule(0.02, steps)), wrt=nnx.Param
)


@nnx.jit
def step(model, optimizer, images, labels):
    """One step of the optimizer on a batch."""

    def loss(model):
        logits = model(images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    optimizer.update(model, nnx.grad(loss)(model))


model.train()
rng = np.random.default_rng(0)
for _ in range(EPOCHS):
    for picked in np.split(rng.permutation(len(train_x)), range(BATCH, len(train_x), BATCH))[:-1]:
        step(model, optimizer, net.preprocessing(train_x[picked]), jnp.asarray(train_y[picked]))

frozen = ovsw.deploy.freeze(
    model, (1, 8, 8, 1), classes=["even", "odd"], preprocessing=net.preprocessing
)
answers = jnp.argmax(frozen(net.preprocessing(test_x)), -1)
print(f"odd or even: {100 * np.mean(answers == test_y):.1f} % of {len(test_y)} test images")

folder = pathlib.Path((*sys.argv, ".")[1])
frozen.save(folder / "odd.safetensors")
print(f"{folder / 'odd.safetensors'}: {(folder / 'odd.safetensors').stat().st_size:,} bytes")
try:
    frozen.to_onnx(folder / "odd.onnx")
    print(f"{folder / 'odd.onnx'}: {(folder / 'odd.onnx').stat().st_size:,} bytes")
except ImportError as error:
    print(f"no ONNX model: {error}")
