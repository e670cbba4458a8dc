"""ImageNet as TFDS's stock builder stores it, with a few images of one colour in place of its own.

Nothing here needs TensorFlow or a network.
"""

import io

import pytest
import tensorflow_datasets as tfds
from PIL import Image
from prepared_sets import with_fault

from experiments import data

VERSION = "5.1.0"
LABELS = {"train": [3, 999, 0, 3, 17, 500], "validation": [17, 0, 999, 3, 3]}


def jpeg(level):
    buffer = io.BytesIO()
    Image.new("RGB", (50, 40), (level, level, level)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def prepare(root, splits=LABELS, damaged=None):
    """Runs the stock builder on images whose gray level is 20 times their number."""

    def records(split):
        for i, label in enumerate(splits[split]):
            name = f"n{label:08d}_{i}.JPEG"
            image = b"no image" if name == damaged else jpeg(20 * i)
            yield name, {"image": image, "label": label, "file_name": name}

    builder = tfds.builder("imagenet2012", data_dir=root)
    builder._split_generators = lambda _: {split: records(split) for split in splits}
    builder.download_and_prepare(
        file_format="array_record",
        download_dir=root / "downloads",
        download_config=tfds.download.DownloadConfig(try_download_gcs=False),
    )
    return root


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("tfds"))


def stream(root, **options):
    return data.load_streamed("imagenet2012", data_dir=root, **({"image_size": 16} | options))


def seen(batches):
    """(number, label) of each image, by its gray level."""
    return [
        (round(float(image.mean()) / 20), int(label))
        for images, labels in batches
        for image, label in zip(images, labels, strict=True)
        if label >= 0
    ]


def test_images_and_labels(prepared):
    imagenet = stream(prepared)
    assert repr(imagenet) == (
        "StreamedDataset('imagenet2012', train (6, 16, 16, 3), test (5, 16, 16, 3), 1000 classes)"
    )
    assert (imagenet.classes[0], imagenet.classes[999]) == ("n01440764", "n15075141")
    assert sorted(seen(imagenet.train_batches(0, 0, 2))) == [*enumerate(LABELS["train"])]
    assert sorted(seen(imagenet.test_batches(2))) == [*enumerate(LABELS["validation"])]
    assert seen(imagenet.test_batches(2)) == seen(imagenet.test_batches(4))


def test_the_default_data_folder(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    assert data.load_streamed("imagenet2012", image_size=16).train_count == 6


def test_held_out_images_are_not_trained_on(prepared, tmp_path):
    """They need no validation images, and say which set it is."""
    # Its labels are not known beforehand, so a subset is drawn without regard to them.
    prepare(tmp_path, {"train": [i % 1000 for i in range(1004)]})
    imagenet = stream(tmp_path, train_images=1000, held_out=3)
    assert (imagenet.train_count, imagenet.test_count, imagenet.notes) == (1000, 3, ())
    trained, tested = imagenet._train.read, imagenet._test.read
    names = {trained(i).name for i in range(1000)}
    assert len(names) == 1000
    assert not names & {tested(i).name for i in range(3)}
    prints, others = imagenet.fingerprints(), stream(prepared).fingerprints()
    assert prints == stream(tmp_path, held_out=2).fingerprints()
    assert len({*prints.values(), *others.values()}) == 3  # held out are training images


def test_not_prepared(tmp_path):
    with pytest.raises(ValueError, match=r"imagenet2012 is not prepared") as caught:
        stream(tmp_path)
    assert str(caught.value) == (
        f"imagenet2012 is not prepared: {tmp_path}/imagenet2012/{VERSION} does not hold it, and "
        "nothing is downloaded. Put ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar "
        "(https://image-net.org/download-images, after registration) into a folder TARS and run, "
        "in an environment that has TensorFlow,\n"
        "    tfds build imagenet2012 --file_format=array_record --manual_dir=TARS "
        f"--data_dir={tmp_path}\n"
        "or name, in place of the data set, an image folder ROOT/{train,val}/CLASS/FILE"
    )


def test_a_format_that_needs_tensorflow(prepared, tmp_path):
    folder = with_fault(prepared, tmp_path, "tfrecord")
    with pytest.raises(
        ValueError,
        match=rf"{VERSION} was prepared as tfrecord, which only TensorFlow can read: convert it "
        rf"(.*\n)+ +tfds convert_format --dataset_version_dir={folder} --out_file_format=array_r",
    ):
        stream(tmp_path)


def test_without_validation_images(tmp_path):
    prepare(tmp_path, {"train": LABELS["train"]})
    with pytest.raises(ValueError, match=r"prepared without the split 'validation': prepare it ag"):
        stream(tmp_path)


def test_a_damaged_image_is_named(tmp_path):
    prepare(tmp_path, damaged="n00000017_4.JPEG")
    imagenet = stream(tmp_path)
    with pytest.raises(
        ValueError,
        match=r"^n00000017_4\.JPEG \(image \d of train in .*5\.1\.0\) cannot be decoded: it is",
    ):
        list(imagenet.train_batches(0, 0, 2))


@pytest.mark.parametrize("fault", ["shard missing", "shard cut", "info cut"])
def test_a_damaged_shard(prepared, tmp_path, fault):
    folder = with_fault(prepared, tmp_path, fault)
    with pytest.raises(ValueError, match=rf"{folder}.* is damaged|is damaged; prepare it again"):
        list(stream(tmp_path).train_batches(0, 0, 2))


def test_an_unlabelled_split_is_not_the_test_split(tmp_path):
    prepare(tmp_path, LABELS | {"test": [-1, -1]})
    assert stream(tmp_path).test_count == 5
    assert sorted(y for _, y in seen(stream(tmp_path).test_batches(5))) == [0, 3, 3, 17, 999]
