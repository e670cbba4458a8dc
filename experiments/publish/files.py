"""The files of a network that comes trained.

ovsw_jax/models/trained/NAME/  network.safetensors, one bit per binary weight; latent.safetensors,
                               the latent weights; README.md, the model card
ovsw_jax/models/trained/       SHA256SUMS of all of them
tests/trained/NAME.npy         the class that the one-bit network predicts for each test image
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from experiments.export.frozen import classes_of, frozen_of, images_of
from experiments.publish.card import card
from experiments.run import predictions, weights
from experiments.run.reader import Run, read_run
from experiments.trained import load_trained

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "ovsw_jax" / "models" / "trained"
TESTS = ROOT / "tests" / "trained"
SUMS = "SHA256SUMS"
# Runs may differ in these and be of one comparison.
_OF_A_RUN = {"seeds", "optimizers", "out", "data_dir", "checkpoint_seconds", "members_at_once"}


def publish(
    name: str,
    runs: Sequence[Path],
    optimizer: str,
    seed: int,
    data_dir: Path | None = None,
    package: Path = PACKAGE,
    tests: Path = TESTS,
) -> str:
    """Writes the files; returns the model card. The run may be of an earlier commit.

    Raises:
      ValueError: if the runs differ in more than seeds and optimizers, or the first one has no such
        network; if the test images are not those that the run saw.
      OSError: if a file can't be read or written.
    """
    read = [read_run(run) for run in runs]
    _check_alike(read)
    trained = load_trained(runs[0], optimizer, seed)
    images = images_of(read[0].config, data_dir)
    kept = predictions.read(predictions.file_of(runs[0], optimizer, seed))
    if not np.array_equal(kept.label, images.test_labels):
        raise ValueError(f"the test images of {images.name} are not those of {runs[0]}.")
    frozen = frozen_of(trained)
    folder = package / name
    folder.mkdir(parents=True, exist_ok=True)
    tests.mkdir(parents=True, exist_ok=True)
    frozen.save(folder / "network.safetensors")
    (folder / "latent.safetensors").write_bytes(save(_latent(runs[0], optimizer, seed)))
    answers = classes_of(frozen, trained.preprocess, images.test_images).astype(np.uint8)
    np.save(tests / f"{name}.npy", answers)
    text = card(name, read, optimizer, seed, trained, kept, answers, _sizes(folder))
    (folder / "README.md").write_text(text, encoding="utf-8")
    _write_sums(package)
    return text


def _check_alike(runs: Sequence[Run]) -> None:
    for run in runs:
        if run.is_sweep:
            raise ValueError(f"{run.folder} is a sweep: give a run with one point per optimizer.")
        here, first = run.config, runs[0].config
        differing = {k for k in here.keys() | first.keys() if here.get(k) != first.get(k)}
        if others := sorted(differing - _OF_A_RUN):
            raise ValueError(
                f"{run.folder} and {runs[0].folder} differ in {', '.join(others)}: give runs of "
                "the same settings."
            )


def _latent(run: Path, optimizer: str, seed: int) -> dict[str, NDArray[Any]]:
    """Parameters and batch statistics by path, in float32 as they were trained."""
    with np.load(weights.kept(run, optimizer, seed), allow_pickle=False) as arrays:
        found = {key.partition("/"): arrays[key] for key in arrays.files}
    return {path: x for (kind, _, path), x in found.items() if kind in ("params", "statistics")}


def _sizes(folder: Path) -> dict[str, int]:
    return {file.stem: file.stat().st_size for file in folder.glob("*.safetensors")}


def _write_sums(package: Path) -> None:
    files = sorted(path for path in package.glob("*/*") if path.is_file())
    sums = (
        f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(package)}" for f in files
    )
    (package / SUMS).write_text("\n".join(sums) + "\n", encoding="utf-8")
