"""Images a second that are streamed for training, beside what decoding them alone allows.

    python -m benchmarks.input_pipeline [--folder DIR] [--repeats 9] [--json-file FILE]

*Decoding alone* opens every JPEG with Pillow in one thread and drops the pixels; *with crops* it
also crops at random and resizes, still without batches or other threads. The *pipeline* is
`load_streamed(...).train_batches(...)`: it reads, decodes, crops at random, resizes and puts
together batches, from the call to the last batch. Rates are divided by the cores that the workers
can use, and the ratio is that of rates within a repeat; repeats are interleaved (A B C A B C ...),
so that a drift of the machine meets all alike. Processor time does not count what other programs
take of the cores, nor that threads wait for one another.

Without --folder, the images are 500x375 cut-outs, half of them mirrored, of the two photographs
that come with scikit-learn, stored with quality 95: about 80 kB each. ImageNet's are about as wide
and high, and 110 kB on average.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image, ImageOps

from benchmarks import measuring
from experiments import data
from experiments.data import crops, image_file, image_folder

SIZE = (500, 375)  # of the images that are made, width x height
QUALITY = 95
DECODING = "decoding alone"
CROPPING = "decoding, with crops"


def main(
    folder: Path | None = None,
    images: int = 512,
    image_size: int = 224,
    batch_size: int = 64,
    repeats: int = 9,
    quick: bool = False,
    json_file: Path | None = None,
) -> None:
    """Prints the table.

    Args:
      folder: image folder ROOT/{train,test}/CLASS/FILE; without it, one is made of photographs.
      images: training images of a measurement; the same ones in every repeat.
      image_size: side of the crops.
      batch_size: images in a batch.
      repeats: measurements of each way.
      quick: few and small images, to see that it runs.
      json_file: also write all measurements there.
    """
    if quick:
        images, repeats, image_size = 16, 2, 64
    measuring.check_positive(
        images=images, image_size=image_size, batch_size=batch_size, repeats=repeats
    )
    with tempfile.TemporaryDirectory() as made:
        if folder is None:
            folder = make_folder(Path(made), images)
        files = training_files(folder, images)
        ways = _ways(folder, files, image_size, batch_size)
        size = float(np.mean([file.stat().st_size for file in files]))
        print(f"{len(files):,} images of {size / 1e3:.0f} kB on average, crops of {image_size}")
        for _, run in ways.values():  # modules are imported, files lie in the page cache
            run()
        measured = measuring.interleaved(
            {name: partial(_measure, *way) for name, way in ways.items()}, repeats
        )
    rates = {name: [rate for rate, _ in pairs] for name, pairs in measured.items()}
    processor = {name: [seconds for _, seconds in pairs] for name, pairs in measured.items()}
    heads = ("", "images/s a core", "ratio to decoding alone (median, quartiles)")
    rows = [
        (
            name,
            f"{measuring.median(rates[name]):.0f}",
            measuring.spread(rates, name, DECODING),
            f"{1e3 * measuring.median(processor[name]):.2f}",
            measuring.spread(processor, name, DECODING),
        )
        for name in ways
    ]
    measuring.print_table((*heads, "processor time, ms an image", "its ratio"), rows)
    measuring.write_json(
        json_file,
        benchmark="input_pipeline",
        images=len(files),
        mean_bytes=size,
        image_size=image_size,
        batch_size=batch_size,
        images_per_second_and_core=rates,
        processor_seconds_an_image=processor,
    )


def make_folder(root: Path, images: int) -> Path:
    """An image folder of cut-outs of two photographs, a class each; returns `root`."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    for name, pixels in zip(("china", "flower"), load_sample_images().images, strict=True):
        photograph = Image.fromarray(pixels)
        for split, count in (("train", -(-images // 2)), ("test", 1)):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                left, upper = (
                    int(rng.integers(whole - part + 1))
                    for whole, part in zip(photograph.size, SIZE, strict=True)
                )
                image = photograph.crop((left, upper, left + SIZE[0], upper + SIZE[1]))
                image = ImageOps.mirror(image) if i % 2 else image
                image.save(root / split / name / f"{i:05d}.jpg", quality=QUALITY)
    return root


def training_files(folder: Path, images: int) -> list[Path]:
    """The files of the training images that `load_streamed(..., train_images=images)` keeps."""
    found = image_folder.scan(folder)
    files, labels = found.files["train"], np.array(found.labels["train"])
    return [files[i] for i in data.balanced_subset(labels, min(images, len(files)))]


def _measure(cores: int, run: Callable[[], int]) -> tuple[float, float]:
    """Images a second and core, and seconds of processor time an image."""
    started, before = time.perf_counter(), time.process_time()
    count = run()
    processor = (time.process_time() - before) / count
    return count / (time.perf_counter() - started) / cores, processor


def _ways(
    folder: Path, files: Sequence[Path], image_size: int, batch_size: int
) -> dict[str, tuple[int, Callable[[], int]]]:
    """Name -> how many cores it can use, and what runs it and returns the number of images."""

    def streamed(workers: int | None) -> Any:
        return data.load_streamed(
            str(folder), image_size=image_size, train_images=len(files), workers=workers
        )

    def run(dataset: Any) -> int:
        return sum(len(labels) for _, labels in dataset.train_batches(0, 0, batch_size))

    one, all_cores = streamed(1), streamed(None)
    ways: dict[str, tuple[int, Callable[[], int]]] = {
        DECODING: (1, lambda: _decode(files)),
        CROPPING: (1, lambda: _crop(files, image_size)),
        "pipeline, 1 worker": (1, lambda: run(one)),
    }
    if all_cores.workers > 1:
        workers = all_cores.workers
        ways[f"pipeline, {workers} workers"] = (workers, lambda: run(all_cores))
    return ways


def _decode(files: Sequence[Path]) -> int:
    for file in files:
        with Image.open(file) as image:
            image.load()
    return len(files)


def _crop(files: Sequence[Path], image_size: int) -> int:
    rng = np.random.default_rng(0)
    for file in files:
        image_file.decode_crop(file, None, partial(crops.random_box, rng), image_size)
    return len(files)


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except ValueError as error:
        sys.exit(f"error: {error}")
