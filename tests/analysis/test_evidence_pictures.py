"""Evidence about H: on runs that were really run, and on rows made up."""

from __future__ import annotations

import csv
import math
import shutil
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_columns import sections

from hiso_ray import Experiment, run
from hiso_ray.analysis import evidence, evidence_pictures, load, study, style
from hiso_ray.analysis.sections import sections as sections_of

SMALL = {
    "task.name": "digits", "task.model": "mlp-8", "federation.num_clients": 12,
    "federation.clients_per_round": 3, "federation.rounds": 4, "eval.every": 2,
    "diagnostics.every": 2, "resources.executor": "serial",
}  # fmt: skip
RUNS = {
    "hiso": {},
    "hiso-again": {},
    "scalar": {"method.curvature": "scalar"},
    "fedavg": {"method.name": "fedavg"},
    "blind": {"diagnostics.every": 0},
}
D = 64 * 8 + 8 + 8 * 10 + 10


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evidence")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hiso_ray.analysis.curves.convergence", lambda *_: None)
        patch.setattr("hiso_ray.analysis.skew.who_holds_what", lambda *_: None)
        for name, changes in RUNS.items():
            run(Experiment().changed(**SMALL).changed(**changes), folder / name)
    return folder


@pytest.fixture(scope="module")
def rows(made: Path) -> pd.DataFrame:
    return evidence.read([made / name for name in RUNS])


