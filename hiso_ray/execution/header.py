"""The ledger's header: identifies the run that wrote it and decides if it can be continued here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from hiso_ray.config import Experiment
from hiso_ray.execution.contract import Job
from hiso_ray.federation import devices
from hiso_ray.federation.attendance import Population
from hiso_ray.messages import Description
from hiso_ray.run_folder import files
from hiso_ray.run_folder.ledger import Ledger, LedgerError

if TYPE_CHECKING:  # imports torch, which the driver does not need
    from hiso_ray.tasks.contract import Prepared


def identity_of(
    experiment: Experiment, prepared: Prepared, population: Population
) -> dict[str, str]:
    """Digests of what decides the weights; evaluation data does not, and is checked separately."""
    arrays = {k: v for k, v in prepared.arrays.items() if not k.startswith("eval_")}
    data = hashlib.sha256()
    for name, array in sorted((arrays | {"labels": prepared.labels}).items()):
        data.update(name.encode())
        data.update(np.ascontiguousarray(array).data)
    spec = {name: value for name, value in prepared.spec.items() if name != "evaluation"}
    return {
        "config_sha256": experiment.digest(),
        "x0_sha256": hashlib.sha256(np.ascontiguousarray(prepared.x0).data).hexdigest(),
        "data_sha256": data.hexdigest(),
        "task_sha256": hashlib.sha256(
            json.dumps(spec, sort_keys=True, default=str).encode()
        ).hexdigest(),
        "devices_sha256": devices.digest(population.devices),
    }


def open_ledger(job: Job, description: Description, on_note: Callable[[str], None]) -> Ledger:
    """The run's ledger, created on its first start.

    Raises:
        LedgerError: the ledger belongs to another run, its rounds were scored on other examples, or
            its directions cannot be rebuilt here.
    """
    path, scored_on = job.folder / files.LEDGER, {"evaluation_sha256": job.evaluation_sha256}
    if not path.exists():
        return Ledger.create(path, job.identity | scored_on | asdict(description))
    ledger = Ledger.open(path)
    try:
        notes = check_header(ledger.header, job.identity, description)
        check_evaluation(ledger.header, job.evaluation_sha256)
    except LedgerError:
        ledger.close()
        raise
    for note in notes:
        on_note(note)
    if ledger.dropped_bytes:
        on_note(f"dropped a torn record of {ledger.dropped_bytes} bytes at the ledger's end")
    return ledger


def check_identity(header: dict[str, Any], identity: dict[str, str]) -> None:
    """
    Raises:
        LedgerError: the ledger was written with another configuration, x_0, data or devices.
    """
    for name, value in identity.items():
        if header[name] != value:
            raise LedgerError(
                f"the ledger was written with another {name.removesuffix('_sha256')}: "
                f"{header[name][:12]} there, {value[:12]} here"
            )


def other_evaluation(header: dict[str, Any], evaluation_sha256: str) -> str | None:
    """A message if the rounds so far were scored on other evaluation examples; None if they were
    not, or if an older version wrote the ledger and did not record the examples."""
    before = header.get("evaluation_sha256", evaluation_sha256)
    if before == evaluation_sha256:
        return None
    return (
        "the rounds so far were scored on other evaluation examples (evaluation_sha256 "
        f"{before[:12]} there, {evaluation_sha256[:12]} here)"
    )


def check_evaluation(header: dict[str, Any], evaluation_sha256: str) -> None:
    """
    Raises:
        LedgerError: the rounds so far were scored on other examples.
    """
    if said := other_evaluation(header, evaluation_sha256):
        raise LedgerError(
            f"{said}, and one table must not mix the two: put the old evaluation data back, or "
            "start a new run"
        )


def check_header(
    header: dict[str, Any], identity: dict[str, str], description: Description
) -> list[str]:
    """Compares a ledger's header with this machine; returns differences that may change bits.

    Raises:
        LedgerError: a difference would make replay wrong.
    """
    check_identity(header, identity)
    if header["generator"] != description.generator:
        raise LedgerError(
            f"the ledger's directions come from {header['generator']}, here they would come from "
            f"{description.generator}: replay where it was written, or the weights would differ "
            "(method.generator philox makes the same directions everywhere)"
        )
    here = asdict(description)
    return [
        f"{name}: {header[name]} when written, {here[name]} here; results may differ in their bits"
        for name in ("device", "torch", "threads")
        if header[name] != here[name]
    ]
