"""The figure of signs can be read, and its table holds what is drawn."""

import pytest
from test_figure_layout import assert_readable

from experiments.studies import signs_figure


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("signs")
    signs_figure.main(out)
    return out


def test_figure_is_there_and_readable(folder):
    assert (folder / "signs.png").stat().st_size > 10_000
    curves = signs_figure.curves()
    fig = signs_figure.figure(curves)
    assert_readable(fig)
    lines = sum(len(axes.lines) for axes in fig.axes)
    assert lines == 2 * len(curves)
    assert len((folder / "signs.csv").read_text().splitlines()) == 1 + len(curves) * len(
        signs_figure.GRID
    )
