"""Trains binary networks with several optimizers and compares them.

python -m experiments.train                              # digits, under a minute
python -m experiments.train cifar10-resnet20-short       # a recipe of experiments/configs
python -m experiments.train digits --epochs 5 --out DIR  # any field of it changed
python -m experiments.train --help
"""

import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.progress import TaskID

from experiments import figures, summary
from experiments.choices import choose
from experiments.configs import RECIPES, Config
from experiments.data import Dataset, load
from experiments.networks import NETWORKS, Network
from experiments.optimizers import RULES, make_optimizer
from experiments.progress import TrainingProgress
from experiments.records import display_name
from experiments.run_folder import RunFolder
from experiments.steps import Steps, TrainState, latent_weights, never_flipped

SECONDS_BETWEEN_DRAWS = 0.25
INTERRUPTED = 130  # exit status, as a shell reports Ctrl-C


def train(
    config: Config, console: Console | None = None, command: str | None = None
) -> tuple[Path, bool]:
    """Runs a config and writes its run folder.

    Args:
      config: what to run.
      console: where to show progress; None for standard output.
      command: the command line to note in versions.json.

    Returns:
      The run folder, and whether the run came to its end; Ctrl-C ends it early with everything
      measured so far written.

    Raises:
      ValueError: if the config can't be run; nothing is written then.
    """
    console = console or Console()
    make_network = choose("network", config.network, NETWORKS)
    for name in config.optimizers:
        choose("optimizer", name, RULES)
    dataset = load(config.data, data_dir=config.data_dir, train_images=config.train_images)
    _check_batch(config, dataset)
    # Made here, before the folder: an out-of-range hyperparameter leaves nothing behind.
    steps_per_epoch = len(dataset.train_labels) // config.batch_size
    optimizers = {name: make_optimizer(name, config, steps_per_epoch) for name in config.optimizers}
    run = RunFolder(config, command)
    console.print(f"{dataset!r}\nwriting to {run.path}", highlight=False, soft_wrap=True)
    channels = dataset.train_images.shape[-1]
    network = Network(make_network, len(dataset.classes), channels)
    compiled = {
        name: Steps(network, tx, dataset, batch_size=config.batch_size, augment=config.augment)
        for name, tx in optimizers.items()
    }
    finished = False
    try:
        with TrainingProgress(console) as progress:
            # Seeds outside: an interrupted run has compared the optimizers on the seeds it has.
            for seeds in _chunks(config.seeds, config.seeds_at_once):
                for name, steps in compiled.items():
                    _Training(config, name, steps, seeds, run, progress).run()
                    run.write_latent()
        finished = True
    except KeyboardInterrupt:
        console.print("interrupted; writing what was measured so far")
    finally:
        run.close()
    return run.path, finished


class _Training:
    """One optimizer from start to end, for seeds that are trained together."""

    def __init__(
        self,
        config: Config,
        name: str,
        steps: Steps,
        seeds: Sequence[int],
        run: RunFolder,
        progress: TrainingProgress,
    ):
        self.config, self.name, self.steps, self.seeds = config, name, steps, seeds
        self.run_folder, self.progress = run, progress

    def run(self) -> None:
        state = self.steps.init(jnp.asarray(self.seeds))
        self._keep_latent("initial", latent_weights(state.params))
        total = self.config.epochs * self.steps.steps_per_epoch
        seeds = ", ".join(map(str, self.seeds))
        label = f"{display_name(self.name)} (seed{'s' * (len(self.seeds) > 1)} {seeds})"
        task = self.progress.add(display_name(self.name), total)
        for epoch in range(1, self.config.epochs + 1):
            signs = _signs(state)
            state, measured = self._epoch(state, epoch, task)
            measured["test_top1"] = self.steps.evaluate(state)
            self._keep_latent("never_flipped", never_flipped(state.opt_state))
            self._write(epoch, measured, _changed(signs, _signs(state)))
            shown = {**measured, "top1": measured["test_top1"]}
            self.progress.step(task, epoch * self.steps.steps_per_epoch, _shown(shown))
            self.progress.epoch(label, epoch, self.config.epochs, _shown(shown))

    def _epoch(
        self, state: TrainState, epoch: int, task: TaskID
    ) -> tuple[TrainState, dict[str, Any]]:
        """Trains one epoch; gives means over its steps, silent and never flipped at its end."""
        state, order = self.steps.shuffle(state)
        sums = metrics = None
        started = drawn = time.perf_counter()
        for step, batch in enumerate(order, start=1):
            state, metrics = self.steps.train_step(state, batch)
            sums = metrics if sums is None else _add(sums, metrics)
            if epoch == step == 1:  # compilation is no part of images/s
                jax.block_until_ready(metrics)
                started = time.perf_counter()
            if (now := time.perf_counter()) - drawn > SECONDS_BETWEEN_DRAWS:
                drawn = now
                speed = self._images(step - (epoch == 1)) / max(now - started, 1e-9)
                latest = {
                    "loss": metrics.loss,
                    "top1": metrics.top1,
                    "images_per_second": speed,
                    **metrics.layers["total"],
                }
                done = (epoch - 1) * len(order) + step
                self.progress.step(task, done, _shown(latest))
        sums, metrics = jax.device_get((sums, metrics))
        seconds = time.perf_counter() - started
        means = jax.tree.map(lambda x: x / len(order), sums)
        layers = {
            layer: {**means.layers[layer], **_at_end(metrics.layers[layer])}
            for layer in metrics.layers
        }
        return state, {
            "loss": means.loss,
            "train_top1": means.top1,
            "images_per_second": self._images(len(order) - (epoch == 1)) / seconds,
            "seconds": seconds,
            **layers.pop("total"),
            "layers": layers,
        }

    def _images(self, steps: int) -> int:
        return steps * self.config.batch_size * len(self.seeds)

    def _write(self, epoch: int, measured: dict[str, Any], changed: dict[str, Any]) -> None:
        layers = measured.pop("layers")
        for layer, metrics in layers.items():
            metrics["epoch_flip_ratio"] = changed[layer]
        measured["epoch_flip_ratio"] = changed["total"]
        for i, seed in enumerate(self.seeds):
            row = {
                "optimizer": self.name,
                "seed": seed,
                "epoch": epoch,
                "step": epoch * self.steps.steps_per_epoch,
                **_of_seed(measured, i),
                "layers": {layer: _of_seed(m, i) for layer, m in layers.items()},
            }
            self.run_folder.write_metrics(row)

    def _keep_latent(self, kind: str, layers: dict[str, jax.Array]) -> None:
        if self.seeds[0] == self.config.seeds[0]:
            first = {layer: np.asarray(x[0]) for layer, x in layers.items()}
            self.run_folder.keep_latent(self.name, kind, first)


