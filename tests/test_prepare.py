import dataclasses
import gzip
import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from experiments import cifar, cifar_source, data, prepare, tfds_source

REPOSITORY = Path(__file__).parents[1]

# Superclass of each CIFAR-100 class, in official order: the vector of the official coarse labels,
# which the project derives from the superclasses' names instead.
OFFICIAL_COARSE_LABELS = """
    4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 6 11 5 10 7 6 13 15 3 15 0 11 1 10 12 14 16 9 11 5
    5 19 8 8 15 13 14 17 18 10 16 4 17 4 2 0 17 4 18 17 10 3 2 12 12 16 12 1 9 19 2 10 0 1 16 12 9
    13 15 13 16 19 2 4 6 19 5 5 8 19 18 1 2 15 6 0 17 8 14 13
"""


def small(official):
    """The same set with 20 training and 5 test records, for archives made in a test."""
    records = {
        split: dict.fromkeys(files, 20 // len(files) if split == "train" else 5)
        for split, files in official.records.items()
    }
    return dataclasses.replace(official, records=records)


@pytest.fixture(params=["cifar10", "cifar100"])
def which(request, monkeypatch):
    monkeypatch.setitem(cifar.BY_NAME, request.param, small(cifar.BY_NAME[request.param]))
    return cifar.BY_NAME[request.param]


@pytest.fixture
def cifar10(monkeypatch):
    monkeypatch.setitem(cifar.BY_NAME, "cifar10", small(cifar.CIFAR10))
    return cifar.BY_NAME["cifar10"]


def archive_files(which):
    """File name -> content, and split -> (images NHWC, one row of labels an image)."""
    rng = np.random.default_rng(0)
    files, splits = {}, {}
    for split, records in which.records.items():
        images, labels = [], []
        for file, count in records.items():
            planes = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
            rows = np.stack(
                [rng.integers(0, len(names), count) for names in which.label_names.values()], axis=1
            ).astype(np.uint8)
            files[file] = np.concatenate([rows, planes.reshape(count, -1)], axis=1).tobytes()
            images.append(np.moveaxis(planes, 1, -1))
            labels.append(rows)
        splits[split] = np.concatenate(images), np.concatenate(labels)
    for label, file in which.label_files.items():
        files[file] = ("\n".join(which.label_names[label]) + "\n\n").encode()
    return files, splits


def write_archive(path, folder, files):
    """Members in reverse order: an archive promises none."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in reversed(list(files.items())):
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_folder(root, counts, *, size=32, suffix="png"):
    """split -> {class: number of images}; pixels follow from split, class and number."""
    rng = np.random.default_rng(0)
    for split, classes in counts.items():
        for name, count in classes.items():
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i:03d}.{suffix}")
    return root


def whole(which, train=2, test=1):
    return {
        "train": dict.fromkeys(which.classes, train),
        "test": dict.fromkeys(which.classes, test),
    }


def run(capsys, monkeypatch, *arguments):
    """The command line in this process: standard output, or the message it exits with."""
    monkeypatch.setattr(sys, "argv", ["prepare", *map(str, arguments)])
    try:
        prepare.cli()
    except SystemExit as error:
        return str(error.code)
    return capsys.readouterr().out


# From an official archive


def test_archive_is_read_by_the_stock_builder(which, tmp_path):
    files, splits = archive_files(which)
    archive = write_archive(tmp_path / which.archive, which.folder, files)
    folder, _ = prepare.prepare(which.name, archive, data_dir=tmp_path / "tfds")
    stock = tfds.builder(which.name, data_dir=tmp_path / "tfds")
    assert str(folder) == stock.data_dir
    for split, (images, labels) in splits.items():
        source = tfds.data_source(which.name, split=split, data_dir=tmp_path / "tfds")
        assert len(source) == len(images)
        examples = {example["id"].decode(): example for example in source}
        for i, (image, row) in enumerate(zip(images, labels, strict=True)):
            example = examples[f"{split}_{i:05d}"]
            np.testing.assert_array_equal(example["image"], image)
            assert [example[key] for key in which.label_names] == row.tolist()
    for label, names in which.label_names.items():
        assert tuple(stock.info.features[label].names) == names


def test_archive_and_the_same_images_as_a_folder_give_the_same_data(which, tmp_path):
    """Of CIFAR-100 too: its superclasses follow from the classes."""
    write_folder(tmp_path / "images", whole(which))
    folder = cifar_source.open_source(which, tmp_path / "images")
    files = {file: b"" for records in which.records.values() for file in records}
    for split, records in which.records.items():
        rows = [
            bytes(labels[key] for key in which.label_names) + np.moveaxis(pixels, -1, 0).tobytes()
            for pixels, labels in folder.examples(split)
        ]
        for number, file in enumerate(records):
            files[file] = b"".join(rows[number :: len(records)])
    record = len(which.label_names) + 3072
    sizes = {
        split: {file: len(files[file]) // record for file in records}
        for split, records in which.records.items()
    }
    for label, file in which.label_files.items():
        files[file] = "\n".join(which.label_names[label]).encode()
    archive = write_archive(tmp_path / "archive.tar.gz", which.folder, files)
    again = cifar_source.open_source(dataclasses.replace(which, records=sizes), archive)
    for split in ("train", "test"):
        a, b = (
            sorted((pixels.tobytes(), sorted(labels.items())) for pixels, labels in examples)
            for examples in (folder.examples(split), again.examples(split))
        )
        assert a == b


def test_superclasses_of_cifar100():
    official = [int(label) for label in OFFICIAL_COARSE_LABELS.split()]
    assert [cifar.CIFAR100.labels(i)["coarse_label"] for i in range(100)] == official
    assert [cifar.CIFAR100.labels(i)["label"] for i in range(100)] == list(range(100))
    assert np.bincount(official).tolist() == [5] * 20


@pytest.mark.parametrize("which", [cifar.CIFAR10, cifar.CIFAR100], ids=lambda which: which.name)
def test_facts_agree_with_the_stock_builder(which, tmp_path):
    stock = tfds.builder(which.name, data_dir=tmp_path)
    assert str(tfds_source.set_folder(which, tmp_path)) == stock.data_dir
    for label, names in which.label_names.items():
        assert stock.info.features[label].num_classes == len(names)
    assert stock.info.features["image"].shape == cifar.IMAGE_SHAPE
    assert list(type(stock).url_infos) == [which.url]
    counts = {split: sum(files.values()) for split, files in which.records.items()}
    assert counts == cifar.OFFICIAL_COUNTS


@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "renamed.tar.gz"])
def test_pickles_are_refused(cifar10, tmp_path, name):
    archive = write_archive(tmp_path / name, "cifar-10-batches-py", {"data_batch_1": b"pickle"})
    with pytest.raises(ValueError, match=r"reading a pickle can run any code.*cifar-10-binary.tar"):
        prepare.prepare("cifar10", archive, data_dir=tmp_path / "tfds")


def replaced(content, position, value):
    return content[:position] + bytes([value]) + content[position + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            {"data_batch_3.bin": lambda c: c[:-1]},
            r"data_batch_3.bin has 12,291 bytes \(3 records and 3,072 bytes\), but cifar10 has "
            r"4 records of 3,073 bytes there: get .* again",
        ),
        ({"test_batch.bin": lambda c: c[3073:]}, r"\(4 records\), but cifar10 has 5 records"),
        ({"test_batch.bin": lambda c: c + c}, r"\(10 records\), but cifar10 has 5 records"),
        (
            {"data_batch_5.bin": lambda c: replaced(c, 3073, 10)},
            r"data_batch_5.bin holds label 10, but cifar10 numbers its 10 labels from 0 to 9",
        ),
        (
            {"batches.meta.txt": lambda c: c.replace(b"airplane", b"plane")},
            r"batches.meta.txt does not list the labels of cifar10 in official order .*plane, auto",
        ),
        ({"batches.meta.txt": lambda c: c * 2000}, r"has 122,000 bytes: no list of names"),
        ({"data_batch_2.bin": None}, r"has no file cifar-10-batches-bin/data_batch_2.bin; get "),
    ],
)
def test_damaged_archive(cifar10, tmp_path, damage, message):
    files, _ = archive_files(cifar10)
    for file, change in damage.items():
        content = files.pop(file)
        if change is not None:
            files[file] = change(content)
    archive = write_archive(tmp_path / cifar10.archive, cifar10.folder, files)
    with pytest.raises(ValueError, match=message):
        prepare.prepare("cifar10", archive, data_dir=tmp_path / "tfds")


@pytest.mark.parametrize("kind", ["cut", "flipped bit", "no archive", "empty"])
def test_broken_archive_file(cifar10, tmp_path, kind):
    files, _ = archive_files(cifar10)
    archive = write_archive(tmp_path / cifar10.archive, cifar10.folder, files)
    content = archive.read_bytes()
    broken = {
        "cut": content[: len(content) // 2],
        "flipped bit": replaced(content, len(content) // 2, content[len(content) // 2] ^ 1),
        "no archive": b"<html>404</html>",
        "empty": b"",
    }[kind]
    archive.write_bytes(broken)
    with pytest.raises(ValueError, match=r"tar.gz is damaged or no tar archive .*get cifar-10-bin"):
        prepare.prepare("cifar10", archive, data_dir=tmp_path / "tfds")


def test_archive_of_the_other_set(cifar10, tmp_path):
    other = small(cifar.CIFAR100)
    archive = write_archive(tmp_path / other.archive, other.folder, archive_files(other)[0])
    with pytest.raises(
        ValueError, match="not the binary archive of cifar10: it has no file cifar-10"
    ):
        prepare.prepare("cifar10", archive, data_dir=tmp_path / "tfds")


def test_an_archive_writes_nowhere_and_links_are_not_followed(cifar10, tmp_path):
    files, _ = archive_files(cifar10)
    archive = tmp_path / "deep" / "down" / cifar10.archive
    archive.parent.mkdir(parents=True)
    write_archive(archive, cifar10.folder, files | {"../../escaped": b"x"})
    prepare.prepare("cifar10", archive, data_dir=tmp_path / "deep" / "tfds")
    assert not list(tmp_path.rglob("escaped"))

    del files["test_batch.bin"]
    write_archive(archive, cifar10.folder, files)
    with gzip.open(archive) as old:
        plain = old.read()
    with tarfile.open(fileobj=io.BytesIO(plain)) as old, tarfile.open(archive, "w:gz") as new:
        for member in old:
            new.addfile(member, old.extractfile(member))
        link = tarfile.TarInfo(f"{cifar10.folder}/test_batch.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        new.addfile(link)
    with pytest.raises(ValueError, match=r"has no file cifar-10-batches-bin/test_batch\.bin"):
        prepare.prepare("cifar10", archive, data_dir=tmp_path / "other")


# From an image folder


def test_folder_becomes_a_set_that_load_reads(tmp_path, capsys, monkeypatch):
    images = write_folder(tmp_path / "images", whole(cifar.CIFAR10))
    printed = run(capsys, monkeypatch, "cifar10", images, "--data-dir", tmp_path / "tfds")
    folder = tmp_path / "tfds" / "cifar10" / "3.0.2"
    assert f"cifar10 is ready: 20 train and 10 test images in {folder}\n" in printed
    assert "note: 20 train images, where cifar10 has 50,000: results are not comparable" in printed
    assert "note: 10 test images, where cifar10 has 10,000" in printed
    assert "lossy" not in printed
    assert f"cifar10 --data-dir {tmp_path / 'tfds'}\n" in printed.splitlines(keepends=True)[-1]
    loaded = data.load("cifar10", data_dir=tmp_path / "tfds")
    source = data.load(str(images))
    order = [
        np.lexsort(x.reshape(len(x), -1).T) for x in (loaded.train_images, source.train_images)
    ]
    np.testing.assert_array_equal(loaded.train_images[order[0]], source.train_images[order[1]])
    np.testing.assert_array_equal(loaded.train_labels[order[0]], source.train_labels[order[1]])
    assert sorted(p.name for p in (tmp_path / "tfds").iterdir()) == ["cifar10"]


def test_lossy_files_are_pointed_out(tmp_path, capsys, monkeypatch):
    images = write_folder(tmp_path / "images", whole(cifar.CIFAR10), suffix="jpg")
    printed = run(capsys, monkeypatch, "cifar10", images, "--data-dir", tmp_path / "tfds")
    assert "note: 30 of 30 images come from files of a lossy format (JPEG, WEBP)" in printed


def test_gray_images_become_rgb(tmp_path):
    images = write_folder(tmp_path / "images", whole(cifar.CIFAR10))
    gray = np.random.default_rng(1).integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(gray).save(images / "train" / "cat" / "000.png")
    source = cifar_source.open_source(cifar.CIFAR10, images)
    examples = [pixels for pixels, labels in source.examples("train") if labels["label"] == 3]
    np.testing.assert_array_equal(examples[0], np.stack([gray] * 3, axis=-1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("train/cat", "train/Cats"),
            r"has a class 'Cats' that cifar10 has not \(did you mean 'cat'",
        ),
        (("train/cat", "elsewhere"), r"test has classes that .*train has not: cat"),
    ],
)
def test_wrong_classes(tmp_path, change, message):
    images = write_folder(tmp_path / "images", whole(cifar.CIFAR10))
    (images / change[0]).rename(images / change[1])
    if change[1].startswith("train"):
        (images / "test/cat").rename(images / "test/Cats")
    with pytest.raises(ValueError, match=message):
        prepare.prepare("cifar10", images, data_dir=tmp_path / "tfds")


def test_missing_classes(tmp_path):
    counts = {"train": {"cat": 1, "dog": 1}, "test": {"cat": 1}}
    images = write_folder(tmp_path / "images", counts)
    with pytest.raises(
        ValueError, match=r"no images of 8 of the 10 classes of cifar10: airplane, au"
    ):
        prepare.prepare("cifar10", images, data_dir=tmp_path / "tfds")


def test_wrong_size(tmp_path):
    images = write_folder(tmp_path / "images", whole(cifar.CIFAR10))
    Image.new("RGB", (64, 48)).save(images / "test" / "dog" / "000.png")
    with pytest.raises(ValueError, match=r"dog/000\.png is 64x48, but images of cifar10 are 32x32"):
        prepare.prepare("cifar10", images, data_dir=tmp_path / "tfds")
    assert list((tmp_path / "tfds").iterdir()) == []


# Where it goes


def test_a_prepared_set_is_replaced_only_on_request(tmp_path, capsys, monkeypatch):
    target = tmp_path / "tfds"
    first = write_folder(tmp_path / "first", whole(cifar.CIFAR10))
    second = write_folder(tmp_path / "second", whole(cifar.CIFAR10, train=3))
    prepare.prepare("cifar10", first, data_dir=target)
    message = run(capsys, monkeypatch, "cifar10", second, "--data-dir", target)
    assert (
        message == f"error: {target}/cifar10/3.0.2 is already there: add --overwrite to replace it"
    )

    # A source that turns out damaged half-way leaves the old set untouched.
    (second / "test" / "truck" / "000.png").write_bytes(b"damaged")
    message = run(capsys, monkeypatch, "cifar10", second, "--data-dir", target, "--overwrite")
    assert message.startswith(f"error: {second}/test/truck/000.png cannot be decoded")
    assert len(data.load("cifar10", data_dir=target).train_labels) == 20

    Image.new("RGB", (32, 32)).save(second / "test" / "truck" / "000.png")
    message = run(capsys, monkeypatch, "cifar10", second, "--data-dir", target, "--overwrite")
    assert "cifar10 is ready: 30 train" in message
    assert len(data.load("cifar10", data_dir=target).train_labels) == 30
    assert [p.name for p in target.iterdir()] == ["cifar10"]
    assert [p.name for p in (target / "cifar10").iterdir()] == ["3.0.2"]


def test_interrupted(tmp_path, capsys, monkeypatch):
    images = write_folder(tmp_path / "images", whole(cifar.CIFAR10))

    def interrupt(pixels):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "_png", interrupt)
    message = run(capsys, monkeypatch, "cifar10", images, "--data-dir", tmp_path / "tfds")
    assert message == "interrupted: nothing was written"
    assert list((tmp_path / "tfds").iterdir()) == []


def test_a_data_folder_that_cannot_be_written(tmp_path, capsys, monkeypatch):
    images = write_folder(tmp_path / "images", whole(cifar.CIFAR10))
    (tmp_path / "file").write_text("")
    message = run(capsys, monkeypatch, "cifar10", images, "--data-dir", tmp_path / "file" / "tfds")
    assert message == (
        f"error: data folder {tmp_path}/file/tfds cannot be written (Not a directory): "
        "name another one with --data-dir"
    )


def test_source_is_missing(tmp_path, capsys, monkeypatch):
    message = run(capsys, monkeypatch, "cifar100", tmp_path / "nothing", "--data-dir", tmp_path)
    assert message.startswith(
        f"error: SOURCE {tmp_path}/nothing does not exist: give an image folder"
    )
    assert "cifar-100-binary.tar.gz" in message


@pytest.mark.parametrize(
    ("name", "nearest"), [("CIFAR-10", "cifar10"), ("digits", "cifar10 or cifar100")]
)
def test_unknown_name(tmp_path, capsys, monkeypatch, name, nearest):
    message = run(capsys, monkeypatch, name, tmp_path)
    assert message.startswith(f"error: unknown set '{name}': only cifar10 and cifar100 can be prep")
    assert re.search(rf"did you mean {nearest}( or |\?)", message)


REFUSES_NETWORK = """
import runpy, sys
def refuse(event, _):
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request"):
        sys.exit(f"opened a connection: {event}")
sys.addaudithook(refuse)
sys.argv = ["prepare", *sys.argv[1:]]
runpy.run_module("experiments.prepare", run_name="__main__")
assert "tensorflow" not in sys.modules
"""


def test_command_line_without_network_or_tensorflow(tmp_path):
    images = write_folder(tmp_path / "images", whole(cifar.CIFAR10))

    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", REFUSES_NETWORK, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=REPOSITORY,
            timeout=120,
        )

    good = call("cifar10", images, "--data-dir", tmp_path / "tfds")
    assert good.returncode == 0, good.stderr
    assert "cifar10 is ready: 20 train and 10 test images" in good.stdout
    assert "Downloading" not in good.stdout + good.stderr
    assert "train" in good.stderr  # the progress bars
    bad = call("cifar10", tmp_path / "nothing", "--data-dir", tmp_path / "other")
    assert bad.returncode == 1
    assert bad.stderr.startswith("error: SOURCE")
    assert not (tmp_path / "other").exists()
