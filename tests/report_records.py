"""What a run keeps for its page, made up: histograms, predictions, example images, network."""

import json

import numpy as np

BINS, KINDS = 48, ("flipping", "silent", "never_flipped")


def write_records(folder, *, classes=10, images=360, epochs=None, side=8, channels=1):
    """Adds them to a synthetic run, with one call of the random generator a file; returns it."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    trainings = sorted({(row["optimizer"], row["seed"]) for row in rows})
    layers = list(rows[0]["layers"])
    recorded = range(0, max(row["epoch"] for row in rows) + 1) if epochs is None else epochs
    names = [f"class {i}" for i in range(classes)]
    (folder / "data.json").write_text(json.dumps({"classes": names, "test_images": images}))
    (folder / "network.json").write_text(json.dumps({"small": network(layers)}))
    for part in ("histograms", "predictions", "examples"):
        (folder / part).mkdir()
    for number, (optimizer, seed) in enumerate(trainings):
        rng = np.random.default_rng(number)
        name = f"{optimizer}-seed{seed}"
        lines = [histogram_line(epoch, layers, rng) for epoch in recorded]
        (folder / "histograms" / f"{name}.jsonl").write_text("".join(lines))
        label = rng.integers(0, classes, images).astype(np.uint16)
        wrong = rng.random(images) < 0.1
        predicted = np.where(wrong, (label + 1) % classes, label).astype(np.uint16)
        probability = rng.random(images).astype(np.float16)
        np.savez(
            folder / "predictions" / f"{name}.npz",
            label=label,
            predicted=predicted,
            probability=probability,
        )
        index = np.concatenate([np.flatnonzero(wrong)[:3], np.flatnonzero(~wrong)[:4]])
        pixels = rng.integers(0, 256, (len(index), side, side, channels)).astype(np.uint8)
        np.savez(folder / "examples" / f"{name}.npz", places=index, images=pixels)
    return folder


def histogram_line(epoch, layers, rng):
    by_layer = {}
    for layer in layers:
        shape = np.exp(-(np.linspace(-4, 4, BINS) ** 2) / 2)
        counts = rng.poisson(200 * shape, (3, BINS)) * [[epoch > 0], [epoch > 1], [True]]
        by_layer[layer] = {"limit": 0.5, **dict(zip(KINDS, counts.tolist(), strict=True))}
    return json.dumps({"epoch": epoch, "step": 22 * epoch, "layers": by_layer}) + "\n"


def network(layers):
    """What `ModelSummary.to_dict` writes."""
    counts = {
        "binary_params": 2304,
        "real_params": 16,
        "stored_bytes": 352,
        "training_bytes": 9280,
        "binary_macs": 147_456,
        "float_macs": 0,
    }
    row = {"kind": "BinaryConv", "output_shapes": [[1, 8, 8, 16]], "dtype": "float32"} | counts
    total = {"name": "total", "kind": "Net"} | {k: v * len(layers) for k, v in counts.items()}
    return {
        "input_shape": [1, 8, 8, 1],
        "input_dtype": "float32",
        "inputs": [],
        "rows": [{"name": layer} | row for layer in layers],
        "total": total,
    }
