"""A run knows its data by their content, and needs no place to keep them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from data_files import ROWS, write

from hiso_ray import Experiment, replay, resume, run
from hiso_ray.run_folder.ledger import Ledger, LedgerError
from hiso_ray.tasks.pretrained.cache import cache

Make = Callable[..., Experiment]
KEPT = ("HISO_RAY_CACHE", "HF_HOME", "HF_DATASETS_CACHE", "XDG_CACHE_HOME")  # where to, if set


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
        with pytest.raises(LedgerError, match=r"scored on other evaluation examples .*put the old"):
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
    kept = {k: v for k, v in os.environ.items() if k not in KEPT}
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
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("HISO_RAY_CACHE")
    monkeypatch.setattr(Path, "home", nowhere)
    assert os.access(cache(), os.W_OK)
    assert cache() == cache()
