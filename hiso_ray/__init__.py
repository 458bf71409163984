"""Scalar-only federated zeroth-order fine-tuning, simulated on Ray.

>>> from hiso_ray import Experiment, run
>>> summary = run(Experiment(), out="runs/first")            # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hiso_ray.config import Experiment
from hiso_ray.version import __version__

if TYPE_CHECKING:
    from hiso_ray.runs import replay, resume, run

__all__ = ["Experiment", "__version__", "replay", "resume", "run"]


def __getattr__(name: str) -> Any:
    # Lazy import: the driver actor imports this package and must not load torch.
    if name in ("replay", "resume", "run"):
        from hiso_ray import runs

        return getattr(runs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
