"""The model card of a network that comes trained, from the runs that made it."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from experiments.optimizers import display_name
from experiments.report.table import spread
from experiments.run.predictions import Predictions
from experiments.run.reader import TOP1, Run
from experiments.trained import Trained

_DATA = {
    "digits": "scikit-learn's digits (UCI Optdigits, CC BY 4.0), 8x8 gray pixels",
    "cifar10": "CIFAR-10 (Krizhevsky 2009; its page names no licence), 32x32 colour pixels",
    "cifar100": "CIFAR-100 (Krizhevsky 2009; its page names no licence), 32x32 colour pixels",
}
MOST_CLASSES = 10  # more would be no table to read


def card(
    name: str,
    runs: Sequence[Run],
    optimizer: str,
    seed: int,
    trained: Trained,
    kept: Predictions,
    answers: NDArray[np.uint8],
    sizes: Mapping[str, int],
) -> str:
    """Markdown.

    Args:
      name: what `ovsw.models.pretrained` calls it.
      runs: of one comparison; the first one has the network.
      optimizer: the training whose network it is.
      seed: its seed.
      trained: its network.
      kept: what the network answered to the test images when it was trained.
      answers: what its one-bit form answers to them.
      sizes: bytes of the files, by name without suffix.
    """
    run, config = runs[0], runs[0].config
    right = answers == kept.label
    differing = int((answers != kept.predicted).sum())
    images = len(right)
    parts = [
        f"# {name}",
        f"{type(trained.model).__name__} with binary weights and activations, for "
        f"{len(trained.data.classes)} classes: {', '.join(trained.data.classes[:MOST_CLASSES])}"
        + ("" if len(trained.data.classes) <= MOST_CLASSES else ", ...")
        + ".",
        _use(name, trained),
        "## Accuracy",
        f"Top-1 on the {images:,} test images at the last epoch; mean ± sample standard deviation "
        f"over the seeds of the trainings. This file is of seed {seed}, not chosen by accuracy.",
        _accuracy(runs, optimizer, seed, right),
        f"The one-bit network and the network that was trained differ in {differing} of {images:,} "
        "predictions.",
        _confusion(trained.data.classes, kept.label, answers),
        "## How it was trained",
        _recipe(run, trained, optimizer, seed),
        "## Files",
        f"`network.safetensors`: {sizes['network']:,} bytes, one bit per binary weight, all else "
        f"float32. `latent.safetensors`: {sizes['latent']:,} bytes, float32, the latent weights "
        "and batch statistics, to train on. The latter do not hold the optimizer's state.",
        "## Licence and limits",
        "The weights have the licence of the package, Apache-2.0. The images have terms of their "
        f"own: {_DATA.get(config['data'], config['data'])}.",
        "It is an example and a start for trainings of your own. It knows these classes alone, and "
        "gives one of them for any image; its probabilities are not calibrated. It was measured on "
        "this test set only, not on images from elsewhere, which have to be cropped and scaled "
        "like those of the data set. Don't use it where a wrong answer does harm.",
    ]
    return "\n\n".join(parts) + "\n"


def _use(name: str, trained: Trained) -> str:
    shape = ", ".join(map(str, trained.data.image_shape))
    return (
        f'    net = ovsw.models.pretrained("{name}")\n'
        f"    net.predict(images)                # uint8 (batch, {shape})"
    )


def _accuracy(runs: Sequence[Run], optimizer: str, seed: int, right: NDArray[np.bool_]) -> str:
    rows = ["| | top-1 % | seeds |", "| --- | ---: | --- |"]
    for arm in dict.fromkeys(arm for run in runs for arm in run.arms):
        of = [run for run in runs if arm in run.arms and run.finished(arm)]
        if top1 := [x for run in of for x in run.final(arm, TOP1)]:
            seeds = ", ".join(str(s) for run in of for s in run.seeds(arm))
            rows.append(f"| {display_name(arm)} | {spread(top1)} | {seeds} |")
    of_file = f"{100 * right.mean():.2f}"
    rows.append(f"| **this file** ({display_name(optimizer)}) | {of_file} | {seed} |")
    return "\n".join(rows)


def _confusion(classes: Sequence[str], label: NDArray[np.integer], found: NDArray[np.uint8]) -> str:
    counts = np.zeros((len(classes),) * 2, int)
    np.add.at(counts, (label, found), 1)
    if len(classes) > MOST_CLASSES:
        wrong = counts - np.diag(np.diag(counts))
        order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CLASSES]
        pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
        lines = [f"- {classes[i]} taken for {classes[j]}: {wrong[i, j]}" for i, j in pairs]
        return "The most frequent confusions of this file:\n\n" + "\n".join(lines)
    head = f"| label \\ predicted | {' | '.join(classes)} |"
    rows = [
        f"| {name} | {' | '.join(map(str, row))} |"
        for name, row in zip(classes, counts, strict=True)
    ]
    return "\n".join(
        ["Confusion of this file:\n", head, "| --- |" + " ---: |" * len(classes), *rows]
    )


def _recipe(run: Run, trained: Trained, optimizer: str, seed: int) -> str:
    config, versions = run.config, run.versions
    packages = ", ".join(
        f"{p} {versions[p]}" for p in ("jax", "flax", "optax", "numpy") if p in versions
    )
    augmented = "random crops and flips" if config.get("augment") else "no augmentation"
    trained_so = (
        f"{display_name(optimizer)}, seed {seed}, {config['epochs']} epochs in batches of "
        f"{config['batch_size']}, {augmented}. Images: {_DATA.get(config['data'], config['data'])}."
    )
    made = (
        f"Commit {versions.get('commit') or 'not recorded'}; {packages}; "
        f"{versions.get('devices', 'unknown device')}, {versions.get('machine', '')}."
    )
    return f"{trained_so}\n\n    {versions.get('command') or 'command not recorded'}\n\n{made}"
