"""Made-up run folders in the format of a real run, for the tests of figures and summary."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

RESNET20_LAYERS = tuple(
    f"layer{stage}/{block}/conv{conv}"
    for stage in (1, 2, 3)
    for block in range(3)
    for conv in (1, 2)
)
DIGITS_LAYERS = ("hidden1", "hidden2", "hidden3", "hidden4")
# Share of weights that never flip and highest top-1, roughly as measured on digits.
_LEVELS = {"sgd": (0.89, 0.955), "ovsw": (0.68, 0.965), "ags": (0.72, 0.962), "sad": (0.85, 0.957)}


def write_run(
    folder: Path,
    *,
    layers: Sequence[str] = DIGITS_LAYERS,
    seeds: Sequence[int] = (0, 1, 2),
    epochs: int = 30,
    optimizers: Sequence[str] = ("sgd", "ovsw"),
    weights: int = 2304,
    weight_scale: float = 1.0,
    latents: bool = True,
    **config: Any,
) -> Path:
    """Writes config.json, versions.json, metrics.jsonl and (unless told not to) latent.npz."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "data": "digits",
        "network": "small",
        "optimizers": list(optimizers),
        "seeds": list(seeds),
        "epochs": epochs,
        "batch_size": 64,
        "learning_rate": 0.1,
        "horizon": None,
    }
    (folder / "config.json").write_text(json.dumps(settings | config))
    versions = {"python": "3.11.9", "jax": "0.10.2", "command": "python -m experiments.train"}
    (folder / "versions.json").write_text(json.dumps(versions))
    rng = np.random.default_rng(0)
    rows = [
        _row(optimizer, seed, epoch, epochs, layers, rng)
        for optimizer in optimizers
        for epoch in range(1, epochs + 1)
        for seed in seeds
    ]
    write_rows(folder, rows)
    if latents:
        np.savez(folder / "latent.npz", **_latents(optimizers, layers, weights, weight_scale))
    return folder


def write_rows(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _row(
    optimizer: str,
    seed: int,
    epoch: int,
    epochs: int,
    layers: Sequence[str],
    rng: np.random.Generator,
) -> dict[str, Any]:
    never, top1 = _LEVELS.get(optimizer, (0.8, 0.96))
    done = epoch / epochs
    by_layer = {}
    for depth, layer in enumerate(layers):
        share = (1 - never) * (0.6 + 0.8 * depth / max(1, len(layers) - 1))
        flips = share * 0.35 * np.exp(-4 * done) + 0.2 * share * (1 - done) + 1e-3 * rng.random()
        silent = 1 - share * (1 - np.exp(-4 * done))
        by_layer[layer] = {
            "flip_ratio": float(flips) / 20,
            "epoch_flip_ratio": float(flips),
            "silent_ratio": float(silent),
            "never_flipped_ratio": float(silent * (1 - 0.01 * done)),
        }
    total = {
        key: float(np.mean([values[key] for values in by_layer.values()]))
        for key in ("flip_ratio", "epoch_flip_ratio", "silent_ratio", "never_flipped_ratio")
    }
    noise = 0.004 * rng.standard_normal()
    accuracy = top1 * (1 - 0.7 * float(np.exp(-8 * done))) + noise
    return {
        "optimizer": optimizer,
        "seed": seed,
        "epoch": epoch,
        "step": 22 * epoch,
        "loss": 2.3 * float(np.exp(-6 * done * top1)) + 0.02 + abs(noise),
        "train_top1": min(1.0, accuracy + 0.01),
        "test_top1": min(1.0, accuracy),
        "images_per_second": 8000.0,
        "seconds": 1.2 * epoch,
        **{key: min(1.0, value + noise / 4) for key, value in total.items()},
        "layers": by_layer,
    }


def _latents(
    optimizers: Sequence[str], layers: Sequence[str], weights: int, scale: float
) -> dict[str, np.ndarray]:
    """Normal initial weights; the larger one is, the likelier it never flips."""
    arrays = {}
    for optimizer in optimizers:
        never, _ = _LEVELS.get(optimizer, (0.8, 0.96))
        for depth, layer in enumerate(layers):
            rng = np.random.default_rng(depth)  # the same initial weights for every optimizer
            size = weights * 2 ** (3 * depth // max(1, len(layers)))
            std = (2 / size**0.5) ** 0.5
            initial = rng.normal(0, std, size)
            keeps = np.abs(initial) > std * rng.exponential(1 - never, size) * 4
            arrays[f"{optimizer}|{layer}|initial"] = (scale * initial).astype(np.float32)
            arrays[f"{optimizer}|{layer}|never_flipped"] = keeps
    return arrays
