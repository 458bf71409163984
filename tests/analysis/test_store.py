from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hiso_ray.analysis import store


def frame() -> pd.DataFrame:
    return pd.DataFrame({"run": ["a", "b"], "seed": [0, 2**62], "score": [0.1, None]})


def test_reads_back_what_it_wrote_and_equal_frames_are_equal_bytes(tmp_path: Path) -> None:
    store.write(tmp_path / "a.parquet", frame())
    store.write(str(tmp_path / "b.parquet"), frame().set_axis([5, 6]))  # an index is no column
    pd.testing.assert_frame_equal(store.read(tmp_path / "a.parquet"), frame())
    pd.testing.assert_frame_equal(store.read(tmp_path / "b.parquet"), frame())
    assert pq.read_schema(tmp_path / "a.parquet").metadata[store.KEY] == b"1"
    store.write(tmp_path / "b.parquet", frame())
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    store.write(path, frame())
    with pytest.raises(ValueError, match="cannot hold a column of several types"):
        store.write(path, pd.DataFrame({"max_actors": ["auto", 4]}))
    (tmp_path / f"a.parquet.{os.getpid()}.new").mkdir()  # as if the disk were full
    with pytest.raises(OSError, match="new"):
        store.write(path, frame().head(1))
    pd.testing.assert_frame_equal(store.read(path), frame())


def test_files_that_are_no_tables_of_ours_are_said(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(ValueError, match="does not exist"):
        store.read(path)
    store.write(path, frame())
    whole = path.read_bytes()
    for broken in (b"", b"not parquet", whole[: len(whole) // 2]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="cannot be read as parquet"):
            store.read(path)
    frame().to_parquet(path)
    with pytest.raises(ValueError, match="says no format"):
        store.read(path)


def test_a_newer_format_is_refused_in_words(tmp_path: Path) -> None:
    table = pa.table({"run": ["a"]}).replace_schema_metadata({store.KEY: b"2"})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"in format 2, .* reads format 1: update hiso-ray"):
        store.read(tmp_path / "a.parquet")
