"""A sweep as a table: fields of every trial, fields that change together, and axes to cross.

::

    name: rates
    base:                        # of every trial
      task: {name: digits}
      federation.num_clients: 64
    arms:                        # fields that belong together
    - {method.name: hiso}
    - {method.name: hiso, method.curvature: scalar}
    grid:                        # every combination, for each arm
      method.lr: [0.01, 0.02]
      seed: [0, 1, 2]
    smoke:                       # what --smoke changes: one value fixes a field, a list is an
                                 # axis, and arms may be given to replace the others
      federation.rounds: 10
      seed: [0]
"""

from __future__ import annotations

import itertools
import runpy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hiso_ray import tasks
from hiso_ray.analysis.identity import cell
from hiso_ray.config import Experiment, put, read_yaml, schedule
from hiso_ray.config.fields import explain
from hiso_ray.errors import UserError
from hiso_ray.federation import devices

Values = dict[str, Any]
"""Fields by their dotted names."""
SHOWN_MISTAKES = 5


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        id: names its run folder; a pure function of the experiment without its resources, so that
            another sweep in the same folder recognizes the trial.
        experiment: resolved.
        values: the fields that differ within the sweep, for showing.
    """

    id: str
    experiment: Experiment
    values: Values

    @property
    def label(self) -> str:
        """``num_clients=64 alpha=0.1 lr=0.02 seed=0``"""
        named = (f"{name.rpartition('.')[2]}={v}" for name, v in self.values.items())
        return " ".join(named) or self.id


class Sweep(BaseModel):
    """A table of experiments.

    Raises:
        pydantic.ValidationError: (a ``ValueError``) the table is malformed; its experiments are
            checked by :meth:`trials`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[\w.-]+$", description="begins the sweep folder's name")
    about: str = Field("", description="a line for people")
    base: Values = Field({}, description="fields of every trial")
    arms: list[Values] = Field([{}], description="fields that change together")
    grid: dict[str, list[Any]] = Field({}, description="axes: every combination is run")
    smoke: Values = Field({}, description="what --smoke changes")

    @field_validator("base", "smoke", mode="before")
    @classmethod
    def _flat(cls, values: Any) -> Any:
        return _dotted(values) if isinstance(values, Mapping) else values

    @field_validator("arms", mode="before")
    @classmethod
    def _flat_arms(cls, arms: Any) -> Any:
        return [cls._flat(arm) for arm in arms] if isinstance(arms, list) else arms

    @field_validator("grid", mode="before")
    @classmethod
    def _plain_axes(cls, grid: Any) -> Any:
        return _dotted(grid) if isinstance(grid, Mapping) else grid

    @model_validator(mode="after")
    def _each_field_once(self) -> Sweep:
        if not self.arms:
            raise ValueError("arms is empty, so the sweep has no trials: leave it out, or give one")
        for name, axis in self.grid.items():
            if not axis:
                raise ValueError(f"grid.{name} is empty, so the sweep has no trials: give values")
            if any(name in arm for arm in self.arms):
                raise ValueError(f"{name} is in grid and in arms: leave it to one of them")
        return self

    def changed(self, values: Mapping[str, Any]) -> Sweep:
        """A copy in which a value fixes a field and a list makes it an axis.

        The field is removed from the arms; arms that are then equal are merged.
        """
        base, grid = dict(self.base), dict(self.grid)
        arms: list[Values] = []
        for arm in self.arms:
            left = {name: value for name, value in arm.items() if name not in values}
            arms += [] if left in arms else [left]
        for name, value in values.items():
            base.pop(name, None)
            if isinstance(value, list):
                grid[name] = value
            else:
                grid.pop(name, None)
                base[name] = value
        return Sweep.model_validate(self.model_dump() | {"base": base, "arms": arms, "grid": grid})

    def smoked(self) -> Sweep:
        """A tiny version of the sweep, for ``--smoke``.

        Raises:
            UserError: the sweep has no ``smoke`` table.
        """
        if not self.smoke:
            raise UserError(
                f"sweep {self.name} does not say what --smoke changes: give it a table `smoke`, "
                "such as {federation.rounds: 10, seed: [0]}"
            )
        values = dict(self.smoke)
        arms = values.pop("arms", self.arms)
        named = self.model_dump() | {"arms": arms, "name": f"{self.name}-smoke"}
        return Sweep.model_validate(named).changed(values)

    def trials(self) -> list[Trial]:
        """Every trial, resolved and valid, in the order of the table.

        Raises:
            UserError: some experiments are invalid (named by the values that cause it), or two
                trials are the same run.
        """
        found: dict[str, Trial] = {}
        mistakes: dict[str, str] = {}  # by message: the first trial with it
        for values in self._combinations():
            label = ", ".join(f"{name} = {value}" for name, value in values.items()) or "the base"
            try:
                experiment = self._experiment(values)
            except ValidationError as error:
                mistakes.setdefault(explain(error), label)
                continue
            except UserError as error:
                mistakes.setdefault(str(error), label)
                continue
            trial = Trial(trial_id(experiment), experiment, values)
            if trial.id in found:
                raise UserError(
                    f"sweep {self.name}: two trials are the same run: {found[trial.id].label} and "
                    f"{trial.label}; leave one out (resources decide no result, and local files "
                    "are told apart by their names, not by where they lie)"
                )
            found[trial.id] = trial
        if mistakes:
            told = [f"{why}\n  with {label}" for why, label in mistakes.items()]
            shown = told[:SHOWN_MISTAKES]
            if len(told) > SHOWN_MISTAKES:
                shown.append(f"and {len(told) - SHOWN_MISTAKES} more")
            raise UserError("\n".join(shown))
        return list(found.values())

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(), sort_keys=False)

    def _combinations(self) -> Iterator[Values]:
        for arm in self.arms:
            for point in itertools.product(*self.grid.values()):
                yield arm | dict(zip(self.grid, point, strict=True))

    def _experiment(self, values: Values) -> Experiment:
        nested: Values = {}
        for name, value in (self.base | values).items():
            put(nested, name, value)
        experiment = Experiment.model_validate(nested)
        return schedule.resolve(devices.resolve(tasks.resolve(experiment)))


