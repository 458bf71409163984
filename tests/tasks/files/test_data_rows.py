"""Rows of data files: what the file says, or a refusal that names file and line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from data_files import ROWS, read, write

# fields and headers


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "text,label\nfine,1\nso, warm,1\n",
         r'a.csv, line 3: 3 fields for the 2 columns text, label; .*double quotes \("so, that"\)'),
        ("a.csv", "text,label\nfine\n", "a.csv, line 2: 1 fields for the 2 columns text, label"),
        ("a.csv", "text,label\nfine,1,\n", "line 2: 3 fields"),
        ("a.csv", 'text,label\n"two\nlines",1\n\n"so",warm,1\n', "line 5: 3 fields"),
        ("a.csv", "fine,1\nso,warm,1\n", "line 2: 3 fields for the 2 columns text, label"),
        ("a.tsv", 'text\tlabel\n"so\twarm"\t1\n', "line 2: 3 fields .* TSV is read without quot"),
        ("a.csv", 'text,label\nfine,1\n"so,1\nwarm,1\n', "line 3: cannot be read as csv: unexpec"),
        ("a.csv", 'text,label\n"so" warm,1\n', "line 2: cannot be read as csv: ',' expected"),
        ("a.csv", "text,text,label\na,b,1\n", "more than one column is named 'text'; rename"),
        ("a.jsonl", '{"text": "a", "text": "b"}\n', "line 1: .*more than one value is named 'text"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text"\n', "a.jsonl, line 2: cannot be read as J"),
        ("a.jsonl", '\n["a", 1]\n', r"a.jsonl, row 1: 'a' is no object of columns"),
        ("a.jsonl", '{"text": "a", "label": 1}\n7\n', "line 2: '7' is no object of columns"),
        ("a.jsonl", '{"text": "\\ud800", "label": 1}\n', "line 1: .*surrogates not allowed"),
        ("a.jsonl", "[" * 100_000, "cannot be read as JSON"),
        ("a.parquet", "PAR1", "a.parquet cannot be read as parquet"),
    ],
)  # fmt: skip
def test_rows_that_are_not_what_the_header_says(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("comma_1.csv", r"comma_1.csv, line 2: 3 fields for the 2 columns text, label"),
        ("quoted_tabs.tsv", "quoted_tabs.tsv, line 2: 3 fields .* no text may hold a tab"),
        ("parts_nohead2", r"train-00001-of-00002.csv has no header, and .*train-00000-of-00002.csv"
         r" has one: begin every part of a split with its columns' names \(text, label\)"),
    ],
)  # fmt: skip
def test_cases_that_lost_a_field_or_a_row(cases: Path, name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read(cases / name)


def test_long_fields_are_read_and_other_readers_keep_their_limit(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    file = write(tmp_path / "a.csv", [("long " * 100_000, label) for label in (0, 1, 0, 1)])
    assert len(read(file)[0].prompts[0]) > 400_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("name", ["bom.csv", "bom.tsv", "bom.jsonl"])
def test_a_byte_order_mark_is_no_part_of_a_header(cases: Path, tmp_path: Path, name: str) -> None:
    file = cases / name
    if file.suffix == ".jsonl":
        file = write(tmp_path / name, ROWS)
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    train, held, _ = read(file)
    assert len(train) + len(held) == (60 if file.suffix != ".jsonl" else 4)


# values


@pytest.mark.parametrize("text", ["2024-01-01", "2024-01-01T00:00:00", "007", "1e5", "NA", "null"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_texts_are_what_the_file_says(tmp_path: Path, kind: str, text: str) -> None:
    train, _, _ = read(write(tmp_path / f"a.{kind}", [(text, label) for label in (0, 1, 0, 1)]))
    assert set(train.prompts) == {f"{text} It was"}


def test_numbers_are_written_as_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": 1.50, "label": 1.0}\n{"text": 3, "label": 0}\n' * 2)
    train, _, _ = read(tmp_path / "a.jsonl")
    assert set(train.prompts) == {"1.50 It was", "3 It was"}


@pytest.mark.parametrize("text", [["a", "b"], {"a": 1}, True])
def test_a_prompt_is_no_structure(tmp_path: Path, text: Any) -> None:
    file = write(tmp_path / "a.jsonl", [("a", 0), (text, 1)])
    with pytest.raises(ValueError, match=r"row 2: column text holds .*neither a text nor a number"):
        read(file)


def test_times_of_parquet_are_no_texts(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": pd.to_datetime(["2024-01-01"] * 4), "label": [0, 1, 0, 1]})
    frame.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"row 1: column text holds datetime\.datetime"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("empty", ["", "  ", None])
def test_empty_texts_are_refused_in_every_format(
    tmp_path: Path, kind: str, empty: str | None
) -> None:
    file, rows = tmp_path / f"a.{kind}", [("fine", 1), (empty, 0)]
    if kind == "parquet":
        pd.DataFrame(rows, columns=["text", "label"]).to_parquet(file)
    else:
        write(file, rows if kind == "jsonl" else [(text or "", label) for text, label in rows])
    with pytest.raises(ValueError, match=r"row 2: column text is empty .*; leave such rows out"):
        read(file)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_the_second_question_of_qqp_may_be_empty(tmp_path: Path, kind: str) -> None:
    # Trap: two rows of the published training split have none.
    rows = [("What?", "" if label else "Why?", label) for label in (0, 1, 0, 1)]
    train, _, _ = read(write(tmp_path / f"a.{kind}", rows, "question1,question2,label"), "qqp")
    assert any("\nQuestion 2: \n" in prompt for prompt in train.prompts)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_a_missing_label_is_reported_of_its_own_row(tmp_path: Path, kind: str) -> None:
    labels = [1.0, 0.0, 1.0, 0.0, 1.0, None, 0.0]
    frame = pd.DataFrame({"text": [f"text {i}" for i in range(7)], "label": labels})
    file = tmp_path / f"a.{kind}"
    if kind == "parquet":
        frame.to_parquet(file)
    elif kind == "jsonl":
        frame.to_json(file, orient="records", lines=True)
    else:
        frame.to_csv(file, index=False, sep="\t" if kind == "tsv" else ",")
    with pytest.raises(ValueError, match="row 6: no label in column label"):
        read(file)


def test_a_label_column_of_nan(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": NaN}\n' * 3)
    with pytest.raises(ValueError, match="row 1: no label in column label"):
        read(tmp_path / "a.jsonl")


@pytest.mark.parametrize(("value", "text"), [(42, "42"), (1.5, "1.5"), ([7, 8], "7")])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_numbers_are_answers(tmp_path: Path, kind: str, value: Any, text: str) -> None:
    rows = [{"passage": f"p {i}", "question": "q", "answer": value} for i in range(4)]
    file = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pd.DataFrame(rows).to_parquet(file)
    assert {some[0] for some in read(file, "drop")[0].references} == {text}
