"""The table of docs/reference/networks.md holds what `ovsw.summary` counts."""

import re
from pathlib import Path

import pytest
from flax import nnx

import ovsw_jax as ovsw

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "networks.md").read_text(
    encoding="utf-8"
)
ROWS = re.findall(r"^\| `(\w+)` \| (\d+)x\2 \| (.*) \|$", PAGE, flags=re.MULTILINE)


def test_every_network_of_the_paper_is_in_it():
    assert [row[0] for row in ROWS] == [
        *("CifarResNet20", "CifarResNet18", "VGGSmall", "ResNet18", "ResNet34")
    ]


@pytest.mark.parametrize(("name", "size", "numbers"), ROWS, ids=[row[0] for row in ROWS])
def test_counts(name, size, numbers):
    model = nnx.eval_shape(lambda: getattr(ovsw.models, name)(rngs=nnx.Rngs(0)))
    total = ovsw.summary(model, (1, int(size), int(size), 3)).total
    assert [int(cell.replace(",", "")) for cell in numbers.split("|")] == [
        total.binary_params,
        total.real_params,
        round(total.stored_bytes / 1000),
        round(total.training_bytes / 1000),
        total.binary_macs,
        total.float_macs,
    ]
