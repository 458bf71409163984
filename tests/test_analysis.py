from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from analysis import curves, load
from hiso_ray import Experiment, run


@pytest.fixture
def folders(experiment: Callable[..., Experiment], tmp_path: Path) -> list[Path]:
    found = []
    for name in ("hiso", "decomfl"):
        found.append(tmp_path / name)
        run(experiment(**{"method.name": name}), found[-1])
    return found


def test_load_puts_runs_under_each_other(folders: list[Path]) -> None:
    table = load.rounds(folders)
    assert table.groupby("method").size().to_dict() == {"hiso": 7, "decomfl": 7}
    last = table[table["method"] == "hiso"].iloc[-1]
    expected = (last["uplink_bytes"] + last["downlink_bytes"]) / 12 / 1024
    assert last["kib_per_client"] == pytest.approx(expected)
    assert load.summaries(folders)["rounds"].tolist() == [6, 6]


def test_the_picture_shows_the_numbers_of_the_table(folders: list[Path], tmp_path: Path) -> None:
    figure = curves.convergence(folders, tmp_path / "c.svg")
    assert (tmp_path / "c.svg").read_text().startswith("<?xml")
    accuracy, against_bytes, loss, _ = figure.axes
    table = load.rounds(folders).dropna(subset=["eval_accuracy"])
    for line, (_, one) in zip(accuracy.lines, table.groupby("run", sort=False), strict=True):
        assert line.get_xdata().tolist() == one["round"].tolist()
        assert line.get_ydata().tolist() == one["eval_accuracy"].tolist()
    assert against_bytes.lines[0].get_xdata().tolist()[-1] > 0
    assert len(loss.lines) == 4  # test and training, per method
    assert len({line.get_color() for line in accuracy.lines}) == 2


def test_a_folder_without_a_round_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no round yet"):
        load.rounds([tmp_path])
