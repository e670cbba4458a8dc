"""Flips and lighting against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data import augment

BATCH = 4000  # more than 910, from where on a reduction could go wrong inside a compiled step


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((BATCH, 3, 4, 3), np.float32)


def shifts(images, result):
    """Which images were flipped, and the colour by which each was shifted, float64."""
    images, result = images.astype(np.float64), np.asarray(result, np.float64)
    differences = np.stack([result - images, result - images[:, :, ::-1]])
    spread = np.ptp(differences, axis=(2, 3)).max(-1)  # 0 where a single colour was added
    flipped = spread.argmin(axis=0)
    np.testing.assert_allclose(spread.min(axis=0), 0, atol=1e-6)
    return flipped.astype(bool), differences[flipped, np.arange(len(images))].mean((1, 2))


def test_half_are_flipped_and_each_is_shifted_by_one_colour(images):
    result = jax.jit(augment.flip_and_light)(jax.random.key(0), images)
    assert result.dtype == jnp.float32
    flipped, shift = shifts(images, result)
    assert abs(flipped.mean() - 0.5) < 4 * 0.5 / np.sqrt(BATCH)
    # Covariance of V diag(l) a with a ~ N(0, 0.1^2), in numbers written out here once more.
    components = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.814]])
    components = np.vstack([components, [-0.5836, -0.6948, 0.4203]])
    np.testing.assert_allclose(components.T @ components, np.eye(3), atol=1e-3)
    amounts = shift @ components / [0.2175, 0.0188, 0.0045]
    np.testing.assert_allclose(amounts.mean(0), 0, atol=4 * 0.1 / np.sqrt(BATCH))
    np.testing.assert_allclose(amounts.std(0), 0.1, rtol=0.05)
    np.testing.assert_allclose(np.corrcoef(amounts.T), np.eye(3), atol=0.07)


def test_lighting_is_the_formula(images, monkeypatch):
    amounts = np.random.default_rng(1).normal(size=(8, 3))
    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype: jnp.array(amounts, dtype))
    result = augment.flip_and_light(jax.random.key(0), jnp.asarray(images[:8]), std=0.3)
    _, shift = shifts(images[:8], result)
    for drawn, seen in zip(amounts, shift, strict=True):
        colour = np.zeros(3)
        for i, value in enumerate((0.2175, 0.0188, 0.0045)):
            component = [row[i] for row in augment.COLOUR_EIGENVECTORS]
            colour += np.array(component) * value * drawn[i] * 0.3
        np.testing.assert_allclose(seen, colour, atol=1e-6)


def test_without_lighting_images_are_flipped_alone(images):
    result = np.asarray(augment.flip_and_light(jax.random.key(1), jnp.asarray(images[:64]), std=0))
    flipped, shift = shifts(images[:64], result)
    assert 0 < flipped.sum() < 64
    np.testing.assert_array_equal(shift, 0)
