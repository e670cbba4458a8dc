"""The networks: shapes, which weights are binary, and training in both modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ovsw_jax as ovsw

NETWORKS = {
    # network, image, binary layers, latent weights (counted by hand from the shapes)
    ovsw.models.CifarResNet20: ((32, 32, 3), 18, 267_264),
    ovsw.models.CifarResNet18: ((32, 32, 3), 19, 11_157_504),
    ovsw.models.SmallResNet: ((8, 8, 3), 4, 18_432),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_shapes_and_binary_layers(network):
    image, layers, latent_weights = NETWORKS[network]
    model = nnx.eval_shape(lambda: network(7, rngs=nnx.Rngs(0)))
    logits = nnx.eval_shape(lambda m, x: m(x), model, jax.ShapeDtypeStruct((2, *image), "float32"))
    assert logits.shape == (2, 7)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    mask = ovsw.latent_mask(params)
    latent = [p for p, m in zip(jax.tree.leaves(params), jax.tree.leaves(mask), strict=True) if m]
    assert len(latent) == layers
    assert sum(p.size for p in latent) == latent_weights


def test_first_and_last_layer_are_real_valued():
    params = nnx.to_pure_dict(nnx.state(ovsw.models.SmallResNet(10, rngs=nnx.Rngs(0)), nnx.Param))
    assert set(params["conv1"]) == {"kernel"}
    assert set(params["linear"]) == {"kernel", "bias"}
    assert set(params["layer1"][0]["conv1"]) == {"latent_kernel"}


def test_evaluation_depends_on_no_other_image():
    model = ovsw.models.SmallResNet(10, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 3)), jnp.float32)
    model.train()
    model(x)
    model.eval()
    np.testing.assert_allclose(model(x)[:1], model(x[:1]), rtol=1e-5, atol=1e-5)


def test_ten_lines_of_training_wake_weights():
    """A user's loop with nnx.Optimizer: the loss falls and signs flip."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 64)
    images = rng.normal(size=(64, 8, 8, 3)) + rng.normal(size=(4, 8, 8, 3))[labels]
    images = jnp.asarray(images, jnp.float32)
    model = ovsw.models.SmallResNet(4, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, ovsw.ovsw_sgd(0.1), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        def loss_fn(model):
            logits = model(images)
            return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(64), labels])

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return loss

    losses = [float(step(model, optimizer)) for _ in range(15)]
    assert losses[-1] < losses[0] / 2
    metrics = ovsw.flip_metrics(optimizer.opt_state)
    assert 0 < float(metrics["total"]["never_flipped_ratio"]) < 1
    assert "layer2/0/conv1" in metrics


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (ovsw.models.SmallResNet, (2, 7, 8, 3)),
        (ovsw.models.SmallResNet, (2, 8, 8, 1)),
        (ovsw.models.CifarResNet20, (32, 32, 3)),
        (ovsw.models.CifarResNet20, (1, 34, 34, 3)),
        (ovsw.models.CifarResNet18, (1, 0, 32, 3)),
    ],
)
def test_images_that_do_not_fit(network, shape):
    model = nnx.eval_shape(lambda: network(10, rngs=nnx.Rngs(0)))
    images = jax.ShapeDtypeStruct(shape, "float32")
    with pytest.raises(ValueError, match=r"images of shape .* do not fit: this network takes"):
        nnx.eval_shape(lambda m, x: m(x), model, images)
