"""The table of a run: what is in it, and when it is on its way to the disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hiso_ray.run_folder.metrics_reader import COLUMNS, Row, read_rows, spoilt_lines
from hiso_ray.run_folder.metrics_writer import DiagnosticsFile, MetricsFile
from hiso_ray.run_folder.summary import read_summary, spoilt


def row(round_: int, **fields: Any) -> Row:
    return {"round": round_, "train_loss": 0.5, "eval_loss": None, "uplink_bytes": 20} | fields


def test_a_row_is_written_before_the_next_round(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path)
    for round_ in range(3):
        file.add(row(round_))
        assert [r["round"] for r in read_rows(tmp_path / "metrics.csv")] == list(range(round_ + 1))
    file.close()


def test_a_torn_row_is_left_out_and_written_again(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path)
    file.add(row(0))
    file.close()
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "1,0.2")
    found = read_rows(path)
    assert [r["round"] for r in found] == [0]
    again = MetricsFile(tmp_path, keep=found)
    again.add(row(1, train_loss=0.2))
    again.close()
    assert [r["train_loss"] for r in read_rows(path)] == [0.5, 0.2]


def test_what_is_no_row_is_left_out_and_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    lines = ["\ufeffround,train_loss,eval_loss", "0,,2.5", "1,0.5,",
             "PK\x03\x04,1,2", "2,0.25,1e-05", "1,0.5,",
             "3,0.1", "4,0.1,0.1,0.1", "4,one,", "5,-inf,nan", "6,0."]  # fmt: skip
    path.write_text("\n".join(lines), encoding="utf-8")
    rows = read_rows(path)
    assert [r["round"] for r in rows] == [0, 1, 2, 5]
    assert rows[2] == {"round": 2, "train_loss": 0.25, "eval_loss": 1e-05}
    assert spoilt_lines(path) == [4, 6, 7, 8, 9]
    path.write_bytes(b"\xff\x00no table\n1\n")
    assert (read_rows(path), spoilt_lines(path)) == ([], [2])


@pytest.mark.parametrize("text", ["", '{"rounds": 6', "null", "[1]", '{"seed": 0}'])
def test_a_summary_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    assert (read_summary(tmp_path), spoilt(tmp_path)) == (None, [])
    (tmp_path / "summary.json").write_text(text)
    assert read_summary(tmp_path) is None
    assert spoilt(tmp_path) == [f"{tmp_path / 'summary.json'} cannot be read: taken as missing"]


def test_diagnostics_are_written_whole_or_added_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "diagnostics.csv"
    file = DiagnosticsFile(tmp_path, 0)
    for round_ in (0, 2, 4):
        file.add({"round": round_, "trace": 1.5, "h_histogram": "-inf:3 0.0:4"})
    before = path.read_text()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            DiagnosticsFile(tmp_path, 2)
    assert path.read_text() == before
    again = DiagnosticsFile(tmp_path, 2)
    again.add({"round": 2, "trace": 9.0, "h_histogram": ""})  # is there
    again.add({"round": 4, "trace": 2.5, "h_histogram": ""})
    assert path.read_text().splitlines() == [*before.splitlines()[:3], "4,2.5,"]


def test_a_score_of_a_new_kind_gets_a_column_at_the_end(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path)
    file.add(row(0, train_loss=None))
    file.add(row(1, eval_loss=0.5, eval_bleu=0.25))
    file.add(row(2))
    file.close()
    path = tmp_path / "metrics.csv"
    assert path.read_text().splitlines()[0].split(",") == [*COLUMNS, "eval_bleu"]
    found = read_rows(path)
    assert [r["eval_bleu"] for r in found] == [None, 0.25, None]
    again = MetricsFile(tmp_path, keep=iter(found))
    again.add(row(3, eval_loss=0.5, eval_bleu=0.75))
    again.close()
    assert [r["eval_bleu"] for r in read_rows(path)] == [None, 0.25, None, 0.75]
    assert spoilt_lines(path) == []
