"""Fields that hold several texts, as YAML or the command line gives them."""

from __future__ import annotations

import json
from typing import Any

from hiso_ray.errors import UserError


def texts(value: Any) -> Any:
    """Reads a list given as YAML, JSON or comma-separated; spaces stay, numbers become text."""
    if isinstance(value, str) and value != "auto":
        value = json.loads(value) if value.lstrip().startswith("[") else value.split(",")
    if not isinstance(value, (list, tuple)):
        return value
    booleans = [str(one).lower() for one in value if isinstance(one, bool)]
    if booleans:
        raise UserError(
            f"{', '.join(booleans)} is no text: YAML reads yes, no, true and false so unless they "
            'are quoted, as in ["no", "yes"]'
        )
    return [str(one) if isinstance(one, (int, float)) else one for one in value]


def stripped(value: Any) -> Any:
    """As :func:`texts`, but strips the spaces around each text."""
    found = texts(value)
    if not isinstance(found, list):
        return found
    return [one.strip() if isinstance(one, str) else one for one in found]