def trial_id(experiment: Experiment) -> str:
    """``TASK-METHOD-CELL-seedN``: the name of a trial's run folder."""
    task, method = experiment.task.name, experiment.method.name
    return f"{task}-{method}-{cell(experiment)}-seed{experiment.seed}"


def read_sweep(source: str) -> Sweep:
    """A sweep from a YAML file, or from a Python file that defines ``SWEEP``.

    Raises:
        UserError: the file cannot be read, or does not hold a sweep.
    """
    if source.endswith(".py"):
        if not Path(source).is_file():
            raise UserError(f"cannot read the sweep {source}: no such file")
        sweep = runpy.run_path(source).get("SWEEP")
        if not isinstance(sweep, Sweep):
            raise UserError(f"{source} defines no SWEEP = Sweep(...)")
        return sweep
    try:
        return Sweep.model_validate(read_yaml(source))
    except ValidationError as error:
        raise UserError(f"{source} is no sweep:\n{_explain_table(error)}") from error


def _explain_table(error: ValidationError) -> str:
    lines = []
    for mistake in error.errors():
        place = ".".join(str(part) for part in mistake["loc"])
        if mistake["type"] == "extra_forbidden":
            lines.append(f"{place}: unknown (allowed: {', '.join(Sweep.model_fields)})")
        elif mistake["type"] == "value_error":
            lines.append(str(mistake["ctx"]["error"]))
        else:
            lines.append(f"{place} = {mistake['input']!r}: {mistake['msg']}")
    return "\n".join(lines)


def _dotted(values: Mapping[str, Any], prefix: str = "") -> Values:
    """Flattens sections into dotted names and converts values to plain YAML types."""
    found: Values = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _dotted(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _dotted(value)
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value
