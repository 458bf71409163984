"""Runs and their folders: start, resume and plan a run, and rebuild its weights."""

from hiso_ray.runs.rebuild import replay
from hiso_ray.runs.start import resume, run

__all__ = ["replay", "resume", "run"]
