"""Imports point down, and each library stays where it belongs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    path
    for name in ("hiso_ray", "analysis", "sweeps")
    for path in sorted((ROOT / name).rglob("*.py"))
    if not any(parent.is_symlink() for parent in path.parents)
]

# Lowest first. A room imports from those before it; what all may import is the ground.
GROUND = ("errors", "version", "progress", "seeds", "record", "messages")
FLOORS = (
    "config",
    "run_folder",
    "tracking",
    "federation",
    "method",
    "server",
    "tasks",
    "client",
    "execution",
    "analysis",
    "runs",
    "doctor",
    "cli",
    "sweeps",
)
# Packages that are imported by another name than they are installed by, that a dependency or an
# extra brings, and that only DataFrame.to_markdown imports.
NAMED = {"pyyaml": "yaml", "scikit-learn": "sklearn"}
BROUGHT = {"huggingface_hub", "tokenizers", "llvmlite", "triton", "PIL"}
EXTRA = {"gguf", "mlflow", "wandb"}
BEHIND = {"tabulate"}
PUBLIC = {"Experiment": "config", "__version__": "version", "run": "runs", "resume": "runs"}


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
    own = room(path)
    if own in ("__init__", "__main__"):
        return
    below = GROUND if own in GROUND else (*GROUND, *FLOORS[: FLOORS.index(own)])
    for target, name in ours(path):
        assert target in (*below, own), f"{path.relative_to(ROOT)} imports {name}"


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    dotted = ".".join(parts if parts[0] == "hiso_ray" else ("hiso_ray", *parts))
    return dotted.removesuffix(".__init__")


def test_no_file_imports_itself_by_way_of_others() -> None:
    names = {module(path) for path in FILES}
    graph = {}
    for path in FILES:
        found = {name if name in names else name.rpartition(".")[0] for _, name in ours(path)}
        graph[module(path)] = (found & names) - {module(path)}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the files


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


def test_dependencies_are_what_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[\[=<>]", line)[0] for line in project["dependencies"]]
    given = {NAMED.get(name, name.replace("-", "_")) for name in names} - BEHIND
    tops = {name.split(".")[0] for path in FILES for name in imported(path)}
    tops -= {"hiso_ray", *sys.stdlib_module_names}
    assert tops - BROUGHT - EXTRA == given


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["run", "--help"], {"ray", "torch", "transformers", "pandas", "matplotlib", "pyarrow"}),
        (
            ["run", "--dry-run"],
            {"ray", "datasets", "pandas", "matplotlib", "pyarrow", "sklearn", "numba", "peft"},
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_command_loads_only_what_it_needs(arguments: list[str], absent: set[str]) -> None:
    code = (
        "import atexit, sys; from hiso_ray.cli import main; "
        f"atexit.register(lambda: print('LOADED', *{absent} & sys.modules.keys())); "
        f"sys.exit(main({arguments}))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED"
