"""The experiment as a whole, and its YAML."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import model_validator

from hiso_ray.config import fits
from hiso_ray.config.sections import Sections
from hiso_ray.errors import UserError

SCORING = {"eval_batch_size", "eval_examples", "max_new_tokens", "metric", "validation_examples"}
"""Fields of ``task`` that affect what evaluation reports, but not what a round adds."""


LATER: dict[str, Any] = {
    "task.validation_examples": 0,
    "method.schedule": "constant",
    "method.schedule_rounds": "auto",
    "method.schedule_floor": 0.0,
    "method.warmup_rounds": 0,
    "method.averaging": 0.0,
    "method.client_loss": "plain",
    "method.projections": 256,
}
"""Fields newer than many runs, and the values at which nothing is as if they were not there:
digests and cells leave them out, so that older runs keep theirs."""


class Experiment(Sections):
    """One federation, complete. ``Experiment()`` is the embedded default job.

    Raises:
        pydantic.ValidationError: (a ``ValueError``) unknown key, wrong type, value out of range or
            impossible combination; :func:`hiso_ray.config.fields.explain` makes it readable.
    """

    @model_validator(mode="after")
    def _sections_fit(self) -> Experiment:
        fits.check(self)
        return self

    def changed(self, **dotted: Any) -> Experiment:
        """A validated copy with fields replaced: ``changed(**{"method.lr": 0.1, "seed": 3})``.

        With another ``method.name``, fields that were never set take the new method's own values.
        """
        values = self.model_dump()
        if "method.name" in dotted:
            values["method"] = self.method.renamed(dotted["method.name"])
        for name, value in dotted.items():
            put(values, name, value)
        return Experiment.model_validate(values)

    def digest(self) -> str:
        """SHA-256 over the fields that decide what a round adds to the ledger.

        It excludes trackers, resources, evaluation, diagnostics and the number of rounds. It also
        excludes the paths of model, data, a mask's text and device profile: the ledger's header has
        digests of their contents, or of the mask.
        """
        elsewhere: dict[str, Any] = {
            "tracking": True,
            "resources": True,
            "eval": True,
            "diagnostics": True,
            "task": {"model", "data", "sparse_text"} | SCORING,
            "federation": {"rounds"},
            "devices": {"profile"},
        }
        decisive = self.model_dump(exclude=elsewhere)
        for name, value in LATER.items():
            section, field = name.split(".")
            if decisive[section].get(field) == value:
                del decisive[section][field]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def scoring(self) -> dict[str, Any]:
        """The fields that decide what evaluation reports."""
        return self.task.model_dump(include=SCORING)

    def dotted(self) -> dict[str, Any]:
        """Every field's value by its dotted name, in order."""
        return dict(_dotted(self.model_dump()))

    def to_yaml(self) -> str:
        """Every field with its value, as a run folder's ``config.yaml`` has them."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)


def _dotted(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def read_yaml(path: Path | str) -> dict[str, Any]:
    """The mapping in a YAML file, not yet validated.

    Raises:
        UserError: the file is missing, is not YAML, or does not hold a mapping.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path} holds a {type(values).__name__}, not sections of fields")
    return values


def put(values: dict[str, Any], dotted: str, value: Any) -> None:
    """``put(values, "task.lora.r", 8)`` sets ``values["task"]["lora"]["r"]``.

    Raises:
        UserError: a part of the dotted name is not a section of fields.
    """
    *sections, field = dotted.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise UserError(f"{section} = {values!r} is not a section of fields")
    values[field] = value
