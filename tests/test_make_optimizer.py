"""How a row of `experiments.optimizers` becomes an optimizer."""

import chex
import jax.numpy as jnp

from experiments.config import Config
from experiments.optimizers import LINKS, OPTIMIZERS, Look, Optimizer
from experiments.training.make_optimizer import make_optimizer


def test_a_rule_that_names_its_numbers_as_the_config_does_needs_a_row_alone(monkeypatch):
    monkeypatch.setitem(LINKS, "scale_by_ags", ("lam",))
    row = Optimizer("New", ("scale_by_ags", "flips", "sgd"), Look("k", "-", "o", ""))
    monkeypatch.setitem(OPTIMIZERS, "new", row)
    params = {"latent_kernel": jnp.array([[3.0, 1.0], [4.0, 0.0]])}
    gradients = {"latent_kernel": jnp.array([[0.1, 0.5], [0.0, 0.0]])}
    results = []
    for name in ("new", "ags"):
        tx = make_optimizer(name, Config(lam=0.3), steps_per_epoch=1, axes=None)
        results.append(tx.update(gradients, tx.init(params), params))
    chex.assert_trees_all_equal(*results)
    assert OPTIMIZERS["new"].fields == OPTIMIZERS["ags"].fields
