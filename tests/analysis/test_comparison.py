from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_up_outcomes import write
from made_up_trials import trial

from hiso_ray.analysis import comparison, tables
from hiso_ray.analysis.forest import forest

RIGHT, HALF = [1] * 40, [1, 0] * 20


def study(
    tmp_path: Path, runs: dict[tuple[str, int], list[float] | None], **changed: Any
) -> pd.DataFrame:
    """Trials from {(method, seed): right or wrong by example}; None: it failed."""
    rows = []
    for (method, seed), right in runs.items():
        row = trial(method, 0.1, seed, None if right is None else sum(right) / len(right))
        folder = tmp_path / f"{method}-{seed}"
        if right is not None:
            write(folder, right, **changed)
        rows.append(row | {"run": str(folder)})
    return pd.DataFrame(rows)


def test_a_method_against_the_baseline_by_hand(tmp_path: Path) -> None:
    trials = study(tmp_path, {("decomfl", 0): HALF, ("hiso", 0): RIGHT})
    table = comparison.compared(trials, "decomfl", ["federation.alpha"])
    (row,) = table.to_dict("records")
    assert (row["federation.alpha"], row["one"], row["other"]) == (1.0, "hiso", "decomfl")
    assert (row["metric"], row["seeds"], row["examples"], row["why"]) == ("accuracy", 1, 40, "")
    assert (row["one_score"], row["other_score"], row["score_difference"]) == (1, 0.5, 0.5)
    assert (row["only_one"], row["only_other"]) == (20, 0)
    assert row["p"] == pytest.approx(2 / 2**20)
    assert row["loss_difference"] == -0.5  # made up as 1 − accuracy
    # s of twenty halves: √(0.25 · 40/39); over √40
    half = 2.0227 * 0.0791
    assert row["score_low"] == pytest.approx(0.5 - half, rel=0.03)
    assert comparison.sentences(table) == [
        f"At α = 1: HiSo is better than DeComFL: +50.0 points "
        f"[{100 * row['score_low']:.1f}, {100 * row['score_high']:.1f}]."
    ]
    assert comparison.cells(table)["right alone"].tolist() == ["20 : 0"]
    assert row["runs"] == [str(tmp_path / "hiso-0"), str(tmp_path / "decomfl-0")]
    assert "hiso-0" in pd.read_csv(io.StringIO(tables.csv(table)))["runs"][0]


def test_what_cannot_be_told_apart_says_what_could_have_been(tmp_path: Path) -> None:
    swapped = [0, 1] * 2 + HALF[4:]
    trials = study(tmp_path, {("decomfl", 0): HALF, ("hiso", 0): swapped})
    table = comparison.compared(trials, "decomfl")
    (said,) = comparison.sentences(table)
    # s² = 4 ÷ 40 · 40/39, over 40: 0.0506; 2.0227 and 0.8514 of it more
    found = float(table["score_detectable"].item())
    assert found == pytest.approx((2.0227 + 0.8514) * 0.0506, rel=0.04)
    assert said.startswith("HiSo and DeComFL cannot be told apart: +0.0 points [−1")
    assert said.endswith(f"; a difference of {100 * found:.1f} points would have been found.")
    assert table["p"].tolist() == [1.0]


def test_several_seeds_have_no_mcnemar(tmp_path: Path) -> None:
    runs = {(m, s): HALF if m == "decomfl" else RIGHT for m in ("hiso", "decomfl") for s in (0, 1)}
    table = comparison.compared(study(tmp_path, runs), "decomfl")
    assert table["seeds"].tolist() == [2]
    assert table["p"].isna().all()
    assert "McNemar p" not in comparison.cells(table)


def test_identical_runs_and_one_example(tmp_path: Path) -> None:
    trials = study(tmp_path / "a", {("decomfl", 0): HALF, ("hiso", 0): HALF})
    assert comparison.sentences(comparison.compared(trials, "decomfl")) == [
        "HiSo and DeComFL have the same score on every example."
    ]
    trials = study(tmp_path / "b", {("decomfl", 0): [1], ("hiso", 0): [0]})
    table = comparison.compared(trials, "decomfl")
    assert comparison.sentences(table) == ["HiSo and DeComFL: of 1 example nothing follows."]
    assert comparison.cells(table)["difference (points)"].tolist() == ["−100.0"]
    assert len(forest(table).axes) == 2  # a point without an interval


def test_all_seeds_or_none(tmp_path: Path) -> None:
    runs = {("decomfl", 0): HALF, ("decomfl", 1): HALF, ("hiso", 0): RIGHT, ("hiso", 1): None}
    trials = study(tmp_path, runs)
    trials["error_kind"] = trials["error_kind"].replace("TurnFailed", "NonFiniteLoss")
    table = comparison.compared(trials, "decomfl")
    assert table["why"].tolist() == ["HiSo: 1 diverged of 2"]
    assert table["score_difference"].isna().all()
    with pytest.raises(ValueError, match="no pair was compared"):
        forest(table)
    fewer = comparison.compared(trials[:3], "decomfl")
    assert fewer["why"].tolist() == ["they were run with other seeds (0 and 0, 1)"]


def test_what_was_not_scored_alike_says_why(tmp_path: Path) -> None:
    trials = study(tmp_path, {("decomfl", 0): HALF, ("hiso", 0): RIGHT, ("mezo", 0): RIGHT})
    write(tmp_path / "hiso-0", RIGHT, evaluation="another")
    (tmp_path / "mezo-0" / "outcomes.parquet").unlink()
    write(tmp_path / "fedavg-0", RIGHT, round_=20)
    trials = pd.concat([trials, trials[:1].assign(method="fedavg", run=str(tmp_path / "fedavg-0"))])
    table = comparison.compared(trials, "decomfl")
    assert "fedavg-0 are of round 20, the run ended with 30" in table["why"][2]
    assert "scored on other evaluation data" in table["why"][0]
    assert table["why"][1].startswith("1 of 2 runs have no outcomes.parquet (`hiso-ray replay")
    assert comparison.sentences(table)[1].startswith("1 pair was not compared: 1 of 2 runs have")
    assert comparison.cells(table)["score"].tolist() == ["–"] * 3
    with pytest.raises(ValueError, match="no trial of 'fedzo'; there are decomfl, hiso, mezo"):
        comparison.compared(trials, "fedzo")


def test_run_by_run(tmp_path: Path) -> None:
    trials = study(tmp_path, {("hiso", 3): RIGHT, ("hiso", 4): HALF, ("hiso", 5): RIGHT})
    table = comparison.run_by_run(trials)
    assert table[["one", "other"]].to_numpy().tolist() == [
        ["hiso-4", "hiso-3"], ["hiso-5", "hiso-3"],
    ]  # fmt: skip
    assert table["score_difference"].tolist() == [-0.5, 0]
    assert table["seeds"].tolist() == [1, 1]


def test_the_picture_has_a_line_per_comparison(tmp_path: Path) -> None:
    runs = {("decomfl", 0): HALF, ("hiso", 0): RIGHT, ("mezo", 0): [0] * 40}
    figure = forest(comparison.compared(study(tmp_path, runs), "decomfl"))
    score, loss = figure.axes
    assert score.get_xlabel() == "Difference of accuracy (points)"
    assert loss.get_xlabel() == "Difference of test loss"
    assert [text.get_text() for text in score.get_yticklabels()] == ["HiSo", "MeZO"]
    points = [line.get_xdata() for line in score.lines if len(line.get_xdata()) == 1]
    assert points == [[50], [-50]]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:2] == ["HiSo − DeComFL", "MeZO − DeComFL"]