@jax.jit
def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)


@jax.jit
def _signs(state: TrainState) -> dict[str, jax.Array]:
    return {layer: w >= 0 for layer, w in latent_weights(state.params).items()}


@jax.jit
def _changed(before: dict[str, jax.Array], after: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Share of signs that differ, by layer and in total, for each seed."""
    different = {k: (before[k] != after[k]).reshape(len(after[k]), -1) for k in after}
    shares = {k: jnp.mean(d, axis=1, dtype=jnp.float32) for k, d in different.items()}
    everything = jnp.concatenate(list(different.values()), axis=1)
    return {**shares, "total": jnp.mean(everything, axis=1, dtype=jnp.float32)}


def _at_end(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics that say how things stand, not what a step did."""
    return {k: metrics[k] for k in ("silent_ratio", "never_flipped_ratio")}


def _of_seed(metrics: dict[str, Any], i: int) -> dict[str, float]:
    return {k: float(v if np.ndim(v) == 0 else np.asarray(v)[i]) for k, v in metrics.items()}


def _shown(metrics: dict[str, Any]) -> dict[str, float]:
    """Means over the seeds, for the progress bar."""
    return {k: float(np.mean(v)) for k, v in metrics.items() if k != "layers"}


def _chunks(seeds: Sequence[int], size: int) -> list[Sequence[int]]:
    return [seeds[i : i + size] for i in range(0, len(seeds), size)]


def _check_batch(config: Config, dataset: Dataset) -> None:
    images = len(dataset.train_labels)
    if images < config.batch_size:
        raise ValueError(
            f"batch_size={config.batch_size} is more than the {images} training images of "
            f"{dataset.name}: not one step would be made. Use a smaller --batch-size."
        )
    height, width = dataset.train_images.shape[1:3]
    if min(height, width) < 4:
        raise ValueError(
            f"images of {dataset.name} are {height}x{width} pixels; the networks halve the "
            "resolution and need at least 4x4. Use larger images."
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    arguments = list(given)
    named = bool(arguments) and not arguments[0].startswith("-")
    console = Console(highlight=False)
    try:
        recipe = choose("recipe", arguments.pop(0), RECIPES) if named else RECIPES["digits"]
        config = tyro.cli(
            Config,
            args=arguments,
            default=recipe,
            prog="python -m experiments.train [RECIPE]",
            description=(
                "Trains a binary network with several optimizers and compares them. RECIPE is one "
                f"of {', '.join(RECIPES)}; every field of it can be changed:"
            ),
        )
        command = shlex.join(["python", "-m", "experiments.train", *given])
        path, finished = train(config, console, command)
        drawn = figures.draw(path)  # first, since the summary shows them
        written = summary.write_summary(path)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    summary.print_table(written, console)
    for file in (*drawn, path / "summary.md"):
        console.print(str(file), soft_wrap=True)
    return 0 if finished else INTERRUPTED


if __name__ == "__main__":
    # A shell starts background jobs with Ctrl-C ignored; `kill -INT` must end them all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
