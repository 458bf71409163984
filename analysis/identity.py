"""How runs are named, and which runs differ only in their seeds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hiso_ray.config import Experiment, own_value
from hiso_ray.config.experiment import LATER

# fields that make a variant of a method, and how its label shows them
VARIANTS = {
    "curvature": "{}",
    "curvature_in": "H in {} only",
    "directions": "{} directions",
    "distribution": "{}",
    "probe": "{}",
    "momentum": "momentum {:g}",
    "schedule": "{} schedule",
    "warmup_rounds": "warm-up {}",
    "averaging": "averaging {:g}",
    "client_loss": "{} loss",
}
NO_RESULT = ("tracking", "resources.", "diagnostics.")  # what affects no result
LOCAL = ("task.model", "task.data", "task.sparse_text", "devices.profile")  # may be paths


def identity(experiment: Experiment) -> dict[str, Any]:
    """The columns that name a run in every table."""
    return {"cell": cell(experiment), "seed": experiment.seed, "method": label(experiment)}


def cell(experiment: Experiment) -> str:
    """12 hex digits of a hash over all but seed, trackers, resources and diagnostics: the seeds of
    one configuration share it."""
    fields = fields_of(experiment).items()
    values = {n: v for n, v in fields if n != "seed" and not n.startswith(NO_RESULT)}
    values = {n: v for n, v in values.items() if LATER.get(n, ...) != v}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def label(experiment: Experiment) -> str:
    """The method's name, with its departures from the method's defaults in brackets:
    ``hiso (scalar, H in probe only)``."""
    method, departures = experiment.method, []
    for name, said in VARIANTS.items():
        value = getattr(method, name)
        if value != own_value(method.name, name):
            departures.append(said.format(value))
    if experiment.uplink.precision != "float32":
        departures.append(experiment.uplink.precision)
    return f"{method.name} ({', '.join(departures)})" if departures else method.name


def fields_of(experiment: Experiment) -> dict[str, Any]:
    """Every field by its dotted name; local paths as file names, because their folders depend on
    the machine."""
    fields = experiment.dotted()
    for name in LOCAL:
        if name in fields and Path(fields[name]).is_absolute():
            fields[name] = Path(fields[name]).name
    # A list becomes text, as on the command line: a table's cell holds one value.
    return {
        name: json.dumps(value, ensure_ascii=False) if isinstance(value, tuple) else value
        for name, value in fields.items()
    }
