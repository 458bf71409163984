"""The report: on a sweep that was really run, on made-up studies, and on what it cannot read."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from made_up_outcomes import write

from hiso_ray import Experiment
from hiso_ray.analysis import load, pictures, report, store, study
from hiso_ray.cli import main

IMAGES = re.compile(r'src="data:image/png;base64,([^"]+)"')
TABLES = ("scores", "learning-rates", "thresholds", "speedups", "communication", "trials")


def row(method: str, lr: float, seed: int, scores: list[float], **fields: Any) -> dict[str, Any]:
    """A trial and its scores at rounds 0, 10, 20, …; without scores it failed."""
    base = {"task.name": "digits", "task.model": "mlp-8", "federation.rounds": 20, "eval.every": 10}
    values = base | {"method.name": method, "method.lr": lr, "seed": seed} | fields
    experiment = Experiment().changed(**values)
    summary = {
        "rounds": 20, "metric": "accuracy", "final_score": scores[-1], "best_score": max(scores),
        "uplink_bytes": 4000, "downlink_bytes": 8000, "paper_bytes_per_client": 800,
        "initial_model_bytes_per_client": 2048, "ray_bytes": 0,
    } if scores else None  # fmt: skip
    trial = load.trial_row(experiment.model_dump(), summary)
    run = f"runs/{method}-{lr:g}-{seed}-{trial['cell']}"
    status, error = ("finished", None) if scores else ("failed", "Traceback\n<loss> & non-finite")
    how = {"status": status, "error": error, "error_kind": None if scores else "NonFiniteLoss"}
    return {"run": run, **how, **trial, "scores": scores}


def sweep(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A sweep folder with the two tables only, as a study is committed."""
    folder.mkdir()
    (folder / "plan.yaml").write_text("name: made-up\n")
    rounds = [
        {"run": r["run"], "cell": r["cell"], "seed": r["seed"], "method": r["method"],
         "metric": "accuracy", "score": score, "round": 10 * i, "eval_loss": 1 - score,
         "kib_per_client": 2.0 * i, "forward_passes": 100 * i, "simulated_seconds": 0.0,
         "seconds": 1.0 * i}
        for r in rows for i, score in enumerate(r["scores"])
    ]  # fmt: skip
    trials = load.as_trials([{k: v for k, v in r.items() if k != "scores"} for r in rows])
    store.write(folder / "trials.parquet", trials)
    store.write(folder / "rounds.parquet", load.one_type(pd.DataFrame(rounds)))
    return folder


