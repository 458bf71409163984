"""Rows that other packages add to our tables.

A package declares them in its ``pyproject.toml``. Every process of a run loads them wherever the
package is installed::

    [project.entry-points."hiso_ray.methods"]      # a config.method_row.Method
    mine = "my_package.methods:METHOD"
    [project.entry-points."hiso_ray.tasks"]        # a tasks.row.Row
    mine = "my_package.tasks:TASK"
    [project.entry-points."hiso_ray.benchmarks"]   # a row of tasks.text.benchmarks
    mine = "my_package.tasks:BENCHMARK"

Methods are loaded with the configuration, before the rest of hiso_ray: their module may import
nothing of it beyond ``hiso_ray.config.methods``.
"""

from __future__ import annotations

from collections.abc import Container
from importlib.metadata import entry_points
from typing import Any

from hiso_ray.errors import UserError


def outside(group: str, known: Container[str]) -> dict[str, Any]:
    """The rows that installed packages add to a table, by name.

    Args:
        known: names already in the table.

    Raises:
        UserError: a name is already in the table, or is added twice.
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
