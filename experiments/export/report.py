"""Exports a run's network, and says how the files compare with the training network."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.data import Dataset
from experiments.export.frozen import Logits, classes_of, frozen_of, images_of
from experiments.export.targets import TARGETS, size_of
from experiments.run.weights import config_of
from experiments.trained import Trained, load_trained

_TIMED = 20  # images, one at a time


def export(
    run: Path,
    to: Sequence[str],
    out: Path,
    optimizer: str | None = None,
    seed: int | None = None,
    data_dir: Path | None = None,
) -> dict[str, Any]:
    """Writes the targets and export.json to `out`; returns the contents of the latter.

    Raises:
      ValueError: if the run has no such network, or it can't be frozen.
      OSError: if a file can't be written.
    """
    trained = load_trained(run, optimizer, seed)
    frozen = frozen_of(trained)
    images, why = _images(run, data_dir)
    out.mkdir(parents=True, exist_ok=True)
    expected = None if images is None else trained.predict(images.test_images)
    written: dict[str, Any] = {}
    for key in dict.fromkeys(("file", *to)):
        target = TARGETS[key]
        path = out / target.file
        try:
            target.write(frozen, path)
        except (ImportError, ValueError) as error:
            written[key] = {"not_written": str(error)}
            continue
        written[key] = {"file": target.file, "bytes": size_of(path)}
        try:
            if images is None or expected is None:
                raise RuntimeError(why)
            measured = _compared(target.read(frozen, path), trained, images, expected)
        except (ImportError, RuntimeError) as error:
            measured = {"not_checked": str(error)}
        written[key] |= measured
    found = {"network": trained.source, "targets": written, **_training(images, expected)}
    (out / "export.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def print_export(found: Mapping[str, Any], out: Path) -> None:
    """A table for the terminal."""
    table = Table(title=Text(f"{found['network']}, in {out}"))
    for head in ("target", "file", "bytes", "top-1 %", "differ", "ms"):
        justify: Any = "left" if head in ("target", "file") else "right"
        table.add_column(head, justify=justify, no_wrap=True)
    if "top1" in found:
        top1 = f"{100 * found['top1']:.2f}"
        table.add_row("as trained", "", "", top1, "", "")
    notes = []
    for key, measured in found["targets"].items():
        about = TARGETS[key].about
        if "top1" in measured:
            answers = f"{measured['differing']} of {found['images']:,}"
            last = [f"{100 * measured['top1']:.2f}", answers, f"{measured['ms']:.2f}"]
        else:
            last = ["not checked" if "file" in measured else "not written", "", ""]
            notes.append(f"{about}: {measured.get('not_checked') or measured['not_written']}")
        size = f"{measured['bytes']:,}" if "bytes" in measured else ""
        table.add_row(about, measured.get("file", ""), size, *last)
    console = Console()
    console.print(table, markup=False)
    for note in notes:
        console.print(note, markup=False)


def _images(run: Path, data_dir: Path | None) -> tuple[Dataset | None, str]:
    """The run's data set, or why it can't be compared on it."""
    try:
        return images_of(config_of(run), data_dir), ""
    except ValueError as error:
        return None, f"no test images: {error}"


def _training(images: Dataset | None, expected: NDArray[np.int32] | None) -> dict[str, Any]:
    if images is None or expected is None:
        return {}
    return {"images": len(expected), "top1": float(np.mean(expected == images.test_labels))}


def _compared(
    logits: Logits, trained: Trained, images: Dataset, expected: NDArray[np.int32]
) -> dict[str, Any]:
    answers = classes_of(logits, trained.preprocess, images.test_images)
    return {
        "top1": float(np.mean(answers == images.test_labels)),
        "differing": int((answers != expected).sum()),
        "ms": _milliseconds(logits, np.asarray(trained.preprocess(images.test_images[:_TIMED]))),
    }


def _milliseconds(logits: Logits, images: NDArray[np.float32]) -> float:
    """Median of single images; a rough figure, of whatever else the machine does too."""
    taken = []
    np.asarray(logits(images[:1]))  # may compile
    for i in range(len(images)):
        started = time.perf_counter()
        np.asarray(logits(images[i : i + 1]))
        taken.append(time.perf_counter() - started)
    return 1000 * float(np.median(taken))
