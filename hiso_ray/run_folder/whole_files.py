"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole(path: Path, anew: bool = False) -> Iterator[Path]:
    """A name beside ``path`` to write to; what is there when the context ends takes the place of
    ``path``, and is on disk. An error leaves what was there before.

    The name is this process's own, so that two may write the same file: the later one stays.

    Args:
        anew: ``path`` must not be there; of two that write it at once the first one stays.

    Raises:
        FileExistsError: ``path`` is there, and ``anew`` was asked for.
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
    """Gives a file its name, if nobody has it; renaming would take it from whoever has."""
    try:
        path.hardlink_to(new)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        new.rename(path)
    else:
        new.unlink()


def write_text(path: Path, text: str, anew: bool = False) -> None:
    """UTF-8, newlines as they are; see :func:`whole`."""
    with whole(path, anew) as new:
        new.write_text(text, encoding="utf-8", newline="")


def _sync_folder(folder: Path) -> None:
    """A new name is on disk only when its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
