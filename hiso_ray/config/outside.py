"""Rows that other packages add to our tables.

A package names them in its ``pyproject.toml``; they are there wherever it is installed, in every
process of a run::

    [project.entry-points."hiso_ray.methods"]      # a config.method_row.Method
    mine = "my_package.methods:METHOD"
    [project.entry-points."hiso_ray.tasks"]        # a tasks.row.Row
    mine = "my_package.tasks:TASK"
    [project.entry-points."hiso_ray.benchmarks"]   # a row of tasks.text.benchmarks
    mine = "my_package.tasks:BENCHMARK"

Methods are loaded with the configuration, before anything else of hiso_ray is there: their module
imports ``hiso_ray.config.methods`` at most.
"""

from __future__ import annotations

from collections.abc import Container
from importlib.metadata import entry_points
from typing import Any

from hiso_ray.errors import UserError


def outside(group: str, known: Container[str]) -> dict[str, Any]:
    """What installed packages bring for a table, by name.

    Args:
        known: names that are taken.

    Raises:
        UserError: a name is taken, or is brought twice.
    """
    found: dict[str, Any] = {}
    for entry in entry_points(group=group):
        if entry.name in known or entry.name in found:
            brought = entry.dist.name if entry.dist else entry.value
            raise UserError(
                f"the package {brought} brings {entry.name!r} for {group}, a name that is taken: "
                "rename it there, or uninstall the package"
            )
        found[entry.name] = entry.load()
    return found
