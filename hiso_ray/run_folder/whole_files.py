"""Atomic writes: a file is written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole(path: Path, anew: bool = False) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` to write to. When the context ends, that file is
    synced to disk and replaces ``path``; after an error, ``path`` is unchanged.

    The temporary name contains the process id, so two processes may write ``path``: the last wins.

    Args:
        anew: ``path`` must not exist; of two concurrent writers the first wins.

    Raises:
        FileExistsError: ``path`` exists, and ``anew`` was set.
        OSError: it cannot be written.
    """
    if anew and path.exists():
        raise FileExistsError(f"{path} exists")
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        yield new
        with open(new, "rb") as file:
            os.fsync(file.fileno())
        if anew:
            _link(new, path)
        else:
            new.replace(path)
    except BaseException:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _link(new: Path, path: Path) -> None:
    """Moves a file to ``path`` unless that exists; a rename would overwrite it."""
    try:
        path.hardlink_to(new)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        new.rename(path)
    else:
        new.unlink()


def write_text(path: Path, text: str, anew: bool = False) -> None:
    """Writes UTF-8 with newlines unchanged; see :func:`whole`."""
    with whole(path, anew) as new:
        new.write_text(text, encoding="utf-8", newline="")


def _sync_folder(folder: Path) -> None:
    """Syncs a folder, so that a new file name in it is on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
