"""A run and its folder: start one, go on with it, rebuild its weights; what one will take."""

from hiso_ray.runs.rebuild import replay
from hiso_ray.runs.start import resume, run

__all__ = ["replay", "resume", "run"]
