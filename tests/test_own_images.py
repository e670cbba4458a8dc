"""Image folders as people have them: with odd files in them, or without a test split."""

import shutil

import numpy as np
import pytest
from image_data import write_folder
from PIL import Image

from experiments import data

WAYS = pytest.mark.parametrize("way", ["in memory", "streamed"])


def load(root, way, **options):
    if way == "in memory":
        return data.load(str(root), **options)
    return data.load_streamed(str(root), image_size=4, workers=1, **options)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pictures"
    write_folder(root, {"train": {"cat": 3, "ant": 2}, "test": {"cat": 1, "ant": 2}})
    return root


# What is left out


def put_heic(folder):
    (folder / "a.HEIC").write_bytes(b"")


def put_nested(folder):
    (folder / "sub").mkdir()
    Image.new("RGB", (6, 4)).save(folder / "sub" / "1.png")


def put_hidden(folder):
    (folder / ".DS_Store").write_bytes(b"")
    Image.new("RGB", (6, 4)).save(folder / ".hidden.png")


@WAYS
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("put", "seen"),
    [
        (put_heic, r"holds \.heic files \(1, such as 'a\.HEIC'\)"),
        (put_nested, r"holds folders \(1, such as 'sub'\)"),
        (put_hidden, r"holds hidden files or folders \(2, such as '\.DS_Store'\)"),
        (lambda folder: None, "is empty"),
    ],
)
def test_a_class_folder_without_an_image(put, seen, split, way, folder):
    shutil.rmtree(folder / split / "cat")
    (folder / split / "cat").mkdir()
    put(folder / split / "cat")
    why = {"train": "is no class", "test": "is not to be tested"}[split]
    message = (
        rf"^{folder}/{split}/cat holds no images \(it {seen}\): add some to that folder itself "
        rf"\(read are \.bmp .* \.webp\), or remove the folder if 'cat' {why}$"
    )
    with pytest.raises(ValueError, match=message):
        load(folder, way)


@WAYS
def test_whatever_is_left_out_is_counted(way, folder):
    assert load(folder, way).notes == ()
    for name in ("train/cat/.DS_Store", "train/ant/Thumbs.db", "train/README", "train/ant/a.Txt"):
        (folder / name).write_bytes(b"")
    for name in ("train/ant/b.txt", "train/loose.png", "overview.png"):
        (folder / name).write_bytes(b"")
    for name in ("train/cat/sub", "train/cat/.ipynb_checkpoints", "val/cat", "extra"):
        (folder / name).mkdir(parents=True)
    (folder / "test" / "cat" / "gone.png").symlink_to("nowhere.png")
    (folder / "test" / "cat" / "itself").symlink_to("itself")
    found = load(folder, way)
    assert (found.train_count, found.test_count) == (5, 3)
    assert found.notes == (
        f"val not used, as {folder}/test is the test split",
        f"left out of {folder}: folders that are no split (1, such as 'extra'), images (1, such as "
        "'overview.png')",
        f"left out of {folder}/train: hidden files or folders (3, such as 'ant/Thumbs.db'), "
        ".txt files (2, such as 'ant/a.Txt'), files without a suffix (1, such as 'README'), "
        "folders in class folders (1, such as 'cat/sub'), images beside class folders (1, such as "
        "'loose.png')",
        f"left out of {folder}/test: broken links or special files (2, such as 'cat/gone.png')",
    )


def test_links_to_images_and_class_folders_are_followed(folder):
    before = data.load(str(folder))
    (folder / "train" / "cat").rename(folder.with_name("cats"))
    (folder / "train" / "cat").symlink_to(folder.with_name("cats"))
    (folder / "test" / "cat" / "000.png").rename(folder.with_name("cat.png"))
    (folder / "test" / "cat" / "000.png").symlink_to(folder.with_name("cat.png"))
    after = data.load(str(folder))
    np.testing.assert_array_equal(after.train_images, before.train_images)
    np.testing.assert_array_equal(after.test_images, before.test_images)
    assert after.notes == ()


@WAYS
def test_a_class_without_test_images_is_fine_and_noted(way, folder):
    shutil.rmtree(folder / "test" / "ant")
    found = load(folder, way)
    assert found.test_count == 1
    assert found.notes == ("1 of 2 classes have no test image: 'ant'",)


@WAYS
def test_a_split_that_is_not_used_is_named_as_one(way, folder):
    shutil.copytree(folder / "test", folder / "val")
    assert load(folder, way).notes == (f"val not used, as {folder / 'test'} is the test split",)


# Without a test split


@WAYS
@pytest.mark.parametrize("flat", [False, True], ids=["train alone", "flat"])
def test_held_out_images_need_no_test_split(flat, way, tmp_path):
    """Every image has a colour of its own: red its class, green its number."""
    names = {"a b": 7, "Zoë": 6, "one": 1}
    root = tmp_path if flat else tmp_path / "train"
    for red, (name, count) in enumerate(names.items()):
        (root / name).mkdir(parents=True)
        for green in range(count):
            Image.new("RGB", (6, 4), (red, green, 0)).save(root / name / f"{green}.png")
    found = load(tmp_path, way, held_out=6)
    assert found.classes == ("Zoë", "a b", "one")
    assert found.notes == ("1 of 3 classes have no test image: 'one'",)  # it is trained on
    if way == "in memory":
        train, test = (
            (found.train_images, found.train_labels),
            (found.test_images, found.test_labels),
        )
        both = [train], [test]
    else:
        both = found.train_batches(0, 0, 1), found.test_batches(1)
    splits = [
        [(*x[0, 0, :2].tolist(), int(y)) for batch in of for x, y in zip(*batch, strict=True)]
        for of in both
    ]
    assert [len(of) for of in splits] == [8, 6]
    number = {red: found.classes.index(name) for red, name in enumerate(names)}
    assert sorted(splits[0] + splits[1]) == [
        (red, green, number[red])
        for red, count in enumerate(names.values())
        for green in range(count)
    ]
    assert np.bincount([label for *_, label in splits[1]]).tolist() == [3, 3]


@WAYS
def test_with_held_out_images_a_test_split_is_not_looked_at(way, folder):
    before = load(folder, way, held_out=2)
    assert (before.train_count, before.test_count, before.notes) == (3, 2, ())
    shutil.rmtree(folder / "test" / "cat")
    (folder / "test" / "other").mkdir()
    (folder / "test" / "ant" / "000.png").write_bytes(b"damaged")
    after = load(folder, way, held_out=2)
    assert after.notes == ()
    assert after.fingerprints() == before.fingerprints()


@WAYS
def test_a_training_set_alone_says_what_it_needs(way, folder):
    shutil.rmtree(folder / "test")
    with pytest.raises(ValueError, match=r"has no folder 'test' .*train --held-out N, which tests"):
        load(folder, way)
    with pytest.raises(ValueError, match=r"train is laid out as ROOT/CLASS/FILE.* --held-out N, w"):
        load(folder / "train", way)
    with pytest.raises(ValueError, match=r"^held_out=4 leaves 1 of the 5 .* hold out at most 3$"):
        load(folder, way, held_out=4)


@WAYS
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train", r"train holds no images \(.*; if 'train' is a class itself, give its folder an"),
        ("Test", r"has a folder 'Test' but none named 'train', so .* class as well as a split: r"),
        ("val", r"has a folder 'val' but none named 'train'"),
    ],
)
def test_a_class_named_as_a_split(name, message, way, tmp_path):
    write_folder(tmp_path, {".": {"dog": 2, name: 2}})
    with pytest.raises(ValueError, match=message):
        load(tmp_path, way, held_out=1)
