"""Imports point down, and each library stays where it belongs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    path
    for name in ("hiso_ray", "analysis", "sweeps")
    for path in sorted((ROOT / name).rglob("*.py"))
    if not any(parent.is_symlink() for parent in path.parents)
]

# room -> the rooms of ours it may import (its own always)
GROUND = {"errors"}  # what every room may import
ALLOWED = {
    "errors": set(),
    "config": set(),
    "fields": {"config"},
    "seeds": set(),
    "record": set(),
    "locks": set(),
    "whole_files": set(),
    "ledger": {"locks", "record", "whole_files"},
    "messages": {"record"},
    "snapshots": {"ledger", "messages", "whole_files"},
    "sampling": {"config", "seeds"},
    "devices": {"config", "seeds"},
    "uplink": set(),
    "aggregation": {"config"},
    "attacks": {"config", "seeds"},
    "privacy": set(),
    "traffic": {"config", "devices", "record", "uplink", "whole_files"},
    "attendance": {"config", "devices", "seeds", "traffic"},
    "method": {"seeds"},
    "tasks": {"config", "seeds", "messages", "whole_files", "work_units"},
    "landscape": {"method", "seeds", "tasks"},
    "out_of_memory": {"config", "work_units"},
    "replica": {
        "config",
        "landscape",
        "messages",
        "method",
        "record",
        "seeds",
        "snapshots",
        "tasks",
        "work_units",
    },
    "diagnostics": {"config", "landscape", "method", "replica", "seeds"},
    "client": {
        "config",
        "messages",
        "method",
        "out_of_memory",
        "privacy",
        "replica",
        "sampling",
        "seeds",
        "tasks",
        "traffic",
        "uplink",
    },
    "client_updates": {"client", "messages", "method", "replica", "tasks"},
    "work_units": {"config", "method"},
    "metrics": {"config", "traffic", "whole_files"},
    "outcomes": {"messages", "whole_files"},
    "execution": {
        "aggregation",
        "attacks",
        "attendance",
        "client",
        "client_updates",
        "config",
        "devices",
        "diagnostics",
        "ledger",
        "messages",
        "method",
        "metrics",
        "out_of_memory",
        "outcomes",
        "privacy",
        "record",
        "replica",
        "sampling",
        "seeds",
        "snapshots",
        "tasks",
        "traffic",
        "uplink",
        "work_units",
    },
    "run_folder": {"config", "ledger", "locks", "metrics", "whole_files"},
    "plan": {"method", "attendance", "config", "devices", "execution", "tasks", "traffic"},
    "opening": {"config", "execution", "plan", "tasks"},
    "runs": {
        "opening",
        "attendance",
        "config",
        "devices",
        "execution",
        "ledger",
        "messages",
        "metrics",
        "outcomes",
        "run_folder",
        "tasks",
        "traffic",
        "work_units",
        "analysis",
    },
    "progress": {"config", "metrics", "plan"},
    "cli": {
        "config",
        "options",
        "plan",
        "progress",
        "run_folder",
        "runs",
        "tasks",
        "analysis",
    },
    "options": {"fields"},
    "__main__": {"cli"},
    "__init__": {"config", "runs"},
    "analysis": {"config", "metrics", "whole_files"},
    "sweeps": {
        "analysis",
        "config",
        "devices",
        "execution",
        "fields",
        "locks",
        "metrics",
        "options",
        "progress",
        "run_folder",
        "runs",
        "whole_files",
        "tasks",
        "traffic",
    },
}


PUBLIC = {"Experiment": "config", "__version__": "config", "run": "runs", "resume": "runs"}


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "hiso_ray" else parts[0]


def imported(path: Path) -> set[str]:
    """Dotted names of every import in the file, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(path: Path) -> Iterator[tuple[str, str]]:
    """The rooms of ours that a file imports from, and the dotted names."""
    for name in imported(path):
        parts = name.split(".")
        # A user may have folders of these names beside the program.
        assert parts[0] not in ("analysis", "sweeps"), f"{path}: it is hiso_ray.{name}"
        if parts[0] == "hiso_ray":
            yield PUBLIC.get(parts[1], parts[1]), name


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    for target, name in ours(path):
        assert target in ALLOWED[room(path)] | GROUND | {room(path)}, f"{path.name} imports {name}"


def test_nothing_is_allowed_that_nobody_does() -> None:
    used: dict[str, set[str]] = {name: set() for name in ALLOWED}
    for path in FILES:
        used[room(path)] |= {target for target, _ in ours(path)} - GROUND - {room(path)}
    assert used == ALLOWED


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_libraries_stay_in_their_rooms(path: Path) -> None:
    tops = {name.split(".")[0] for name in imported(path)}
    if path.parent.name != "cluster" and room(path) != "sweeps":
        assert "ray" not in tops
    if room(path) == "method":
        assert not tops & {"transformers", "datasets", "pathlib", "json"}
    if room(path) == "analysis":
        assert not tops & {"torch", "transformers"}


def test_the_driver_needs_no_torch() -> None:
    module = "hiso_ray.execution.cluster.driver_actor"
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
