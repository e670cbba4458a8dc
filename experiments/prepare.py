"""Makes CIFAR-10 or CIFAR-100 readable for TensorFlow Datasets, without TensorFlow or a download.

    python -m experiments.prepare cifar10 SOURCE [--data-dir DIR] [--overwrite]

SOURCE is an image folder ROOT/{train,test}/CLASS/FILE or the official binary archive. The outcome
is what the stock builder of `tfds.data_source("cifar10")` looks for, in array_record format. Takes
about half a minute on one core, and 140 MB on disk.
"""

import contextlib
import dataclasses
import functools
import io
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from experiments.config.choices import choose
from experiments.data import cifar, tfds_source
from experiments.data.cifar import Cifar
from experiments.data.cifar_source import Source, open_source

INTERRUPTED = 130  # exit status, as a shell reports Ctrl-C


@dataclasses.dataclass(frozen=True)
class Options:
    """Make CIFAR-10 or CIFAR-100 readable for TensorFlow Datasets. Nothing is downloaded."""

    name: tyro.conf.Positional[str]
    """cifar10 or cifar100"""
    source: tyro.conf.Positional[Path]
    """image folder ROOT/{train,test}/CLASS/FILE, or cifar-10-binary.tar.gz or
    cifar-100-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html"""
    data_dir: Path | None = None
    """folder of the TFDS data sets (default: TFDS_DATA_DIR or ~/tensorflow_datasets)"""
    overwrite: bool = False
    """replace a set that is already there"""


def prepare(
    name: str, source: Path, *, data_dir: Path | None = None, overwrite: bool = False
) -> tuple[Path, Source]:
    """Writes a CIFAR set where TFDS's stock builder finds it.

    The set is written beside its place, read back, and only then moved there: an error, or Ctrl-C,
    leaves everything as it was. For the arguments see `Options`.

    Returns:
      The folder of the prepared set, and the source with its counts and notes. Superclasses
      (`coarse_label`) of an image folder follow from the class names.

    Raises:
      ValueError: unknown name, something wrong with the source, a set is already there, or the data
        folder cannot be written.
    """
    data = choose("data set", name, cifar.BY_NAME)
    root = tfds_source.data_folder(data_dir)
    target = tfds_source.set_folder(data.name, root)
    if target.exists() and not overwrite:
        raise ValueError(f"{target} is already there: add --overwrite to replace it")
    opened = open_source(data, source.expanduser())
    with _workspace(root) as workspace:
        _write(data, opened, workspace)
        _read_back(data, opened, workspace)
        _move(workspace, target.relative_to(root), root)
    return target, opened


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = tyro.cli(
        Options,
        args=arguments,
        prog="python -m experiments.prepare",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    try:
        folder, source = prepare(
            options.name, options.source, data_dir=options.data_dir, overwrite=options.overwrite
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return INTERRUPTED
    train, test = source.counts["train"], source.counts["test"]
    print(f"{options.name} is ready: {train:,} train and {test:,} test images in {folder}")
    for note in source.notes:
        print(f"note: {note}")
    print(f"next: {_next_command(options)}")
    return 0


def _next_command(options: Options) -> str:
    words = ["python", "-m", "experiments.train", "cifar10-resnet20-short"]
    if options.name != "cifar10":
        words += ["--data", options.name]
    if options.data_dir is not None:
        words += ["--data-dir", os.fspath(options.data_dir)]
    return shlex.join(words)


@contextlib.contextmanager
def _workspace(root: Path) -> Iterator[Path]:
    """A folder in `root`, on the same file system, that is gone in the end."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".preparing-", dir=root)
    except OSError as error:
        raise ValueError(
            f"data folder {root} cannot be written ({error.strerror}): "
            "name another one with --data-dir"
        ) from error
    with folder as path:
        try:
            yield Path(path)
        except (OSError, RuntimeError) as error:  # array_record raises the latter
            reason = str(error).partition(";")[0]
            raise ValueError(
                f"data folder {root} cannot be written ({reason}): nothing is left of it; make "
                "room, or name another one with --data-dir"
            ) from error


def _write(data: Cifar, source: Source, root: Path) -> None:
    """Runs TFDS's stock builder on our examples in place of its download."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(data.name, data_dir=os.fspath(root))
    for label, names in data.label_names.items():
        builder.info.features[label].names = list(names)
    with _progress(source) as bars:
        builder._split_generators = lambda _: {
            split: _records(source, split, bars[split]) for split in source.counts
        }
        # It announces a download of unknown size, and draws its own bars.
        with contextlib.redirect_stdout(io.StringIO()), _no_bars(tfds):
            builder.download_and_prepare(
                file_format="array_record",
                download_dir=root / "downloads",
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )


@contextlib.contextmanager
def _progress(source: Source) -> Iterator[dict[str, Callable[[], None]]]:
    """Split -> function to call after each of its examples."""
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks = {split: progress.add_task(split, total=n) for split, n in source.counts.items()}
        yield {split: functools.partial(progress.advance, task) for split, task in tasks.items()}


@contextlib.contextmanager
def _no_bars(tfds: Any) -> Iterator[None]:
    tfds.display_progress_bar(False)
    try:
        yield
    finally:
        tfds.display_progress_bar(True)


def _records(
    source: Source, split: str, advance: Callable[[], None]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Keys and features as in the stock builder, whose order on disk follows from the keys."""
    for index, (pixels, labels) in enumerate(source.examples(split)):
        yield index, {"id": f"{split}_{index:05d}", "image": _png(pixels), **labels}
        advance()


def _png(pixels: NDArray[np.uint8]) -> bytes:
    # Given as bytes, since TFDS hands arrays to TensorFlow.
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _read_back(data: Cifar, source: Source, root: Path) -> None:
    """Asks what a user will ask: does `tfds.data_source` find it all?"""
    import tensorflow_datasets as tfds

    for split, count in source.counts.items():
        stored = tfds.data_source(data.name, split=split, data_dir=os.fspath(root), download=False)
        if len(stored) != count:
            raise RuntimeError(f"wrote {count:,} {split} images, TFDS reads back {len(stored):,}")


def _move(workspace: Path, relative: Path, root: Path) -> None:
    target = root / relative
    target.parent.mkdir(parents=True, exist_ok=True)
    replaced = workspace / "replaced"
    try:
        if target.exists():
            os.replace(target, replaced)
        os.replace(workspace / relative, target)
    except BaseException:  # the workspace goes, and would take the old set along
        if replaced.exists() and not target.exists():
            os.replace(replaced, target)
        raise


if __name__ == "__main__":
    sys.exit(main())
