"""Tasks: model, data, loss and score behind one contract (``contract.Task``)."""

from hiso_ray.tasks.registry import build, count, load, prepare, preview, resolve

__all__ = ["build", "count", "load", "prepare", "preview", "resolve"]
