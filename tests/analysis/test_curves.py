from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hiso_ray import Experiment, run
from hiso_ray.analysis import curves, load, style
from hiso_ray.run_folder.metrics_writer import MetricsFile


def test_the_picture_shows_the_numbers_of_the_table(
    experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    folders = [tmp_path / "decomfl", tmp_path / "hiso"]
    for folder in folders:
        run(experiment(**{"method.name": folder.name}), folder)
    figure = curves.convergence(folders, tmp_path / "c.svg")
    assert (tmp_path / "c.svg").read_text().startswith("<?xml")
    accuracy, against_bytes, loss, _ = figure.axes
    table = load.every_round(folders)
    assert table.groupby("method").size().to_dict() == {"hiso": 7, "decomfl": 7}
    shown = table.dropna(subset=["eval_accuracy"])
    for line, (_, one) in zip(accuracy.lines, shown.groupby("run", sort=False), strict=True):
        assert line.get_xdata().tolist() == one["round"].tolist()
        assert line.get_ydata().tolist() == one["eval_accuracy"].tolist()
    assert against_bytes.lines[0].get_xdata().tolist()[-1] > 0
    assert len(loss.lines) == 4  # test and training, per method
    colours = [line.get_color() for line in accuracy.lines]
    assert colours == [style.KNOWN[name].colour for name in ("decomfl", "hiso")]


def made_up(folder: Path, method: str, minutes: float) -> Path:
    """A run of 100 rounds; ``minutes`` each on the virtual clock."""
    folder.mkdir()
    experiment = Experiment().changed(**{"method.name": method, "task.metric": "accuracy"})
    (folder / "config.yaml").write_text(experiment.to_yaml())
    file = MetricsFile(folder)
    for round_ in range(101):
        fallen = math.exp(-round_ / 30)
        evaluated = round_ % 25 == 0
        file.add(
            {
                "round": round_,
                "train_loss": 0.2 + fallen if round_ else None,
                "eval_loss": 0.1 + fallen if evaluated else None,
                "eval_accuracy": 0.9 - 0.4 * fallen if evaluated else None,
                "uplink_bytes": 100 * round_,
                "downlink_bytes": 900 * round_,
                "simulated_seconds": 60 * minutes * round_,
            }
        )
    file.close()
    return folder


@pytest.mark.parametrize(
    ("minutes", "unit", "last"),
    [(0.005, "s", 30), (0.3, "min", 30), (30, "h", 50)],
)
def test_simulated_time_is_a_third_column(
    tmp_path: Path, minutes: float, unit: str, last: float
) -> None:
    runs = [
        made_up(tmp_path / "clock", "hiso", minutes),
        made_up(tmp_path / "no clock", "decomfl", 0),
    ]
    figure = curves.convergence(runs, tmp_path / "c.svg")
    assert len(figure.axes) == 6
    score, loss = figure.axes[2], figure.axes[5]
    assert loss.get_xlabel() == f"Simulated time ({unit})"
    clocked, other = score.lines
    expected = [last * quarter / 4 for quarter in range(5)]
    assert clocked.get_xdata().tolist() == pytest.approx(expected)
    assert clocked.get_ydata().tolist() == figure.axes[0].lines[0].get_ydata().tolist()
    assert np.isnan(other.get_xdata()).all()


def test_runs_without_a_clock_have_two_columns(tmp_path: Path) -> None:
    run_folder = made_up(tmp_path / "r", "hiso", 0)
    assert len(curves.convergence([run_folder], tmp_path / "c.svg").axes) == 4
    old = run_folder / "metrics.csv"
    pd.read_csv(old).drop(columns="simulated_seconds").to_csv(old, index=False)
    assert len(curves.convergence([run_folder], tmp_path / "c.svg").axes) == 4


def test_a_folder_without_a_round_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no round yet"):
        curves.convergence([tmp_path], tmp_path / "c.png")


def test_a_loss_that_ran_away_is_cut_and_bytes_far_apart_are_logarithmic(tmp_path: Path) -> None:
    folders = [made_up(tmp_path / method, method, 0) for method in ("hiso", "fedavg")]
    figure = curves.every_run(folders)
    loss, against_bytes = figure.axes[2:]
    assert (loss.get_ylabel(), against_bytes.get_xscale()) == ("Loss", "linear")
    file = folders[1] / "metrics.csv"
    table = pd.read_csv(file)
    table["eval_loss"] = table["eval_loss"].where(table["round"] < 50, 1e9)
    table.assign(downlink_bytes=table["downlink_bytes"] * 100).to_csv(file, index=False)
    figure = curves.every_run(folders)
    loss, against_bytes = figure.axes[2:]
    assert (loss.get_ylabel(), against_bytes.get_xscale()) == ("Loss (cut off)", "log")
    assert loss.get_ylim() == pytest.approx((0, 2.5 * 1.1))
