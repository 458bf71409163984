from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hiso_ray import Experiment
from hiso_ray.analysis import load, report, store, study
from hiso_ray.run_folder.metrics_reader import COLUMNS

FOUR_ROUNDS = {
    "task.name": "digits",
    "task.metric": "accuracy",
    "federation.num_clients": 8,
    "federation.rounds": 4,
}


def write_run(
    folder: Path, rounds: Sequence[int] = range(5), finished: bool = True, **changed: Any
) -> Path:
    """A made-up run: evaluated at even rounds, accuracy round ÷ 10, 512 bytes up and down each."""
    folder.mkdir(parents=True)
    experiment = Experiment().changed(**(FOUR_ROUNDS | changed))
    (folder / "config.yaml").write_text(experiment.to_yaml())
    rows = []
    for number in rounds:
        seen = number % 2 == 0
        row = dict.fromkeys(COLUMNS) | {
            "round": number,
            "train_loss": 2.0 - number / 10 if number else None,
            "eval_loss": 1.0 - number / 10 if seen else None,
            "eval_accuracy": number / 10 if seen else None,
            "uplink_bytes": 512 * number,
            "downlink_bytes": 512 * number,
            "simulated_seconds": 0.0,
        }
        rows.append(row)
    pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(folder / "metrics.csv", index=False)
    if finished:
        last = rounds[-1]
        summary = {
            "rounds": last, "metric": "accuracy", "final_score": last / 10,
            "uplink_bytes": 512 * last, "faults_by_kind": {},
        }  # fmt: skip
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def write_sweep(folder: Path) -> Path:
    """Two finished runs, one under way, one without a round, one without a configuration."""
    write_run(folder / "runs" / "a", seed=0)
    write_run(folder / "runs" / "b", seed=1)
    write_run(folder / "runs" / "c", rounds=range(3), finished=False, seed=2)
    write_run(folder / "runs" / "d", rounds=(), finished=False, seed=3)
    (folder / "runs" / "e").mkdir()
    (folder / "plan.yaml").write_text("name: made-up\n")
    return folder


def collect(sweep: Path) -> None:
    """Writes a sweep's parquet files, in another order than that of the names."""
    trials, rounds = load.trials([sweep]), load.rounds([sweep])
    for name, table in (("trials", trials), ("rounds", rounds)):
        table = table.assign(run=table["run"].str.removeprefix(f"{sweep}/"))
        own = [c for c in table if "." not in c] if name == "rounds" else list(table)
        store.write(sweep / f"{name}.parquet", table[own].iloc[::-1])


def test_trials_by_hand(tmp_path: Path) -> None:
    table = load.trials([write_run(tmp_path / "r", seed=7, **{"method.lr": 0.5})])
    assert list(table.columns[:7]) == [
        "run", "cell", "seed", "method", "status", "error", "error_kind",
    ]  # fmt: skip
    (row,) = table.to_dict("records")
    assert (row["run"], row["seed"]) == (str(tmp_path / "r"), 7)
    assert (row["method"], row["status"], row["method.lr"]) == ("hiso", "finished", 0.5)
    assert (row["rounds"], row["final_score"], row["uplink_bytes"]) == (4, 0.4, 2048)
    assert pd.isna(row["error"])
    assert pd.isna(row["best_score"])
    assert "faults_by_kind" not in row


