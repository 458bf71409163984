"""The trackers that a run reports to."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from hiso_ray.config.texts import stripped

TRACKERS = ("tensorboard", "mlflow", "wandb")


def _given(value: Any) -> Any:
    """The names that are not empty, so that an empty text is no tracker."""
    found = stripped(value)
    return [name for name in found if name != ""] if isinstance(found, list) else found


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"{name} is no tracker: choose from {', '.join(TRACKERS)}")
    return tuple(dict.fromkeys(names))


Tracking = Annotated[tuple[str, ...], BeforeValidator(_given), AfterValidator(_known)]
