"""Data files are read as what they are: the rows of the named files, by their own headers, or a
refusal that names file and line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hiso_ray import Experiment, replay, resume, run
from hiso_ray.config import TaskConfig
from hiso_ray.ledger import Ledger, LedgerError
from hiso_ray.tasks import examples, images
from hiso_ray.tasks.benchmarks import BENCHMARKS
from hiso_ray.tasks.image_sets import DOWNLOADED
from hiso_ray.tasks.prompts import Examples

Make = Callable[..., Experiment]
ROWS = [("a fine film", "1"), ("a dull film", "0"), ("so warm", "1"), ("too cold", "0")]


def read(data: Path, name: str = "sst2") -> tuple[Examples, Examples, tuple[str, ...]]:
    return examples.read(BENCHMARKS[name], TaskConfig(name=name, data=str(data)), 0)


def write(file: Path, rows: Sequence[Sequence[Any]], header: str = "text,label") -> Path:
    """Comma-separated lines, tab-separated or JSON, by the name of the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    names = header.split(",") if header else []
    if file.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
    else:
        between = "," if file.suffix.lower() == ".csv" else "\t"
        lines = [between.join(map(str, row)) for row in ([names] if names else []) + list(rows)]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


@pytest.fixture
def cases(shared: Path) -> Path:
    if not (shared / "cases").is_dir():
        pytest.skip("needs the small files of ../shared/cases, which are absent")
    return shared / "cases"


# which files


@pytest.mark.parametrize("name", ["data[1]", "a::b", "x*", "label=1", "ü ?"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_path_is_no_pattern(tmp_path: Path, name: str, kind: str) -> None:
    for folder, word in (("data1", "decoy"), ("xy", "decoy"), (name, "own")):
        for split in ("train", "dev"):
            file = tmp_path / folder / f"{split}.{kind}"
            if kind == "parquet":
                file.parent.mkdir(exist_ok=True)
                pd.DataFrame({"text": [f"{word} {split}"], "label": [1]}).to_parquet(file)
            else:
                write(file, [(f"{word} {split}", 1)])
    train, held, _ = read(tmp_path / name)
    assert train.prompts + held.prompts == ["own train It was", "own dev It was"]


def test_images_of_a_path_that_looks_like_a_pattern(tmp_path: Path) -> None:
    import io

    from PIL import Image

    for folder, shade in (("data1", 0), ("data[1]", 7)):
        rows = []
        for label in range(10):
            encoded = io.BytesIO()
            Image.new("L", (28, 28), shade).save(encoded, "PNG")
            rows.append({"image": {"bytes": encoded.getvalue(), "path": None}, "label": label})
        (tmp_path / folder).mkdir()
        for split in ("train", "test"):
            pd.DataFrame(rows).to_parquet(tmp_path / folder / f"{split}-0.parquet")
    for split in images.read(DOWNLOADED["mnist"], str(tmp_path / "data[1]")):
        assert set(split.images.flat) == {7}


def test_the_brackets_that_read_their_neighbour(cases: Path) -> None:
    train, held, _ = read(cases / "brackets" / "data[1]")
    assert not any("DECOY" in prompt for prompt in train.prompts + held.prompts)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_a_file_replaced_with_its_name_time_and_size_kept_is_another(
    tmp_path: Path, kind: str
) -> None:
    found = []
    for text in ("good", "evil"):
        file = tmp_path / f"data.{kind}"
        rows = [(f"a {text} film", 1)] * 5
        if kind == "parquet":
            pd.DataFrame(rows, columns=["text", "label"]).to_parquet(file)
        else:
            write(file, rows)
        os.utime(file, (1e9, 1e9))
        found.append(read(file)[0].prompts[0])
    assert found == ["a good film It was", "a evil film It was"]


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev"])
def test_every_usual_name_of_a_validation_split_is_known(tmp_path: Path, name: str) -> None:
    write(tmp_path / "train.csv", ROWS)
    write(tmp_path / f"{name}.csv", ROWS[:1])
    train, held, notes = read(tmp_path)
    assert (len(train), len(held), notes) == (4, 1, ())


def test_files_that_are_no_split_are_named_where_rows_are_held_out(tmp_path: Path) -> None:
    write(tmp_path / "train.CSV", ROWS)
    write(tmp_path / "check.csv", ROWS)
    (note,) = read(tmp_path)[2]
    assert "2 of its 4 rows are held out" in note
    assert note.endswith("files of no split that is looked for are not read: check.csv")


def test_an_evaluation_split_is_never_taken_for_the_training_split(tmp_path: Path) -> None:
    write(tmp_path / "training.csv", ROWS)
    write(tmp_path / "validation.csv", ROWS)
    with pytest.raises(ValueError, match=r"for a split to train on \(train\); found training, val"):
        read(tmp_path)


def test_a_class_with_one_row_stays_in_training_and_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "all.csv", [("only one", 1)] + [(f"text {i}", 0) for i in range(10)])
    train, held, notes = read(file)
    assert (sorted(train.labels), held.labels.tolist()) == ([0] * 8 + [1], [0, 0])
    assert "one row only of positive" in notes[1]


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
    import csv

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


# part files


def test_columns_of_parts_are_found_by_name(cases: Path) -> None:
    train, _, _ = read(cases / "parts_order", "qqp")
    assert len(train) == 60
    for prompt in train.prompts:
        assert re.match(r"Question 1: Q1 .*\nQuestion 2: Q2 ", prompt), prompt


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_parts_with_other_columns_are_refused(tmp_path: Path, kind: str) -> None:
    for number, names in enumerate((["text", "label"], ["label", "sentence"])):
        frame = pd.DataFrame([["1", "0"]] * 3, columns=names)
        file = tmp_path / f"train-{number}.{kind}"
        frame.to_parquet(file) if kind == "parquet" else frame.to_csv(file, index=False)
    with pytest.raises(ValueError, match="train-1.* has the columns label, sentence, and .*train-0"
                       ".* has text, label: the parts of a split need the same"):  # fmt: skip
        read(tmp_path)


def test_parts_without_headers_belong_together(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / f"train-{number}.tsv", ROWS[2 * number : 2 * number + 2], header="")
    write(tmp_path / "dev.tsv", ROWS, header="")
    assert [p.removesuffix(" It was") for p in read(tmp_path)[0].prompts] == [t for t, _ in ROWS]


def test_keys_of_json_rows_may_be_missing_and_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "train-0.jsonl").write_text('{"text": "a", "label": 1}\n')
    (tmp_path / "train-1.jsonl").write_text('{"more": 0, "label": 0, "text": "b"}\n')
    write(tmp_path / "dev.jsonl", ROWS)
    train, _, _ = read(tmp_path)
    assert (train.prompts, train.labels.tolist()) == (["a It was", "b It was"], [1, 0])


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
    with pytest.raises(ValueError, match="row 2: column text holds .*neither a text nor a number"):
        read(file)


