"""What a run is called, and which runs are one configuration with other seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hiso_ray.config import Experiment, own_value

# fields that make a variant of a method, and how its label says so
VARIANTS = {
    "curvature": "{}",
    "curvature_in": "H in {} only",
    "directions": "{} directions",
    "distribution": "{}",
    "probe": "{}",
    "momentum": "momentum {:g}",
}
LATER = {"task.validation_examples": 0}  # younger than many tables; so they change no cell's name
LOCAL = ("task.model", "task.data", "devices.profile")  # may be paths


def identity(experiment: Experiment) -> dict[str, Any]:
    """The columns that name a run in every table."""
    return {"cell": cell(experiment), "seed": experiment.seed, "method": label(experiment)}


def cell(experiment: Experiment) -> str:
    """What seeds of the same configuration share: 12 hex digits over all but seed, resources and
    diagnostics."""
    fields = fields_of(experiment).items()
    apart = ("resources.", "diagnostics.")
    values = {n: v for n, v in fields if n != "seed" and not n.startswith(apart)}
    values = {n: v for n, v in values.items() if LATER.get(n, ...) != v}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def label(experiment: Experiment) -> str:
    """The method's name, and in brackets where it departs from what it is by itself:
    ``hiso (scalar, H in probe only)``."""
    method, departures = experiment.method, []
    for name, said in VARIANTS.items():
        value = getattr(method, name)
        if value != own_value(method.name, name):
            departures.append(said.format(value))
    if experiment.uplink.precision != "float32":
        departures.append(experiment.uplink.precision)
    return method.name + f" ({', '.join(departures)})" * bool(departures)


def fields_of(experiment: Experiment) -> dict[str, Any]:
    """Every field by its dotted name; local files by their own, because where they lie is the
    machine's business."""
    fields = dict(_dotted(experiment.model_dump()))
    for name in LOCAL:
        if Path(fields[name]).is_absolute():
            fields[name] = Path(fields[name]).name
    return fields


def _dotted(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            # A list is text, as the command line takes it: tables have one value a cell.
            texts = isinstance(value, tuple)
            yield prefix + name, json.dumps(value, ensure_ascii=False) if texts else value
