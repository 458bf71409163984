"""The experiment as a whole, and its YAML."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, model_validator

from hiso_ray.config import fits
from hiso_ray.config.aggregation import AggregationConfig, AttackConfig, UplinkConfig
from hiso_ray.config.federation import DevicesConfig, FederationConfig
from hiso_ray.config.method import MethodConfig
from hiso_ray.config.privacy import PrivacyConfig
from hiso_ray.config.resources import DiagnosticsConfig, EvalConfig, ResourcesConfig
from hiso_ray.config.section import Section
from hiso_ray.config.task import TaskConfig
from hiso_ray.errors import UserError

SCORING = {"eval_batch_size", "eval_examples", "max_new_tokens", "metric", "validation_examples"}
"""Fields of ``task`` that decide what evaluation reports, and nothing that a round adds."""


class Experiment(Section):
    """One federation, complete. ``Experiment()`` is the embedded default job.

    Raises:
        pydantic.ValidationError: (a ``UserError``) unknown key, wrong type, value out of range or
            impossible combination; :func:`hiso_ray.fields.explain` turns it into words.
    """

    seed: int = Field(0, ge=0, lt=2**63, description="run seed; everything random derives from it")
    task: TaskConfig = TaskConfig()
    federation: FederationConfig = FederationConfig()
    devices: DevicesConfig = DevicesConfig()
    method: MethodConfig = MethodConfig()
    uplink: UplinkConfig = UplinkConfig()
    aggregation: AggregationConfig = AggregationConfig()
    attack: AttackConfig = AttackConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    resources: ResourcesConfig = ResourcesConfig()
    eval: EvalConfig = EvalConfig()
    diagnostics: DiagnosticsConfig = DiagnosticsConfig()

    @model_validator(mode="after")
    def _sections_fit(self) -> Experiment:
        fits.check(self)
        return self

    @property
    def sends_weights(self) -> bool:
        """Whether clients send d floats; otherwise the model is a fold over the ledger."""
        return self.method.row.sends == "weights"

    @property
    def precision(self) -> str:
        """How scalars travel up: the method's own way, or the one asked for."""
        own = self.method.row.uplink
        return self.uplink.precision if own == "float32" else own

    @property
    def rule(self) -> str:
        """How scalars are combined: the method's own way, or the one asked for."""
        own = self.method.row.aggregation
        return self.aggregation.rule if own == "mean" else own

    def changed(self, **dotted: Any) -> Experiment:
        """A validated copy with fields replaced: ``changed(**{"method.lr": 0.1, "seed": 3})``.

        With another ``method.name``, fields that were not given take the new method's own values.
        """
        values = self.model_dump()
        if "method.name" in dotted:
            values["method"] = self.method.renamed(dotted["method.name"])
        for name, value in dotted.items():
            put(values, name, value)
        return Experiment.model_validate(values)

    def digest(self) -> str:
        """SHA-256 over the fields that decide what a round adds to the ledger.

        Resources, evaluation and diagnostics do not, nor how many rounds follow. Where model, data
        and the devices' profile lie does not either; what they hold does, and has digests of its
        own in the ledger's header.
        """
        elsewhere: dict[str, Any] = {
            "resources": True,
            "eval": True,
            "diagnostics": True,
            "task": {"model", "data"} | SCORING,
            "federation": {"rounds"},
            "devices": {"profile"},
        }
        decisive = self.model_dump(exclude=elsewhere)
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def scoring(self) -> dict[str, Any]:
        """The fields that decide what evaluation reports."""
        return self.task.model_dump(include=SCORING)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(), sort_keys=False)


def load(path: Path | str) -> dict[str, Any]:
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
        UserError: something on the way is not a section of fields.
    """
    *sections, field = dotted.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise UserError(f"{section} = {values!r} is not a section of fields")
    values[field] = value
