from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from hiso_ray.analysis.skew import by_main_group, caption, columns, holdings, shares, who_holds_what
from hiso_ray.federation.partition import skew
from hiso_ray.run_folder.folder import write_partition


def table(counts: list[list[int]], names: str = "") -> pd.DataFrame:
    wide = np.array(counts)
    return pd.DataFrame(wide, columns=list(names) or [f"g{i}" for i in range(wide.shape[1])])


def random_table(clients: int, groups: int) -> pd.DataFrame:
    counts = np.random.default_rng(0).geometric(0.2, (clients, groups)) - 1
    counts[:, 0] += 1
    return table(counts.tolist())


def drawn(figure: Figure) -> tuple[np.ndarray, list[str]]:
    """The map of the picture, (groups, columns), and the names beside its rows."""
    (axes,) = (a for a in figure.axes if a.images and a.get_ylabel() == "group")
    assert axes.images[0].get_clim() == (0, 1)  # pictures of several runs can be compared
    values = axes.images[0].get_array()
    assert values is not None
    return np.asarray(values), [label.get_text() for label in axes.get_yticklabels()]


def sizes_of(figure: Figure) -> np.ndarray:
    (axes,) = (a for a in figure.axes if a.get_ylabel() == "examples")
    if axes.patches:
        return np.array([bar.get_height() for bar in axes.patches])
    return np.asarray(axes.lines[0].get_ydata())


@pytest.mark.parametrize("names", [("0", "1"), ("", "NA"), ("client", "client"), ("a\nb", 'c,"d"')])
def test_reads_back_what_a_run_wrote(names: tuple[str, ...], tmp_path: Path) -> None:
    write_partition(tmp_path / "partition.csv", np.array([[4, 0], [1, 2], [0, 3]]), names)
    found = holdings(tmp_path)
    assert tuple(found.columns) == names
    assert found.to_numpy().tolist() == [[4, 0], [1, 2], [0, 3]]
    assert found.index.tolist() == [0, 1, 2]


def test_a_folder_without_a_partition_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no partition\.csv: is it a run folder"):
        who_holds_what(tmp_path, tmp_path / "p.png")


def test_shares_by_hand() -> None:
    found = shares(table([[3, 1], [0, 2]]))
    assert found.to_numpy().tolist() == [[0.75, 0.25], [0.0, 1.0]]


def test_small_groups_become_one() -> None:
    found = shares(table([[1, 5, 0, 2], [0, 5, 1, 4]], "abcd"), most=2)
    assert list(found.columns) == ["b", "d", "other (2 groups)"]
    assert found.to_numpy().tolist() == [[5 / 8, 2 / 8, 1 / 8], [5 / 10, 4 / 10, 1 / 10]]


def test_clients_stand_by_their_main_group_in_the_order_of_the_rows() -> None:
    counts = table([[0, 4, 0], [1, 3, 0], [9, 0, 0], [0, 1, 4], [0, 0, 9]])
    assert by_main_group(counts).tolist() == [2, 0, 1, 4, 3]
    # Not all shown: then rows are by size, the third group (13 examples), the first, the second.
    assert by_main_group(counts, most=2).tolist() == [4, 3, 2, 0, 1]


def test_a_column_of_many_clients_shows_their_mean() -> None:
    shown = shares(table([[1, 0], [0, 1], [1, 1], [1, 1]]))
    assert columns(shown, most=2).tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert np.array_equal(columns(shown, most=4), shown)


def test_the_caption_is_the_skew_that_the_run_reports() -> None:
    held = random_table(31, 17)
    expected = skew(held.to_numpy())
    line = caption(held)
    assert f"min {expected['min']}, median {expected['median']:g}, max {expected['max']}" in line
    assert f"groups per client: {expected['labels']:.1f} of 17" in line
    assert line.endswith(f"whole: {expected['distance']:.2f}")


@pytest.mark.parametrize(
    ("clients", "groups", "scale"),
    [(1, 1, "linear"), (40, 30, "linear"), (41, 1, "log"), (700, 400, "linear")],
)
def test_the_picture_shows_the_table(clients: int, groups: int, scale: str, tmp_path: Path) -> None:
    held = random_table(clients, groups)
    figure = who_holds_what(held, tmp_path / "p.svg")
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")
    values, names = drawn(figure)
    ordered = held if clients <= 40 else held.iloc[by_main_group(held)]
    assert names == list(shares(ordered).columns)
    assert np.array_equal(values, columns(shares(ordered)).T)
    assert len(values) == min(groups, 13)
    assert values.shape[1] == min(clients, 300)
    sizes = held.sum(axis=1).to_numpy()
    assert np.array_equal(sizes_of(figure), sizes if clients <= 40 else np.sort(sizes)[::-1])
    assert scale in [a.get_yscale() for a in figure.axes if a.get_ylabel() == "examples"]
    assert caption(held) in [text.get_text() for text in figure.texts]


def test_any_name_can_stand_beside_a_row(tmp_path: Path) -> None:
    held = table([[1, 2, 3, 4]]).set_axis(["$x_{", "_hidden", "two\nlines", "long" * 30], axis=1)
    _, names = drawn(who_holds_what(held, tmp_path / "p.png"))
    assert names == [r"\$x_{", "_hidden", "two lines", "longlonglonglonglonglon…"]
