"""The learning rate of every recipe, epoch by epoch, against the authors' code."""

import jax
import numpy as np
import pytest

from experiments.config import Config
from experiments.training.make_optimizer import learning_rate
from tests import golden

STEPS_PER_EPOCH = 3


@pytest.mark.parametrize(
    ("name", "epochs", "warmup"),
    [
        *((f"cifar_e{e}_w5", e, 5) for e in (300, 400, 500, 600)),
        ("imagenet_r18_e200_w5", 200, 5),
        ("imagenet_yaml_e200_w0", 200, 0),
    ],
)
def test_learning_rate_of_every_step(name, epochs, warmup, float64):
    expected = golden.load("schedule")[name]
    config = Config(epochs=epochs, warmup_epochs=warmup, learning_rate=0.1)
    schedule = learning_rate(config, STEPS_PER_EPOCH)
    actual = jax.vmap(schedule)(np.arange(epochs * STEPS_PER_EPOCH))
    np.testing.assert_allclose(actual, np.repeat(expected, STEPS_PER_EPOCH), rtol=1e-12)
