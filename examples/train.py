# %% [markdown]
# # Train your own network
#
# From images in an array to a trained binary network that is saved, loaded and asked, with nothing left to guess. The
# Python on this page runs from top to bottom in under a minute on two CPU cores; it needs `pip install -e
# '.[experiments]'`. The same as a script is [examples/train.py](../examples/train.py), as a notebook
# [examples/train.ipynb](../examples/train.ipynb).
#
# If your data are folders of images and a network of this library does, [the experiments](../docs/guides/experiments.md) train without
# a line of code.
#
# ## Data
#
# Scikit-learn's digits: 1,797 images of 8 x 8 pixels. Bring pixels to a range around zero, such as -1 to 1: the first
# layer is real-valued and takes what it gets.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

import ovsw_jax as ovsw

digits = load_digits()
images = (digits.images[..., None] / 8 - 1).astype(np.float32)  # (batch, height, width, channels)
labels = digits.target.astype(np.int32)
train_images, train_labels = images[:1437], labels[:1437]
test_images, test_labels = images[1437:], labels[1437:]


# %% [markdown]
# ## The network

# %%
class Block(nnx.Module):
    """A binary convolution, batch norm, a skip around both, an activation."""

    def __init__(self, features: int, rngs: nnx.Rngs):
        self.conv = ovsw.nn.BinaryConv(features, features, (3, 3), rngs=rngs)
        self.norm = ovsw.nn.BatchNorm(features, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return ovsw.nn.hardtanh(self.norm(self.conv(x)) + x)


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.stem = nnx.Conv(1, 32, (3, 3), use_bias=False, rngs=rngs)
        self.norm = ovsw.nn.BatchNorm(32, rngs=rngs)
        self.blocks = nnx.List([Block(32, rngs) for _ in range(4)])
        self.head = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = ovsw.nn.hardtanh(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(axis=(1, 2)))


model = Net(nnx.Rngs(0))

# %% [markdown]
# | choice | take | why |
# | --- | --- | --- |
# | first and last layer | real-valued | they are small, and cost the most accuracy as signs |
# | batch norm | behind each binary layer | sums of signs are large integers; the next sign needs them around zero |
# | activation | hardtanh, PReLU, RPReLU: with both signs | behind a ReLU every sign is +1, and nothing is learned |
# | skip | around each binary layer, where shapes allow | signs lose the magnitude, which the skip carries on |
# | bias | none | batch norm has one |
# | weight decay | of all parameters, 5e-4 with SGD | decay brings latent weights near zero, where they flip; with Adam little or none |
# | initial weights | the layers' own | smaller ones flip more; batch norm cancels their scale in the output |
#
# ## Inspect it before you train

# %%
inspection = ovsw.inspect(model, train_images[:64])
print(inspection)
assert not inspection.faults

# %% [markdown]
# A row a binary layer: how many input signs are +1, how many channels never change their sign, how much of the input and
# of the latent weights passes a gradient. The last column says what is wrong and what to do
# ([inspect](../docs/guides/inspect.md)).
#
# ## The optimizer

# %%
epochs, batch = 16, 64
steps_per_epoch = len(train_images) // batch
steps = epochs * steps_per_epoch
peak, momentum = 0.1, 0.9


def schedule(step):
    """A warm-up over one epoch, then a cosine to zero."""
    warm = jnp.minimum(1, (step + 1) / steps_per_epoch)
    return peak * warm * 0.5 * (1 + jnp.cos(jnp.pi * step / steps))


def chain(lam, tau, horizon):
    return optax.chain(
        ovsw.ags(lam),
        ovsw.sad(tau, threshold=ovsw.threshold_for_horizon(0.999, horizon)),
        optax.add_decayed_weights(5e-4),
        optax.sgd(schedule, momentum=momentum),
    )


# %% [markdown]
# | setting | start with | how to tell that it is wrong |
# | --- | --- | --- |
# | learning rate | 0.1 for SGD with momentum 0.9 | the loss is not finite, or falls no further: divide by 3 |
# | schedule | warm-up of an epoch, cosine to 0 | signs still flip at the end: the schedule must reach 0 |
# | `lam` | 5 to 10 times the $\lVert G \rVert / \lVert W \rVert$ that you measure, below | more than a third of the weights never flip: larger. Half of all signs change in the first epochs: smaller |
# | `tau` | $5 (1 - \mu) / \sum \eta$, with momentum $\mu$ and learning rates $\eta$ of all steps | silent weights stay silent: larger. Weights far from zero shrink and flip back and forth: smaller |
# | horizon | a tenth of all steps | none of 10 to 2,302 steps was better than another ([measured](../docs/guides/../results/index.md)) |
#
# `lam` and `tau` are explained where they are [chosen](#choose-lam-tau-and-the-horizon).
#
# ## Train and evaluate

# %%
def make_step(tx):
    @nnx.jit
    def step(model, optimizer, images, labels):
        def loss_of(model):
            logits = model(images)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean()

        loss, gradients = nnx.value_and_grad(loss_of)(model)
        optimizer.update(model, gradients)
        return loss

    return step


@nnx.jit
def right(model, images, labels):
    return jnp.mean(jnp.argmax(model(images), axis=-1) == labels)


def train(model, tx, epochs):
    """Trains the model; returns the optimizer, and per epoch the accuracy and the flips."""
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    step, order, history = make_step(tx), np.random.default_rng(0), []
    for _ in range(epochs):
        model.train()
        shuffled = order.permutation(len(train_images))
        for first in range(0, steps_per_epoch * batch, batch):
            chosen = shuffled[first : first + batch]
            step(model, optimizer, train_images[chosen], train_labels[chosen])
        model.eval()  # running statistics, no division by the deviation of a sample
        accuracy = float(right(model, test_images, test_labels))
        history.append((accuracy, ovsw.flip_metrics(optimizer.opt_state)))
    return optimizer, history


# %% [markdown]
# ## Choose lam, tau and the horizon
#
# `ags(lam=0)` changes nothing and measures $\lVert G \rVert / \lVert W \rVert$ of the filters. An epoch is enough:

# %%
_, history = train(Net(nnx.Rngs(0)), chain(0.0, 0.0, steps // 10), epochs=1)
measured = float(history[-1][1]["total"]["grad_weight_ratio"])
lam = 7 * measured
tau = 5 * (1 - momentum) / float(sum(schedule(jnp.arange(steps))))
print(f"measured {measured:.4f}, so lam {lam:.3f}, tau {tau:.4f}")

# %% [markdown]
# Why seven times: AGS lifts every filter's gradient to `lam` times its weights, so a `lam` below what is measured lifts few
# of them, and one far above makes all signs flip at once. Measured with a small network on 8,000 images of CIFAR-10
# ([results](../results/cpu/lars-ags/summary.md), n = 3), where the first epoch has a ratio of 0.0116:
#
# | lam | times the measured ratio | top-1 % | never flipped % | signs that change in epoch 1, % |
# | ---: | ---: | ---: | ---: | ---: |
# | 0 (SGD) | 0 | 40.1 | 91.0 | 3.5 |
# | 0.01 | 0.9 | 41.1 | 84.6 | 4.1 |
# | 0.02 | 1.7 | 42.5 | 72.7 | 6.9 |
# | 0.04 | 3.5 | 45.4 | 51.7 | 12.9 |
# | 0.08 | 6.9 | 46.1 | 22.1 | 23.3 |
# | 0.16 | 13.9 | 45.6 | 3.5 | 38.2 |
# | 0.32 | 27.7 | 44.4 | 0.2 | 48.0 |
#
# Why `tau` times the sum of learning rates: SAD decays a silent weight by `tau`, so over the whole training, momentum
# included, it shrinks by a factor of $\exp(-\tau \sum \eta / (1 - \mu))$. Too little and it never reaches zero; too much and all
# do at once. The same network, SAD alone ([results](../results/cpu/lam-tau/summary.md), n = 3, 1,250 steps):
#
# | tau | $\tau \sum \eta / (1 - \mu)$ | top-1 % | never flipped % |
# | ---: | ---: | ---: | ---: |
# | 0 (SGD) | 0 | 40.1 | 91.0 |
# | 0.0009 | 0.56 | 40.7 | 89.3 |
# | 0.009 | 5.6 | 45.2 | 19.6 |
# | 0.09 | 56 | 42.6 | 0.0 |
#
# The authors' 9e-4 over the paper's 23,400 steps is 11 on this scale. On six layers and 1,250 steps either rule alone
# gains what both do; measure on your own data which of them you need.
#
# ## Train

# %%
optimizer, history = train(model, chain(lam, tau, steps // 10), epochs)
for epoch, (accuracy, flips) in enumerate(history, 1):
    total = flips["total"]
    print(
        f"epoch {epoch}: {accuracy:.1%} right, never flipped {total['never_flipped_ratio']:.0%}, "
        f"silent {total['silent_ratio']:.0%}"
    )
print(ovsw.table(history[-1][1]))
assert history[-1][0] > 0.9

# %% [markdown]
# | metric | what it is | healthy |
# | --- | --- | --- |
# | `flip_ratio` | share of signs that changed in the last step | 0.1 to 2 % while the learning rate is high, near 0 at the end |
# | `silent_ratio` | share of weights without a flip within the horizon | falls from 100 % at first, and rises again as the learning rate ends. In a training shorter than the horizon it is `never_flipped_ratio` |
# | `never_flipped_ratio` | share of weights whose sign is still the initial one | falls while the learning rate is high; 3 to 35 % at the end, less the more steps there are. SGD leaves 90 % here |
# | `rescaled_filter_ratio` | share of filters that AGS lifts | near 1. At 0 `lam` does nothing |
# | `grad_weight_ratio` | mean of $\lVert G \rVert / \lVert W \rVert$ of filters, before AGS | what `lam` is chosen by |
#
# ## See which weights sleep

# %%
from ovsw_jax import plots

figure = plots.latent_histogram(nnx.state(model, nnx.Param), optimizer.opt_state)

# %% [markdown]
# A histogram of each layer's latent weights, with the silent and the never-flipped ones in colours of their own.
# `plots.flip_curves` draws the metrics of a list of epochs
# ([plots](../docs/guides/inspect.md#plots)). `figure.savefig("weights.png")` keeps it.
#
# ## Save, load, predict

# %%
import tempfile
from pathlib import Path

import orbax.checkpoint as ocp

folder = Path(tempfile.mkdtemp()) / "net"
with ocp.StandardCheckpointer() as saver:
    saver.save(folder, nnx.to_pure_dict(nnx.state(model)))

graph, like = nnx.split(nnx.eval_shape(lambda: Net(nnx.Rngs(0))))
with ocp.StandardCheckpointer() as saver:
    nnx.replace_by_pure_dict(like, saver.restore(folder, nnx.to_pure_dict(like)))
loaded = nnx.merge(graph, like)
loaded.eval()
predicted = jnp.argmax(loaded(test_images[:5]), axis=-1)
assert (predicted == jnp.argmax(model(test_images[:5]), axis=-1)).all()

# %% [markdown]
# Weights are saved as real latent ones, so that training can resume. Save `optimizer.opt_state` beside them to resume a
# training that was stopped: the flip state is in it. [examples/scale.py](../examples/scale.py) does so, to the bit.
#
# ## The same in linen
#
# Layers take `train` in the call, as linen's batch norm takes `use_running_average`; the rules are the same chain.

# %%
from flax import linen


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x, train: bool):
        x = linen.Conv(32, (3, 3), use_bias=False)(x)
        x = ovsw.nn.hardtanh(linen.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        for _ in range(4):
            y = ovsw.linen.BinaryConv(32, (3, 3))(x, train=train)
            y = linen.BatchNorm(use_running_average=not train, momentum=0.9)(y)
            x = ovsw.nn.hardtanh(y + x)
        return linen.Dense(10)(x.mean(axis=(1, 2)))


net = LinenNet()
variables = net.init(jax.random.key(0), train_images[:1], train=False)
tx = chain(lam, tau, steps // 10)
state = tx.init(variables["params"])


@jax.jit
def linen_step(variables, state, images, labels):
    def loss_of(params):
        logits, updated = net.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), updated

    (_, updated), gradients = jax.value_and_grad(loss_of, has_aux=True)(variables["params"])
    updates, state = tx.update(gradients, state, variables["params"])
    return {**updated, "params": optax.apply_updates(variables["params"], updates)}, state


for first in range(0, steps_per_epoch * batch, batch):
    chosen = slice(first, first + batch)
    variables, state = linen_step(variables, state, train_images[chosen], train_labels[chosen])
linen_logits = net.apply(variables, test_images, train=False)
print(f"linen, one epoch: {np.mean(np.argmax(linen_logits, -1) == test_labels):.1%} right")

# %% [markdown]
# ## If it does not learn
#
# | symptom | cause | remedy |
# | --- | --- | --- |
# | accuracy stays at chance | an activation without negative values before a binary layer | `ovsw.inspect`; hardtanh, or a `LearnedThresholdSign` |
# | training is good, evaluation at chance | running statistics: too few steps, or the mode | a momentum of 0.9 in batch norm; `model.eval()` |
# | the loss is NaN | learning rate, or pixels that are not scaled | a third of the rate; a warm-up |
# | never flipped stays above 80 % | `lam` and `tau` too small for these steps | the measured ratio, above |
# | more binary layers are worse | no skips | a skip around each binary layer |
# | worse than its float twin by far | a narrow network | signs need width: twice the features cost little as bits |
