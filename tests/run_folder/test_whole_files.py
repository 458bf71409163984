"""Files are there whole, or as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiso_ray.run_folder.whole_files import whole, write_text


def test_an_error_leaves_what_was_there_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "größe.csv"
    write_text(path, "before\n")
    with pytest.raises(UnicodeEncodeError), whole(path) as new:
        new.write_text("half" * 9999 + "\ud800")
    assert path.read_text() == "before\n"
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_written_takes_the_place(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for text in ("one\r\n", "two\n"):
        with whole(path) as new:
            new.write_text(text, newline="")
            assert not path.exists() or path.read_text() != text
        assert path.read_bytes().decode() == text
    assert list(tmp_path.iterdir()) == [path]


def test_of_two_that_make_a_file_anew_the_first_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    second = whole(path, anew=True)
    second.__enter__().write_text("second")
    path.write_text("first")
    with pytest.raises(FileExistsError):
        second.__exit__(None, None, None)
    assert path.read_text() == "first"
    with pytest.raises(FileExistsError):
        write_text(path, "third", anew=True)
    assert list(tmp_path.iterdir()) == [path]
