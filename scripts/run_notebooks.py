"""Runs the notebooks of ``analysis/`` and writes their outputs into them.

::

    python scripts/run_notebooks.py                       # all: the committed results, own runs
    HISO_SWEEP=runs/mine python scripts/run_notebooks.py analysis/stress.ipynb
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook with fresh outputs and without execution times.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
    )
    return client.execute(env=os.environ | {"PYTHONPATH": str(ROOT)})


def main() -> None:
    for name in {"HISO_SWEEP", "HISO_RUNS"} & os.environ.keys():
        # Notebooks run in their own folder.
        os.environ[name] = str(Path(os.environ[name]).resolve())
    given = [Path(name) for name in sys.argv[1:]]
    for path in given or sorted((ROOT / "analysis").glob("*.ipynb")):
        nbformat.write(executed(path), path)
        print(path)


if __name__ == "__main__":
    main()