def test_times_of_parquet_are_no_texts(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": pd.to_datetime(["2024-01-01"] * 4), "label": [0, 1, 0, 1]})
    frame.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="row 1: column text holds datetime.datetime"):
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
    with pytest.raises(ValueError, match="row 2: column text is empty .*; leave such rows out"):
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


@pytest.mark.parametrize(("value", "text"), [(42, "42"), (1.5, "1.5"), ([7, "seven"], "7")])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_numbers_are_answers(tmp_path: Path, kind: str, value: Any, text: str) -> None:
    rows = [{"passage": f"p {i}", "question": "q", "answer": value} for i in range(4)]
    file = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif isinstance(value, list):
        pytest.skip("a Parquet list has one type")
    else:
        pd.DataFrame(rows).to_parquet(file)
    assert {some[0] for some in read(file, "drop")[0].references} == {text}


# what a run knows its data by


@pytest.fixture
def trained(language: Make, text_data: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A run of four rounds, and the folder of its data."""
    data = tmp_path / "data"
    shutil.copytree(text_data, data)
    few = {"task.data": str(data), "federation.rounds": 4, "federation.num_clients": 6}
    run(language(**few), tmp_path / "r")
    return tmp_path / "r", data


def change(file: Path) -> None:
    """Another text, of the same size and time."""
    before = file.stat()
    file.write_text(file.read_text().replace("film", "book"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size


@pytest.mark.usefixtures("one_thread")
def test_changed_data_are_noticed(trained: tuple[Path, Path]) -> None:
    folder, data = trained
    change(data / "train.tsv")
    for again in (resume, replay):
        with pytest.raises(LedgerError, match="written with another data: "):
            again(folder)


@pytest.mark.usefixtures("one_thread")
def test_changed_evaluation_data_are_noticed(trained: tuple[Path, Path]) -> None:
    folder, data = trained
    whole = replay(folder)
    change(data / "dev.tsv")
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    for changes in (None, {"federation.rounds": 6}):
        with pytest.raises(LedgerError, match="scored on other evaluation examples .*put the old"):
            resume(folder, changes=changes)
    assert before == {f.name: f.read_bytes() for f in folder.iterdir() if f.is_file()}
    notes: list[str] = []
    again = replay(folder, on_note=notes.append)
    assert again["model_sha256"] == whole["model_sha256"]
    assert any("scored on other evaluation examples" in note for note in notes)


@pytest.mark.usefixtures("one_thread")
def test_a_header_without_evaluation_examples_is_gone_on_with(trained: tuple[Path, Path]) -> None:
    folder, data = trained
    old = Ledger.read(folder / "ledger.jsonl")
    header = {k: v for k, v in old.header.items() if k not in ("evaluation_sha256", "format")}
    records = old.records
    (folder / "ledger.jsonl").unlink()
    with_out = Ledger.create(folder / "ledger.jsonl", header)
    for record in records:
        with_out.append(record)
    with_out.close()
    change(data / "dev.tsv")
    assert resume(folder, changes={"federation.rounds": 5})["rounds"] == 5


# where nothing can be kept


def test_a_home_that_cannot_be_written_is_no_obstacle(tiny_opt: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    own = {"HOME": str(tmp_path / "file" / "home"), "TMPDIR": str(tmp_path)}
    kept = {k: v for k, v in os.environ.items() if k not in ("HISO_RAY_CACHE", "HF_HOME")}
    for kind in ("csv", "jsonl"):
        for split in ("train", "dev"):
            write(tmp_path / kind / f"{split}.{kind}", ROWS * 5)
    code = (
        "import sys\nfrom hiso_ray import Experiment, tasks\n"
        "for data in sys.argv[2:]:\n"
        "    own = {'task.name': 'sst2', 'task.model': sys.argv[1], 'task.data': data}\n"
        "    print(len(tasks.prepare(tasks.resolve(Experiment().changed(**own))).labels))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tiny_opt, tmp_path / "csv", tmp_path / "jsonl"],
        env=kept | own, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["20", "20"], done.stderr
    assert not list(tmp_path.glob("hiso_ray-*"))  # it lasted as long as the process


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from hiso_ray.tasks.cache import cache

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("HISO_RAY_CACHE")
    monkeypatch.setattr(Path, "home", nowhere)
    assert os.access(cache(), os.W_OK)
    assert cache() == cache()
