"""``stopped.json``: why a run ended before its last round. A kill leaves none."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from hiso_ray.errors import NonFiniteLoss, TurnFailed, UserError
from hiso_ray.run_folder import files
from hiso_ray.run_folder.ledger import LedgerError
from hiso_ray.run_folder.whole_files import write_text


class Stopped(NamedTuple):
    """
    Attributes:
        kind: the exception's name.
        error: its text; of a fault of the program, the traceback.
    """

    kind: str
    error: str

    @property
    def diverged(self) -> bool:
        return self.kind == NonFiniteLoss.__name__

    @property
    def interrupted(self) -> bool:
        """Whether somebody stopped it, rather than an error."""
        return self.kind in (KeyboardInterrupt.__name__, SystemExit.__name__)


@contextmanager
def recorded(folder: Path) -> Iterator[None]:
    """Writes the file if the context ends with an exception; the file of an earlier start goes. A
    ledger that is refused leaves everything as it was."""
    path, before = folder / files.STOPPED, None
    with suppress(OSError):
        before = path.read_bytes()
        path.unlink()
    try:
        yield
    except LedgerError:
        if before is not None:
            with suppress(OSError):
                path.write_bytes(before)
        raise
    except BaseException as error:
        known = isinstance(error, (UserError, TurnFailed, OSError))
        known |= not isinstance(error, Exception)
        text = str(error) if known else traceback.format_exc()
        with suppress(OSError):  # keep the error that stopped the run
            write_text(path, json.dumps({"kind": type(error).__name__, "error": text}) + "\n")
        raise


def read_stopped(folder: Path) -> Stopped | None:
    """What a run folder's ``stopped.json`` says; None if it is missing or cannot be read."""
    try:
        content = json.loads((folder / files.STOPPED).read_text(encoding="utf-8"))
        return Stopped(str(content["kind"]), str(content["error"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