def test_the_frame_has_the_numbers_of_the_files_and_whose_they_are(
    made: Path, rows: pd.DataFrame
) -> None:
    measured = [str(made / name) for name in RUNS if name != "blind"]
    assert rows["run"].unique().tolist() == measured
    assert rows["round"].tolist() == [0, 2, 4] * 4
    assert rows["method"].unique().tolist() == ["hiso", "hiso (scalar)", "fedavg"]
    assert set(rows["method.lr"]) == set(rows["lr"]) == {Experiment().method.lr}
    with open(made / "hiso" / "diagnostics.csv", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    mine = rows[rows["run"] == str(made / "hiso")]
    for name in written[0]:
        if name != "h_histogram":
            assert mine[name].fillna(-1).tolist() == [float(row[name] or -1) for row in written]
    assert mine["h_histogram"].tolist() == [row["h_histogram"] for row in written]


def test_every_column_has_its_line_in_the_page(made: Path, rows: pd.DataFrame) -> None:
    with open(made / "hiso" / "diagnostics.csv", encoding="utf-8") as file:
        columns = next(csv.reader(file))
    page = sections()["Diagnostics"]
    assert list(page) == columns
    results = [name for name, kind in page.items() if kind == "result"]
    assert set(page.values()) == {"plan", "result"}
    first, second = (rows[rows["run"] == str(made / n)] for n in ("hiso", "hiso-again"))
    pd.testing.assert_frame_equal(
        first[results].reset_index(drop=True), second[results].reset_index(drop=True),
        check_exact=True,
    )  # fmt: skip


def test_what_the_rows_say_of_themselves(rows: pd.DataFrame) -> None:
    assert set(evidence.dimension(rows)) == {D}
    curved = rows[evidence.has_curvature(rows)]
    assert set(curved["method"]) == {"hiso", "hiso (scalar)"}
    assert set(curved["round"]) == {0, 2, 4}  # also round 0, at which H is 1
    assert set(rows.loc[~evidence.probes(rows), "method"]) == {"fedavg"}


def test_a_torn_line_and_numbers_that_are_none(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "torn"
    shutil.copytree(made / "hiso", folder)
    file = folder / "diagnostics.csv"
    header, zero, two, *_ = file.read_text().splitlines()
    cells = two.split(",")
    cells[header.split(",").index("trace")] = "inf"
    file.write_text("\n".join([header, zero, ",".join(cells), "4,0.1,0.2"]))
    found = evidence.read([folder])
    assert found["round"].tolist() == [0, 2]
    assert math.isnan(found["trace"].iloc[1])
    assert math.isnan(found["h_hessian_pearson"].iloc[0])


def test_a_sweep_kept_as_its_tables_and_diagnostics(made: Path, tmp_path: Path) -> None:
    for name in ("hiso", "fedavg"):
        folder = tmp_path / "s" / "runs" / name
        folder.mkdir(parents=True)
        for file in ("config.yaml", "metrics.csv", "diagnostics.csv"):
            shutil.copy(made / name / file, folder)
    (tmp_path / "s" / "plan.yaml").write_text("name: made-up\n")
    found = evidence.read(evidence.folders(tmp_path))
    assert [Path(run).name for run in found["run"].unique()] == ["fedavg", "hiso"]
    assert evidence.folders(tmp_path / "s") == [tmp_path / "s"]


def test_folders_and_mistakes(made: Path, tmp_path: Path) -> None:
    assert evidence.folders(made) == sorted(made / name for name in RUNS)
    assert evidence.folders(made / "hiso") == [made / "hiso"]
    with pytest.raises(ValueError, match="holds none: give one"):
        evidence.folders(tmp_path)
    with pytest.raises(ValueError, match=r"run them with diagnostics\.every"):
        evidence.read([made / "blind"])
    nothing = evidence.of(load.trials([made / "blind"]))
    assert nothing.empty
    assert evidence_pictures.every(nothing) == []


def row(run: str, seed: int, round_: int, **values: Any) -> dict[str, Any]:
    return {
        "run": run, "cell": "c", "seed": seed, "method": "hiso", "method.lr": 0.1, "lr": 0.1,
        "round": round_, "h_min": 0.5, "h_median": 1.0, "h_max": 2.0, "g_std": 1.0,
        "h_hessian_spearman": 0.5, "h_gradient_spearman": math.nan, "effective_rank": 4.0,
        "whitened_effective_rank": 8.0, "lr_stable_high": 0.5, "h_histogram": "-0.1:3",
    } | values  # fmt: skip


def test_histograms_by_hand() -> None:
    table = pd.DataFrame([row("a", 0, 0, h_histogram="-inf:2 -0.3:5 1.2:1"), row("a", 0, 5)])
    found = evidence.histograms(table)
    assert found["round"].tolist() == [0, 0, 0, 5]
    assert found["low"].tolist() == pytest.approx([-12.1, -0.3, 1.2, -0.1])
    assert found["count"].tolist() == [2, 5, 1, 3]
    assert evidence.dimension(table).tolist() == [8, 3]


def test_the_last_measurement_by_hand() -> None:
    table = pd.DataFrame(
        [
            row("a", 0, 0, h_max=99.0), row("a", 0, 10),
            row("b", 1, 10, h_max=4.0, effective_rank=-1.0, lr_stable_high=0.25), row("b", 1, 5),
        ]
    )  # fmt: skip
    (found,) = evidence.at_end(table).to_dict("records")
    assert found["seeds"] == 2
    assert [found[f"round_{how}"] for how in ("mean", "min", "max")] == [10, 10, 10]
    assert [found[f"h_spread_{how}"] for how in ("mean", "min", "max")] == pytest.approx(
        [32**0.5, 4, 8]  # a ratio: √(4 · 8)
    )
    assert (found["rank_gain_mean"], found["rank_gain_seeds"]) == (2, 1)  # no rank below 0
    assert [found[f"lr_use_{how}"] for how in ("min", "max")] == pytest.approx([0.2, 0.4])
    (cells,) = evidence.cells(evidence.at_end(table)).to_dict("records")
    assert cells["method"] == "HiSo"
    assert cells["max H ÷ min H"] == "5.66 (4–8)"
    assert cells["effective rank, whitened ÷ plain"] == "2, 1 of 2 seeds"
    assert cells["rank correlation with diag ∇²f"] == "0.5"
    assert cells["with (∇f)²"] == "–"


def test_pictures_show_the_rows(made: Path, rows: pd.DataFrame) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pictures = {picture.name: picture for picture in evidence_pictures.every(rows)}
        for picture in pictures.values():
            picture.figure.draw_without_rendering()
    assert list(pictures) == [
        "h-distribution", "h-histogram", "h-correlation", "whitening", "stable-rates",
        "step-alignment", "probe-error", "step-sizes",
    ]  # fmt: skip
    titles = {name: [a.get_title() for a in p.figure.axes] for name, p in pictures.items()}
    assert titles["h-distribution"] == titles["h-histogram"] == ["HiSo", "HiSo (scalar H)"]
    assert titles["stable-rates"] == ["HiSo", "HiSo (scalar H)"]  # FedAvg has no such bound
    assert "H = 1 throughout: FedAvg" in pictures["h-distribution"].caption
    hiso = rows[rows["run"] == str(made / "hiso")]
    median = pictures["h-distribution"].figure.axes[0].lines[0]
    assert median.get_ydata().tolist() == hiso["h_median"].tolist()
    pearson = pictures["h-correlation"].figure.axes[0].lines
    assert len(pearson) == 1  # neither a number for all nor FedAvg has a correlation
    shown = hiso["h_hessian_pearson"].dropna().tolist()
    assert pearson[0].get_ydata().tolist() == pytest.approx(shown)
    first = pictures["probe-error"].figure.axes[0].lines[0]
    assert first.get_ydata().tolist() == pytest.approx((hiso["g_bias"] / hiso["g_std"]).tolist())
    level = pictures["step-alignment"].figure.axes[0].lines[-1].get_ydata()[0]
    assert level == pytest.approx(math.sqrt(Experiment().method.num_perturbations / D))


def test_first_order_methods_alone_have_the_pictures_that_they_have(rows: pd.DataFrame) -> None:
    alone = rows[rows["method"] == "fedavg"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = [picture.name for picture in evidence_pictures.every(alone)]
    assert names == ["whitening", "step-sizes"]


def test_an_axis_that_one_run_would_take_is_cut_and_says_so() -> None:
    norms = {"update_norm": 1.0, "gradient_norm": 1.0}
    means = [1e6 if r == 7 else (-1.0) ** r for r in range(30)]
    table = pd.DataFrame([row("a", 0, r, g_mean=mean, **norms) for r, mean in enumerate(means)])
    panel = evidence_pictures.sizes(table).figure.axes[3]
    assert panel.get_title() == "Mean of g (cut off)"
    assert panel.get_ylim() == (-2.0, 2.0)


def test_seeds_are_a_band() -> None:
    table = pd.DataFrame(
        [row("a", 0, r, update_norm=1.0, gradient_norm=1.0, g_mean=0.0) for r in (0, 5)]
        + [row("b", 1, r, update_norm=3.0, gradient_norm=1.0, g_mean=0.0) for r in (0, 5)]
    )
    axes = evidence_pictures.sizes(table).figure.axes[0]
    (line,) = axes.lines
    assert line.get_ydata().tolist() == [2.0, 2.0]
    assert line.get_color() == style.KNOWN["hiso"].colour
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (1.0, 3.0)


def test_a_report_has_the_evidence_where_there_is_any(made: Path) -> None:
    shown = sections_of(study.read(made / "hiso", made / "blind"), [], [])
    (found,) = [section for section in shown if section.title == "Evidence about H"]
    assert found.notes[0].startswith("Measured in 1 of 2 trials")
    assert [picture.name for picture in found.pictures][:2] == ["h-distribution", "h-histogram"]
    without = sections_of(study.read(made / "blind"), [], [])
    assert "Evidence about H" not in [section.title for section in without]
