"""The base class of the sections of the experiment."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Auto = Literal["auto"]
MOST = 2**31 - 1  # largest count accepted; larger ones overflow somewhere
PositiveInt = Annotated[int, Field(gt=0, le=MOST)]
NaturalInt = Annotated[int, Field(ge=0, le=MOST)]
PositiveFloat = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """Frozen; rejects unknown keys, NaN and infinity, booleans, and text with NUL characters."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for name, value in values.items():
                if isinstance(value, bool):
                    raise ValueError(f"{name} = {value}: no field takes true or false")
                if isinstance(value, str) and "\x00" in value:
                    raise ValueError(f"{name} = {value!r}: no field takes a NUL character")
        return values


def given(section: Section) -> set[str]:
    """Fields that differ from their defaults. A config.yaml names every field, so being named does
    not mean that the user set it."""
    fields = type(section).model_fields.items()
    return {name for name, info in fields if getattr(section, name) != info.default}
