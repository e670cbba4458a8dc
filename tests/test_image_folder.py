import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_data import write_folder
from PIL import Image

from experiments import data
from experiments.data import image_file

TWO_CLASSES = {"train": {"cat": 3, "ant": 2}, "test": {"cat": 1, "ant": 2}}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pictures"
    write_folder(root, TWO_CLASSES)
    return root


def test_image_folder(tmp_path):
    written = write_folder(tmp_path, TWO_CLASSES)
    loaded = data.load(str(tmp_path))
    assert loaded.name == str(tmp_path)
    assert loaded.classes == ("ant", "cat")
    np.testing.assert_array_equal(loaded.train_labels, [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(loaded.test_labels, [0, 0, 1])
    for split, images in (("train", loaded.train_images), ("test", loaded.test_images)):
        expected = np.concatenate([written[split]["ant"], written[split]["cat"]])
        np.testing.assert_array_equal(images, expected)
    np.testing.assert_allclose(loaded.mean, (loaded.train_images / 255).mean((0, 1, 2)), rtol=1e-6)


@pytest.mark.parametrize("suffix", [*sorted(image_file.SUFFIXES), ".PNG", ".JPG"])
def test_every_suffix_is_read(folder, suffix):
    pixels = np.full((4, 6, 3), 200, np.uint8)
    pixels[:, 3:] = 90
    if suffix == ".pgm":
        pixels[:] = 120
    file = folder / "train" / "cat" / f"zebra{suffix}"
    options = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(pixels[..., 0] if suffix == ".pgm" else pixels).save(file, **options)
    loaded = data.load(str(folder))
    assert len(loaded.train_images) == 6
    tolerance = 40 if suffix.lower() in image_file.LOSSY_SUFFIXES - {".webp"} else 0
    np.testing.assert_allclose(loaded.train_images[-1].astype(int), pixels, atol=tolerance)


def test_a_gray_folder_has_one_channel(tmp_path):
    written = write_folder(tmp_path, TWO_CLASSES, mode="L")
    loaded = data.load(str(tmp_path))
    np.testing.assert_array_equal(loaded.train_images[:2, ..., 0], written["train"]["ant"])
    assert loaded.train_images.shape[-1] == loaded.test_images.shape[-1] == 1
    assert loaded.mean.shape == (1,)


@pytest.mark.parametrize("file", ["train/ant/000.png", "train/cat/002.png", "test/cat/000.png"])
def test_one_image_in_colour_makes_all_rgb(tmp_path, file):
    written = write_folder(tmp_path, TWO_CLASSES, mode="L")
    colour = np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(colour).save(tmp_path / file)
    loaded = data.load(str(tmp_path))
    images = {"train": loaded.train_images, "test": loaded.test_images}
    assert images["train"].shape == (5, 4, 6, 3)
    assert images["test"].shape == (3, 4, 6, 3)
    gray = written["train"]["ant"][1]
    np.testing.assert_array_equal(images["train"][1], np.stack([gray] * 3, axis=-1))
    index = {"train/ant/000.png": 0, "train/cat/002.png": 4, "test/cat/000.png": 2}[file]
    np.testing.assert_array_equal(images[file.split("/")[0]][index], colour)


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGBA", 3), ("CMYK", 3)]
)
def test_modes_become_gray_or_rgb(tmp_path, mode, channels):
    image = Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    pixels = image_file.decode(path)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.full((4, 6, channels), 255))


def test_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.full((4, 6), 1000, np.uint16)).save(tmp_path / "deep.png")
    for decode in (image_file.decode, lambda path: image_file.decode_centre(path, None, 4, 4)):
        with pytest.raises(ValueError, match=r"deep\.png has more than 8 bits .*convert it"):
            decode(tmp_path / "deep.png")


def flatten(split):
    for file in split.glob("*/*"):
        file.rename(split / f"{file.parent.name}{file.name}")


WRONG = {
    r"pictures has no folder 'train' \(it holds: .*elsewhere.*\); an image ": lambda root: (
        root / "train"
    ).rename(root / "elsewhere"),
    r"pictures has no folder 'test' \(it holds: .*elsewhere.*\); an image ": lambda root: (
        root / "test"
    ).rename(root / "elsewhere"),
    r"test holds no images: read are \.bmp .*ROOT/\{train": lambda root: (
        [file.unlink() for file in (root / "test").rglob("*.png")]
    ),
    r"no images \(image files must lie in class folders; if": lambda root: flatten(root / "test"),
    r"train holds one class only \('cat'\).* at least two": lambda root: shutil.rmtree(
        root / "train" / "ant"
    ),
    r"test has classes that .*train has not: bee; rename or": lambda root: (
        root / "test" / "ant"
    ).rename(root / "test" / "bee"),
}


@pytest.mark.parametrize("message", WRONG)
def test_folders_that_are_no_data_set(folder, message):
    WRONG[message](folder)
    with pytest.raises(ValueError, match=message):
        data.load(str(folder))


@pytest.mark.parametrize("file", ["train/cat/001.png", "test/cat/000.png"])
def test_mixed_sizes_name_two_files(folder, file):
    Image.new("RGB", (7, 4)).save(folder / file)
    with pytest.raises(ValueError, match=rf"train/ant/000\.png is 6x4 and .*{file} is 7x4: resize"):
        data.load(str(folder))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_an_animation_is_no_image(suffix, tmp_path):
    frames = [Image.new("RGB", (6, 4), (90 * i, 0, 0)) for i in range(3)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    for decode in (image_file.decode, lambda path: image_file.decode_centre(path, None, 4, 4)):
        with pytest.raises(ValueError, match=rf"a\.{suffix} holds several images, .*: save the"):
            decode(tmp_path / f"a.{suffix}")


def test_a_photograph_with_a_preview_is_one_image(tmp_path):
    photograph, preview = Image.new("RGB", (8, 8), (200, 60, 30)), Image.new("RGB", (4, 4))
    photograph.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview])
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.n_frames == 2
    np.testing.assert_allclose(image_file.decode(tmp_path / "a.jpg")[0, 0], [200, 60, 30], atol=3)


def test_images_that_exif_would_turn_are_counted_and_read_as_they_are(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    for name, orientation in (("train/ant/000", 6), ("test/cat/000", 2), ("train/cat/001", 1)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(folder / f"{name}.png", exif=exif)
    loaded = data.load(str(folder))
    np.testing.assert_array_equal(loaded.train_images[0], pixels)
    assert loaded.notes == (
        "EXIF asks that 2 of 8 images be turned or mirrored to be seen upright, such as "
        f"{folder}/train/ant/000.png; they are read as they are stored",
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    share=st.floats(0, 1, exclude_max=True), suffix=st.sampled_from(["png", "jpg", "bmp", "webp"])
)
def test_a_file_cut_anywhere_is_named(tmp_path, share, suffix):
    path = tmp_path / f"cut.{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    content = path.read_bytes()
    # Behind the last pixel lie checksums and end marks, without which the image is complete.
    end = content.rindex(b"IEND") - 12 if suffix == "png" else len(content) - 2
    path.write_bytes(content[: int(share * end)])
    with pytest.raises(ValueError, match=rf"cut\.{suffix} cannot be decoded: it is damaged"):
        image_file.decode(path)
