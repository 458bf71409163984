"""What a ledger's header says of the run that wrote it, and whether it can be continued here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hiso_ray.ledger import Ledger, LedgerError
from hiso_ray.messages import Description


def open_ledger(
    folder: Path, identity: dict[str, str], description: Description, on_note: Callable[[str], None]
) -> Ledger:
    """The run's ledger, created on its first start.

    Args:
        identity: digests of the configuration, x_0 and the data.

    Raises:
        LedgerError: the ledger belongs to another run, or its directions cannot be rebuilt here.
    """
    path = folder / "ledger.jsonl"
    if not path.exists():
        return Ledger.create(path, identity | asdict(description))
    ledger = Ledger.open(path)
    for note in check_header(ledger.header, identity, description):
        on_note(note)
    if ledger.dropped_bytes:
        on_note(f"dropped a torn record of {ledger.dropped_bytes} bytes at the ledger's end")
    return ledger


def check_header(
    header: dict[str, Any], identity: dict[str, str], description: Description
) -> list[str]:
    """Compares a ledger's header with what is here; returns differences that may change bits.

    Raises:
        LedgerError: a difference that makes replay wrong.
    """
    for name, value in identity.items():
        if header[name] != value:
            raise LedgerError(
                f"the ledger was written with another {name.removesuffix('_sha256')}: "
                f"{header[name][:12]} there, {value[:12]} here"
            )
    if header["generator"] != description.generator:
        raise LedgerError(
            f"the ledger's directions come from {header['generator']}, here they would come from "
            f"{description.generator}: replay where it was written, or the weights would differ"
        )
    here = asdict(description)
    return [
        f"{name}: {header[name]} when written, {here[name]} here; results may differ in their bits"
        for name in ("device", "torch", "threads")
        if header[name] != here[name]
    ]
