from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up_outcomes import write

from hiso_ray.analysis import outcomes


def test_what_was_written_is_read(tmp_path: Path) -> None:
    found = outcomes.read(write(tmp_path / "r", [1, 0, 1, 1], [0.5, 2, 0.25, 0], validation=1))
    assert (found.run, found.round, found.model_sha256) == (str(tmp_path / "r"), 30, "ab")
    assert found.metrics == ["accuracy"]
    assert found.of("validation")["example"].tolist() == [0]
    assert found.of("test")["example"].tolist() == [1, 2, 3]
    assert outcomes.aligned([found, found], "accuracy").tolist() == [[0, 1, 1]] * 2
    assert outcomes.aligned([found], "loss").tolist() == [[2, 0.25, 0]]
    with pytest.raises(ValueError, match="no f1 per example: choose from loss, accuracy"):
        outcomes.aligned([found], "f1")


def test_a_missing_or_torn_file_is_said(tmp_path: Path) -> None:
    assert not outcomes.there(tmp_path)
    with pytest.raises(ValueError, match=r"has no outcomes\.parquet.*hiso-ray replay"):
        outcomes.read(tmp_path)
    whole = (write(tmp_path / "r", [1, 0]) / "outcomes.parquet").read_bytes()
    for length in (0, 10, len(whole) - 20):
        (tmp_path / "outcomes.parquet").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cannot be read as parquet"):
            outcomes.read(tmp_path)


def rewritten(folder: Path, **columns: list[object]) -> Path:
    file = write(folder, [1, 0]) / "outcomes.parquet"
    table = pq.read_table(file)
    told = table.schema.metadata
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(table.replace_schema_metadata(told), file)
    return folder


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"split": ["test", "train"]}, "split 'train' is neither validation nor test"),
        ({"example": [3, 3]}, "an example twice"),
        ({"loss": [0.5, float("nan")]}, "no finite number"),
        ({"accuracy": [float("inf"), 0.0]}, "no finite number"),
    ],
)
def test_what_is_wrong_inside_is_said(
    tmp_path: Path, columns: dict[str, list[object]], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        outcomes.read(rewritten(tmp_path / "r", **columns))


def test_another_parquet_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"loss": [1.0]}), tmp_path / "outcomes.parquet")
    with pytest.raises(ValueError, match="lacks split, example, round, model_sha256, evaluation"):
        outcomes.read(tmp_path)
    write(tmp_path / "r", [])
    with pytest.raises(ValueError, match="holds no example"):
        outcomes.read(tmp_path / "r")


def test_other_examples_are_refused(tmp_path: Path) -> None:
    first, same, data, split = (
        outcomes.read(write(tmp_path / name, [1, 0, 1], **changed))
        for name, changed in (
            ("first", {}), ("same", {}), ("data", {"evaluation": "another"}),
            ("split", {"validation": 1}),
        )
    )  # fmt: skip
    outcomes.refuse_others([first, same])
    with pytest.raises(ValueError, match=r"first and .*data were scored on other evaluation data"):
        outcomes.refuse_others([first, same, data])
    with pytest.raises(ValueError, match=r"other examples for the test \(3 and 2\)"):
        outcomes.refuse_others([first, split])
    other = outcomes.Outcomes("f", 1, "", "same", first.examples.rename(columns={"accuracy": "f1"}))
    with pytest.raises(ValueError, match=r"other metrics \(accuracy; f1\)"):
        outcomes.refuse_others([first, other])
    assert np.isfinite(outcomes.aligned([first], "loss")).all()
