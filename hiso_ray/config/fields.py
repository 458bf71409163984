"""The experiment's fields by their dotted names, for the command line and for its errors."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import ValidationError

from hiso_ray.config import Experiment, Section


def known_fields(section: type[Section] = Experiment, prefix: str = "") -> dict[str, Any]:
    """Every field by its dotted name, in order: ``{"seed": FieldInfo, "task.name": ...}``."""
    fields: dict[str, Any] = {}
    for name, info in section.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            fields |= known_fields(info.annotation, f"{prefix}{name}.")
        else:
            fields[prefix + name] = info
    return fields


def explain(error: ValidationError) -> str:
    """One line per mistake: the field, the value given, and what is allowed."""
    fields = known_fields()
    lines = []
    for mistake in error.errors():
        # The location of a union field also names the alternative; report the field alone.
        path = ".".join(str(part) for part in mistake["loc"])
        field = next((f for f in fields if path == f or path.startswith(f"{f}.")), path)
        if mistake["type"] == "extra_forbidden":
            near = difflib.get_close_matches(field, fields, n=1, cutoff=0.5)
            allowed = [f for f in fields if f.rpartition(".")[0] == field.rpartition(".")[0]]
            hint = f"; did you mean {near[0]}?" if near else ""
            lines.append(f"{field}: unknown field{hint} (allowed: {', '.join(allowed)})")
        elif mistake["type"] == "value_error":
            # A section's own error message begins with a field name.
            joint = "" if not field else ": " if field in fields else "."
            lines.append(f"{field}{joint}{mistake['ctx']['error']}")
        else:
            lines.append(f"{field} = {mistake['input']!r}: {mistake['msg']}")
    return "\n".join(dict.fromkeys(lines))
