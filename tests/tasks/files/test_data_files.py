"""Which data files are read: those that are named, as they are now, each by its own header."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pandas as pd
import pytest
from data_files import ROWS, read, write
from PIL import Image

from hiso_ray.tasks.images import images
from hiso_ray.tasks.images.image_sets import DOWNLOADED

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
    with pytest.raises(ValueError, match=r"train-1.* has the columns label, sentence, and .*train-0"
                       r".* has text, label: the parts of a split need the same"):  # fmt: skip
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
