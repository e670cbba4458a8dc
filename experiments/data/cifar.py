"""What CIFAR-10 and CIFAR-100 are made of: classes, superclasses, counts, the official archives.

Labels are numbered in alphabetical order.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, and the data
sets' page, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import dataclasses

IMAGE_SHAPE = (32, 32, 3)  # height, width, channels
OFFICIAL_COUNTS = {"train": 50_000, "test": 10_000}  # of both sets

_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"

# Superclass ("coarse label") -> its five classes ("fine labels").
SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
_SUPERCLASS_OF = {name: group for group, names in SUPERCLASSES.items() for name in names.split()}


@dataclasses.dataclass(frozen=True)
class Cifar:
    """One of the two sets.

    Attributes:
      name: its name in TensorFlow Datasets.
      label_names: for each label of an example its names in official order, in the order in which
        the labels begin a record of the binary archive.
      archive: file name of the official binary archive.
      folder: the folder inside the archive.
      records: for each split the archive's files and the number of records in each.
      label_files: for each label the archive's file that lists its names.
      python_archive: the archive that the project refuses, because reading pickle runs code.
    """

    name: str
    label_names: dict[str, tuple[str, ...]]
    archive: str
    folder: str
    records: dict[str, dict[str, int]]
    label_files: dict[str, str]
    python_archive: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in official order."""
        return self.label_names["label"]

    @property
    def url(self) -> str:
        return f"https://www.cs.toronto.edu/~kriz/{self.archive}"

    def labels(self, label: int) -> dict[str, int]:
        """All labels of an example of class `label`: the superclass follows from the class."""
        if "coarse_label" not in self.label_names:
            return {"label": label}
        superclass = _SUPERCLASS_OF[self.classes[label]]
        return {
            "coarse_label": self.label_names["coarse_label"].index(superclass),
            "label": label,
        }


CIFAR10 = Cifar(
    name="cifar10",
    label_names={"label": tuple(_CIFAR10.split())},
    archive="cifar-10-binary.tar.gz",
    folder="cifar-10-batches-bin",
    records={
        "train": {f"data_batch_{i}.bin": 10_000 for i in range(1, 6)},
        "test": {"test_batch.bin": 10_000},
    },
    label_files={"label": "batches.meta.txt"},
    python_archive="cifar-10-python.tar.gz",
)
CIFAR100 = Cifar(
    name="cifar100",
    label_names={
        "coarse_label": tuple(sorted(SUPERCLASSES)),
        "label": tuple(sorted(_SUPERCLASS_OF)),
    },
    archive="cifar-100-binary.tar.gz",
    folder="cifar-100-binary",
    records={"train": {"train.bin": 50_000}, "test": {"test.bin": 10_000}},
    label_files={"coarse_label": "coarse_label_names.txt", "label": "fine_label_names.txt"},
    python_archive="cifar-100-python.tar.gz",
)
BY_NAME = {data.name: data for data in (CIFAR10, CIFAR100)}
