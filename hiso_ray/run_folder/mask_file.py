"""``mask.safetensors``: a mask that was measured.

A run keeps it because another machine, whose last bits are others, may measure another one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from hiso_ray.run_folder import files
from hiso_ray.run_folder.ledger import LedgerError
from hiso_ray.run_folder.whole_files import whole

NAME = "index"


def write(folder: Path, index: np.ndarray) -> None:
    """Writes a mask into a run folder, unless it has one.

    Args:
        index: (d,) int64 positions of the trained weights.
    """
    path = folder / files.MASK
    if not path.exists():
        with whole(path) as new:
            save_file({NAME: index}, new)


def read(folder: Path) -> np.ndarray | None:
    """The mask of a run folder; None if it has none.

    Raises:
        LedgerError: the file is damaged.
    """
    path = folder / files.MASK
    if not path.exists():
        return None
    try:
        index = load_file(path)[NAME]
    except (SafetensorError, OSError, KeyError) as error:
        raise _damaged(path, error) from error
    ascending = index.ndim == 1 and index.size > 0 and index[0] >= 0 and (np.diff(index) > 0).all()
    if index.dtype != np.int64 or not ascending:
        raise _damaged(path, "no ascending positions")
    return index


def _damaged(path: Path, why: object) -> LedgerError:
    return LedgerError(
        f"{path} cannot be read ({why}): put it back, or remove it to measure the mask again"
    )
