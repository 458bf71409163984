"""What the candidates are tried on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from candidates import catalogue
from candidates.run import Candidate
from hiso_ray import Experiment

GEMMA = Path(__file__).parents[2] / "configs" / "gemma-3-270m-sst2-decomfl.yaml"


@dataclass(frozen=True)
class Setting:
    """A task, and who is tried on it for how long.

    Attributes:
        task: its name in the tables.
        every: rounds between looks.
        fields: of the experiment, where they are not the default.
    """

    task: str
    candidates: Mapping[str, Candidate]
    rounds: int
    every: int
    fields: Mapping[str, Any] = field(default_factory=dict)

    def experiment(self, seed: int, given: Mapping[str, Any]) -> Experiment:
        fields = {"task.name": self.task, "seed": seed} | self.fields | given
        return Experiment().changed(**fields)


def _gemma() -> dict[str, Any]:
    sections = yaml.safe_load(GEMMA.read_text())
    return {"task": sections["task"], "method.mu": sections["method"]["mu"]}


SENTENCES = {"task.name": "sst2", "task.max_length": 64, "task.batch_size": 4}
SETTINGS = {
    "scan": Setting("digits", catalogue.SCAN, 800, 10),
    "chosen": Setting("digits", catalogue.CHOSEN, 600, 10),
    "reviews": Setting("reviews", catalogue.REVIEWS, 100, 25),
    "sst2": Setting("sst2", catalogue.SST2, 100, 10, SENTENCES),
    "gemma": Setting("gemma", catalogue.GEMMA, 28, 4, _gemma()),
}
THRESHOLDS = {
    "digits": (0.65, 0.75, 0.85),
    "reviews": (0.75, 0.8, 0.85),
    "sst2": (0.66, 0.68, 0.7),
    "gemma": (0.7, 0.75, 0.77, 0.78),
}
AFTER = {
    "digits": (100, 200, 400, 600),
    "reviews": (25, 50, 75, 100),
    "sst2": (20, 50, 100),
    "gemma": (20, 28, 50, 100),
}  # rounds that have a column
