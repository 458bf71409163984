"""What lies in a run folder besides the ledger and the metrics: the folder is the run.

::

    config.yaml      the resolved experiment, with the versions that ran it
    ledger.jsonl     header and one record per round: the checkpoint
    partition.csv    how many examples of each group each client holds; partition.png shows it
    metrics.csv, tensorboard/, summary.json, faults.jsonl, convergence.png
"""

from __future__ import annotations

import csv
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from hiso_ray import __version__, config
from hiso_ray.config import Experiment
from hiso_ray.ledger import LedgerError

# written before the first round
EARLY = {"config.yaml", "faults.jsonl", "partition.csv", "partition.png"}
VERSIONS_OF = ("torch", "ray", "transformers", "datasets", "numpy")


def default_folder(experiment: Experiment) -> Path:
    """``runs/TASK-METHOD-seedN-TIME``."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = f"{experiment.task.name}-{experiment.method.name}-seed{experiment.seed}-{stamp}"
    return Path("runs") / name


def create(experiment: Experiment, out: Path) -> Path:
    """Starts a run folder, in a place that is empty or where a run failed before its first round.

    Raises:
        FileExistsError: there is something else.
    """
    folder = out.resolve()
    if (folder / "ledger.jsonl").exists():
        raise FileExistsError(
            f"{folder} already holds a run: choose another --out, or go on with it: "
            f"hiso-ray resume {folder}"
        )
    if folder.exists() and (not folder.is_dir() or {p.name for p in folder.iterdir()} - EARLY):
        raise FileExistsError(f"{folder} is not empty: choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(_versions() + experiment.to_yaml(), encoding="utf-8")
    (folder / "faults.jsonl").touch()
    return folder


def read_experiment(folder: Path) -> Experiment:
    """The experiment of a run folder."""
    if not (folder / "config.yaml").exists():
        raise LedgerError(f"{folder} is not a run folder: it has no config.yaml")
    return Experiment.model_validate(config.load(folder / "config.yaml"))


def recorded_digest(folder: Path) -> str | None:
    path = folder / "summary.json"
    return config.load(path)["model_sha256"] if path.exists() else None


def write_partition(path: Path, counts: np.ndarray, names: tuple[str, ...]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["client", "examples", *names])
        for client, row in enumerate(counts.tolist()):
            table.writerow([client, sum(row), *row])


def _versions() -> str:
    versions = " ".join(f"{name}=={version(name)}" for name in VERSIONS_OF)
    return f"# hiso-ray=={__version__} python=={platform.python_version()} {versions}\n"
