import dataclasses
import gzip
import io
import lzma
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments import prepare
from experiments.data import cifar, tfds_source

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


def prepare_archive(which, tmp_path, files):
    archive = write_archive(tmp_path / which.archive, which.folder, files)
    return prepare.prepare(which.name, archive, data_dir=tmp_path / "tfds")


def test_archive_is_read_by_the_stock_builder(which, tmp_path):
    files, splits = archive_files(which)
    folder, _ = prepare_archive(which, tmp_path, files)
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


def test_superclasses_of_cifar100():
    official = [int(label) for label in OFFICIAL_COARSE_LABELS.split()]
    assert [cifar.CIFAR100.labels(i)["coarse_label"] for i in range(100)] == official
    assert [cifar.CIFAR100.labels(i)["label"] for i in range(100)] == list(range(100))
    assert np.bincount(official).tolist() == [5] * 20


@pytest.mark.parametrize("which", [cifar.CIFAR10, cifar.CIFAR100], ids=lambda which: which.name)
def test_facts_agree_with_the_stock_builder(which, tmp_path):
    stock = tfds.builder(which.name, data_dir=tmp_path)
    assert str(tfds_source.set_folder(which.name, tmp_path)) == stock.data_dir
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
    with pytest.raises(ValueError, match=message):
        prepare_archive(cifar10, tmp_path, files)


@pytest.mark.parametrize("kind", ["cut", "flipped bit", "no archive", "empty", "damaged xz"])
def test_broken_archive_file(cifar10, tmp_path, kind):
    files, _ = archive_files(cifar10)
    archive = write_archive(tmp_path / cifar10.archive, cifar10.folder, files)
    content = archive.read_bytes()
    broken = {
        "cut": content[: len(content) // 2],
        "flipped bit": replaced(content, len(content) // 2, content[len(content) // 2] ^ 1),
        "no archive": b"<html>404</html>",
        "empty": b"",
        "damaged xz": lzma.compress(gzip.decompress(content))[:-40] + bytes(40),
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