def page(out: Path) -> str:
    return (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_sweep_gives_everything(stress_sweep: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "scores.md").write_text("old")
    made = report.write([stress_sweep], out)
    assert made.warnings == []
    assert {file.name for file in made.files} | {"notes.txt"} == {f.name for f in out.iterdir()}
    assert (out / "notes.txt").read_text() == "mine"
    for table in TABLES:
        assert (out / f"{table}.md").read_text().startswith("|")
        assert r"\toprule" in (out / f"{table}.tex").read_text()
        runs = pd.read_csv(out / f"{table}.csv")["runs"]
        assert all(Path(run).is_dir() for cell in runs for run in cell.split(";"))
    pictures = [file for file in made.files if file.suffix == ".png"]
    assert {"score-map", "score-against-round", "score-against-rate"} <= {p.stem for p in pictures}
    assert all(file.with_suffix(".pdf").read_bytes()[:4] == b"%PDF" for file in pictures)
    html = page(out)
    embedded = [base64.b64decode(text) for text in IMAGES.findall(html)]
    assert sorted(embedded) == sorted(file.read_bytes() for file in pictures)
    assert len(embedded) == html.count("<img") == html.count("<figcaption") > 4
    rest = IMAGES.sub("", html)
    assert not re.search(r"https?://|<script|<link|@import|url\(|srcset", rest)
    assert "32: 32 finished" in html
    assert "rates tried" in html
    assert "a better one may lie beyond" in html


def test_the_same_study_gives_the_same_report(tmp_path: Path) -> None:
    made_up = sweep(tmp_path / "s", compared())
    for name in ("a", "b"):
        report.write([made_up], tmp_path / name)
    files = sorted(file.name for file in (tmp_path / "a").iterdir())
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def compared(**fields: Any) -> list[dict[str, Any]]:
    return [
        row(method, 0.1, seed, [0.1, first, 0.8 + seed / 100], **fields)
        for method, first in (("hiso", 0.75), ("decomfl", 0.5))
        for seed in (0, 1)
    ]


def test_thresholds_and_speedups(tmp_path: Path) -> None:
    made_up = sweep(tmp_path / "s", compared())
    # Between the initial 0.1 and the best 0.81: 0.2, 0.3, …, 0.8; of these, three.
    assert study.read(made_up).thresholds() == [0.4, 0.6, 0.8]
    report.write([made_up], tmp_path / "r", [0.7, 0.9])
    ratios = pd.read_csv(tmp_path / "r" / "speedups.csv")
    assert ratios["threshold"].tolist() == [0.7, 0.9]
    assert ratios["speedup_mean"].tolist()[0] == 2.0
    assert ratios["bound"].tolist() == ["=", "neither"]
    reached = (tmp_path / "r" / "thresholds.md").read_text()
    assert "not reached" in reached


def test_an_unfair_comparison_is_shown_and_said(tmp_path: Path) -> None:
    rows = [*compared(), row("hiso", 0.2, 0, [0.1, 0.2, 0.3])]
    made = report.write([sweep(tmp_path / "s", rows)], tmp_path / "r")
    (warning,) = made.warnings
    assert "the grids of method.lr differ" in warning
    assert warning.replace('"', "&#34;") in page(tmp_path / "r")
    assert (tmp_path / "r" / "scores.csv").exists()


def test_what_cannot_be_compared_is_listed(tmp_path: Path) -> None:
    rows = [*compared()[:2], *compared(**{"federation.alpha": 0.1})[2:]]
    made = report.write([sweep(tmp_path / "s", rows)], tmp_path / "r")
    assert "trials differ in federation.alpha" in made.warnings[0]
    assert [file.name for file in made.files] == [
        "trials.md", "trials.tex", "trials.csv", "report.html",
    ]  # fmt: skip
    assert len(pd.read_csv(tmp_path / "r" / "trials.csv")) == 4


def test_failures_are_named_and_escaped(tmp_path: Path) -> None:
    rows = [*compared()[:3], row("decomfl", 0.1, 1, [])]
    report.write([sweep(tmp_path / "s", rows)], tmp_path / "r")
    html = page(tmp_path / "r")
    assert "&lt;loss&gt; &amp; non-finite" in html
    assert "4: 3 finished, 1 failed" in html
    assert "1 of 2 seeds did not finish" in html


def test_methods_on_the_same_examples(tmp_path: Path) -> None:
    rows = compared()
    made_up = sweep(tmp_path / "s", rows)
    report.write([made_up], tmp_path / "before")
    said = "1 pair was not compared: 4 of 4 runs have no outcomes.parquet"
    assert said in page(tmp_path / "before")
    for r in rows:
        right = [1] * 30 + [r["method"] == "hiso"] * 10
        write(made_up / r["run"], right, round_=20)
    made = report.write([made_up], tmp_path / "r")
    html = page(tmp_path / "r")
    assert "<h2>On the same 40 examples</h2>" in html
    assert "HiSo is better than DeComFL: +25.0 points [" in html
    assert {"differences.png", "differences.csv"} <= {file.name for file in made.files}
    assert "chosen by the score on these same examples" not in html  # there was one rate
    write(made_up / rows[0]["run"], [1] * 40, evaluation="another", round_=20)
    report.write([made_up], tmp_path / "other")
    assert "were scored on other evaluation data" in page(tmp_path / "other")


def test_trials_of_one_method_on_the_same_examples(tmp_path: Path) -> None:
    rows = compared()[:2]
    made_up = sweep(tmp_path / "s", rows)
    for r in rows:
        write(made_up / r["run"], [1, 0, 1, 1], round_=20)
    report.write([made_up], tmp_path / "r")
    assert "have the same score on every example" in page(tmp_path / "r")


@pytest.mark.slow
def test_fields_that_vary_one_at_a_time_have_a_picture_each(probe_sweep: Path) -> None:
    found = study.read(probe_sweep)
    assert not found.unfair
    assert [view.label for view in found.views] == [
        "μ = 0.001, P = 5", "τ = 1, P = 5", "τ = 1, μ = 0.001",
    ]  # fmt: skip
    shown = [len(view.of(found.trials)) for view in found.views]
    assert shown == [6, 6, 6]


@pytest.mark.slow
def test_run_folders_have_their_curves(stress_sweep: Path, tmp_path: Path) -> None:
    trials = load.trials([stress_sweep])
    one = trials[
        (trials["federation.alpha"] == 100) & (trials["federation.num_clients"] == 16)
        & (trials["method.lr"] == 0.02)
    ]  # fmt: skip
    single = one[one["seed"] == 0]["run"].tolist()
    alone = {file.stem for file in report.write(single, tmp_path / "a").files}
    assert "every-run" in alone
    assert "score-against-round" not in alone  # a band of one seed would repeat it
    several = {file.stem for file in report.write(one["run"].tolist(), tmp_path / "b").files}
    assert {"every-run", "score-against-round"} <= several
    assert "learning-rates" not in several
    assert "rates tried" not in (tmp_path / "b" / "scores.md").read_text()


def test_the_rate_is_drawn_if_a_run_changes_it(tmp_path: Path) -> None:
    made_up = sweep(tmp_path / "s", compared())
    assert pictures.schedules(study.read(made_up)) == []  # of an older table, without the column
    rounds = store.read(made_up / "rounds.parquet")
    for last, drawn in ((0.1, 0), (0.05, 1)):
        rates = rounds["round"].map({10: 0.1, 20: last})  # missing at round 0
        store.write(made_up / "rounds.parquet", rounds.assign(lr=rates))
        assert len(pictures.schedules(study.read(made_up))) == drawn


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(tmp_path / "s", compared())
    monkeypatch.chdir(tmp_path)
    assert main(["report", "s"]) == 0
    told = capsys.readouterr().out
    assert "80.5 % (80.0–81.0)" in told
    assert "report.html in report" in told
    assert (tmp_path / "report" / "report.html").exists()


def newer(folder: Path) -> None:
    file = folder / "trials.parquet"
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({store.KEY: b"99"}), file)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["."], ["neither a run folder (config.yaml) nor a sweep folder"]),
        (["nowhere"], ["nowhere is not a folder"]),
        (["empty"], ["holds no round yet"]),
        (["newer"], ["format 99", "update hiso-ray"]),
        (["s", "--thresholds", "0.5", "80"], ["thresholds = 80.0", "0.9 for 90 %"]),
        (["s", "--thresholds", "nan"], ["thresholds = nan"]),
        (["s", "--out", "file"], ["file is a file", "--out"]),
    ],
)
def test_mistakes_exit_2_and_write_nothing(
    arguments: list[str], words: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    sweep(tmp_path / "s", compared())
    newer(sweep(tmp_path / "newer", compared()))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.yaml").write_text("task: {name: digits}\n")
    (tmp_path / "file").write_text("kept")
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
    assert not (tmp_path / "report").exists()
    assert (tmp_path / "file").read_text() == "kept"
