"""``tracking/NAME.json`` in a run folder: how far a tracker has got, for a process that resumes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from hiso_ray.run_folder import files
from hiso_ray.run_folder.whole_files import write_text


@dataclass(frozen=True)
class Mark:
    """
    Attributes:
        run: the tracker's id of the run; None before it had one.
        round: the newest row that the tracker was given; -1 for none.
    """

    run: str | None = None
    round: int = -1


def read_mark(folder: Path, name: str) -> Mark:
    """A mark that cannot be read counts as none: the tracker begins another run."""
    try:
        return Mark(**json.loads(_path(folder, name).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return Mark()


def write_mark(folder: Path, name: str, mark: Mark) -> None:
    path = _path(folder, name)
    path.parent.mkdir(exist_ok=True)
    write_text(path, json.dumps(asdict(mark)) + "\n")


def _path(folder: Path, name: str) -> Path:
    return folder / files.TRACKING / f"{name}.json"
