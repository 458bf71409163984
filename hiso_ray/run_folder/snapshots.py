"""Snapshots: x_r and H_r in a file, so that a replica need not start from x_0.

The ledger remains the checkpoint; a snapshot only shortens the replay, and bounds the number of
records that the driver keeps in memory. It stores the ledger's check at its round and a SHA-256 of
its content. A snapshot that does not match is ignored, and replicas start from x_0.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hiso_ray.messages import Snapshot
from hiso_ray.run_folder.ledger import Ledger
from hiso_ray.run_folder.whole_files import whole

ENDING = ".safetensors"


def write(
    folder: Path, round_: int, check: str, tensors: dict[str, np.ndarray], update_norm: float
) -> Snapshot:
    """Writes a snapshot, whole or not at all.

    Args:
        check: ``Ledger.check`` of the round.
        tensors: float32, by name.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(exist_ok=True)
    path = folder / f"round-{round_:08d}{ENDING}"
    sha256 = _sha256(tensors, update_norm)
    said = {
        "round": str(round_),
        "check": check,
        "sha256": sha256,
        "update_norm": update_norm.hex(),
    }
    try:
        with whole(path) as new:
            save_file(tensors, new, metadata=said)
    except (SafetensorError, OSError) as error:  # the library has its own error for a full disk
        raise OSError(f"{path} could not be written: {error}") from error
    return Snapshot(round_, path, sha256)


def read(snapshot: Snapshot) -> tuple[dict[str, np.ndarray], float]:
    """The tensors, and ‖Δ‖ of the last update.

    Raises:
        OSError: the file cannot be read from here, or is damaged.
    """
    try:
        with safe_open(snapshot.path, framework="np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            update_norm = float.fromhex(file.metadata()["update_norm"])
    except (SafetensorError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise OSError(f"{snapshot.path}: {error}") from error
    if _sha256(tensors, update_norm) != snapshot.sha256:
        raise OSError(f"{snapshot.path}: the file is damaged")
    return tensors, update_norm


def newest(folder: Path, ledger: Ledger) -> tuple[Snapshot | None, list[str]]:
    """The newest snapshot in ``folder`` that belongs to the ledger, and a note on each newer file
    that does not."""
    notes = []
    for path in sorted(folder.glob(f"*{ENDING}"), reverse=True):
        try:
            with safe_open(path, framework="np") as file:
                said = file.metadata()
            round_, check, sha256 = int(said["round"]), said["check"], said["sha256"]
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            notes.append(f"{path.name} is not a snapshot that can be read ({error}): left out")
            continue
        if round_ <= ledger.round and ledger.check(round_) == check:
            return Snapshot(round_, path, sha256), notes
        notes.append(f"{path.name} is a snapshot of another history than the ledger's: left out")
    return None, notes


def keep_only(snapshot: Snapshot) -> None:
    """Removes all other snapshots, which this one replaces, and half-written files."""
    for path in snapshot.path.parent.iterdir():
        if path != snapshot.path and path.suffix in (ENDING, ".new"):
            with suppress(OSError):  # e.g. another user's file, which does no harm
                path.unlink()


def _sha256(tensors: dict[str, np.ndarray], update_norm: float) -> str:
    sha = hashlib.sha256(update_norm.hex().encode())
    for name in sorted(tensors):
        sha.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        sha.update(np.ascontiguousarray(tensors[name]).data)
    return sha.hexdigest()