def test_rounds_are_the_evaluated_ones(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r")
    table = load.rounds([folder])
    assert table["round"].tolist() == [0, 2, 4]
    assert table["score"].tolist() == table["eval_accuracy"].tolist() == [0.0, 0.2, 0.4]
    # two rounds: 2 × 512 bytes up and as many down, for 8 clients
    assert table["kib_per_client"].tolist() == [0.0, 0.25, 0.5]
    assert set(table["federation.num_clients"]) == {8}
    assert list(table.columns[:7]) == [
        "run", "cell", "seed", "method", "metric", "score", "kib_per_client",
    ]  # fmt: skip
    assert list(table.columns[7 : 7 + len(COLUMNS)]) == list(COLUMNS)
    assert list(load.evaluated(folder).columns) == list(table.columns[: 7 + len(COLUMNS)])
    every = load.every_round([folder])
    assert every["train_loss"].dropna().tolist() == [1.9, 1.8, 1.7, 1.6]


def test_a_sweep_reads_the_same_from_its_runs_and_from_parquet(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "s")
    trials, rounds = load.trials([sweep]), load.rounds([sweep])
    assert trials["run"].tolist() == [str(sweep / "runs" / name) for name in "abcd"]
    assert trials["status"].tolist() == ["finished", "finished", "unfinished", "unfinished"]
    assert rounds["run"].map(lambda run: run[-1]).tolist() == list("aaabbbcc")
    collect(sweep)
    (sweep / "runs" / "a" / "config.yaml").unlink()  # parquet is what is read
    for before, after in ((trials, load.trials([sweep])), (rounds, load.rounds([sweep]))):
        backwards = after.iloc[::-1].reset_index(drop=True)
        pd.testing.assert_frame_equal(before, backwards)


def test_a_sweep_from_before_there_was_validation_has_its_columns(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "s")
    collect(sweep)
    trials = load.trials([sweep])
    younger = [name for name in trials if "validation" in name]
    assert len(younger) == 4
    store.write(
        sweep / "trials.parquet", store.read(sweep / "trials.parquet").drop(columns=younger)
    )
    again = load.trials([sweep])
    pd.testing.assert_frame_equal(again[trials.columns], trials)


def test_half_of_the_parquet_files_is_none(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "s")
    collect(sweep)
    (sweep / "rounds.parquet").unlink()
    assert load.trials([sweep])["run"].iloc[0] == str(sweep / "runs" / "a")


def test_run_folders_and_sweep_folders_mix_and_count_once(tmp_path: Path) -> None:
    sweep, other = write_sweep(tmp_path / "s"), write_run(tmp_path / "r", seed=9)
    paths = [other, sweep, sweep / "runs" / "b", str(other)]
    assert load.trials(paths)["seed"].tolist() == [9, 0, 1, 2, 3]
    assert load.rounds(paths)["seed"].tolist() == [9] * 3 + [0] * 3 + [1] * 3 + [2] * 2


def test_words_and_numbers_in_one_column_are_text(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", **{"resources.max_actors": 4, "resources.gpus_per_client": 0.25}),
        write_run(tmp_path / "b", **{"resources.gpus_per_client": "auto"}),
    ]
    table = load.trials(runs)
    assert table["resources.max_actors"].tolist() == ["4", "auto"]
    assert table["resources.gpus_per_client"].tolist() == ["0.25", "auto"]
    store.write(tmp_path / "t.parquet", table)
    pd.testing.assert_frame_equal(store.read(tmp_path / "t.parquet"), table)
    assert load.trials(runs[:1])["resources.gpus_per_client"].tolist() == [0.25]


def test_a_run_that_is_taken_further_has_no_results_yet(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", rounds=range(3))  # a summary of 2 rounds, where 4 are asked
    (row,) = load.trials([folder]).to_dict("records")
    assert row["status"] == "unfinished"
    assert pd.isna(row["final_score"])


def test_the_torn_line_of_a_killed_run_is_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", rounds=range(3), finished=False)
    with open(folder / "metrics.csv", "a") as file:
        file.write("3,1.7,0.")  # of 0.65: a number, but not this one
    assert load.every_round([folder])["round"].tolist() == [0, 1, 2]


def test_folders_from_before_the_virtual_clock(tmp_path: Path) -> None:
    path = write_run(tmp_path / "r") / "metrics.csv"
    pd.read_csv(path).drop(columns="simulated_seconds").to_csv(path, index=False)
    assert load.rounds([path.parent])["simulated_seconds"].tolist() == [0.0] * 3


def test_paths_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    fine = write_run(tmp_path / "fine")
    empty = write_run(tmp_path / "empty", rounds=(), finished=False)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "plan.yaml").touch()
    newer = write_run(tmp_path / "newer")
    (newer / "config.yaml").write_text("method: {colour: red}\n")
    for path, words in (
        (tmp_path / "gone", "gone is not a folder"),
        (tmp_path, "neither a run folder .* nor a sweep folder"),
        (empty, "holds no round yet"),
        (newer, "config.yaml does not fit this version"),
    ):
        for read in (load.trials, load.rounds):
            with pytest.raises(ValueError, match=words):
                read([fine, path])
    for nothing in ([], [tmp_path / "s"]):
        with pytest.raises(ValueError, match="no evaluated round in"):
            load.trials(nothing)
    assert len(load.trials([fine, tmp_path / "s"])) == 1


def test_where_local_files_lie_is_not_in_the_tables() -> None:
    def at(folder: str) -> dict[str, object]:
        values = {"task": {"name": "sst2", "model": f"{folder}/opt", "data": f"{folder}/sst2"}}
        return load.trial_row(values, None)

    here, there = at("/here"), at("/there/too")
    assert here == there
    assert (here["task.model"], here["task.data"]) == ("opt", "sst2")
    hub = {"task": {"name": "sst2", "model": "facebook/opt-125m"}}
    assert load.trial_row(hub, None)["task.model"] == "facebook/opt-125m"


def test_a_spoilt_file_spoils_one_run_and_is_named(tmp_path: Path) -> None:
    whole, torn = write_run(tmp_path / "a", seed=0), write_run(tmp_path / "b", seed=1)
    table = torn / "metrics.csv"
    table.write_text("\ufeff" + table.read_text() + "sum of the above,,\n", encoding="utf-8")
    (torn / "summary.json").write_text('{"rounds": 4,')
    assert load.trials([whole, torn])["status"].tolist() == ["finished", "unfinished"]
    pd.testing.assert_frame_equal(
        load.evaluated(whole).drop(columns=["run", "seed"]),
        load.evaluated(torn).drop(columns=["run", "seed"]),
    )
    said = list(report._warnings(study.read(whole, torn)))
    assert f"{table}: line 7 is no row of it: left out" in said
    assert f"{torn / 'summary.json'} cannot be read: taken as missing" in said
