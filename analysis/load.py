"""Run folders and sweep folders -> tidy DataFrames; ``docs/columns.md`` says what each column is.

::

    run folder     config.yaml, metrics.csv, summary.json  ─┐
    sweep folder   plan.yaml, runs/ID/… (run folders)       ├─> trials: one row per run
                   trials.parquet, rounds.parquet          ─┘   rounds: one per run and evaluation

A sweep folder is read from its parquet files; where it has none (it is still running, or was
killed), from its ``runs/*``, in the order of their names. Both ways give the same columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from hiso_ray import config
from hiso_ray.analysis import store
from hiso_ray.analysis.identity import fields_of, identity
from hiso_ray.config import Experiment
from hiso_ray.config.experiment import LATER
from hiso_ray.errors import UserError
from hiso_ray.run_folder import files
from hiso_ray.run_folder.metrics_reader import scan_rows
from hiso_ray.run_folder.summary import read_summary

Paths = Sequence[Path | str]
TRIAL = ("run", "cell", "seed", "method", "status", "error", "error_kind")
RESULTS = (
    "rounds", "metric", "initial_score", "final_score", "best_score", "initial_accuracy",
    "final_accuracy", "best_accuracy", "uplink_bytes", "downlink_bytes", "paper_bytes_per_client",
    "initial_model_bytes_per_client", "ray_bytes", "forward_passes", "model_sha256", "seconds",
    "simulated_seconds", "epsilon", "delta", "actors", "faults", "final_validation_score",
    "best_validation_score", "score_at_best_validation",
)  # fmt: skip
TEXT = {"run", "cell", "method", "status", "error", "error_kind", "metric", "model_sha256"}


def trials(paths: Paths) -> pd.DataFrame:
    """One row per run, in the order given, and in plan order within a sweep.

    Args:
        paths: run folders and sweep folders, mixed; a run that is found twice is one row.

    Raises:
        UserError: a path that is missing or neither kind of folder, a run folder without a round,
            a file of another version, or no evaluated round in any of the paths.
    """
    return _read(paths)[0]


def rounds(paths: Paths) -> pd.DataFrame:
    """One row per run and evaluated round, with every configuration field of the run.

    Args and errors are those of :func:`trials`.
    """
    return both(paths)[1]


def both(paths: Paths) -> tuple[pd.DataFrame, pd.DataFrame]:
    """:func:`trials` and :func:`rounds`, from one reading of the folders."""
    runs, evaluations = _read(paths)
    fields = [name for name in runs.columns if "." in name]
    table = evaluations.merge(runs[["run", *fields]], on="run", how="left", validate="m:1")
    return runs, table


def evaluated(folder: Path | str) -> pd.DataFrame:
    """The evaluated rounds of one run folder, as ``rounds.parquet`` has them.

    Raises:
        UserError: the folder holds no round.
    """
    table = every_round([folder])
    return table[table["eval_loss"].notna()].reset_index(drop=True)


def every_round(folders: Paths) -> pd.DataFrame:
    """Every row of the ``metrics.csv`` of run folders, in the columns of :func:`evaluated`.

    Raises:
        UserError: a folder without a round to show.
    """
    return pd.concat([_of_run(Path(folder)) for folder in folders], ignore_index=True)


def trial_row(values: Mapping[str, Any], summary: Mapping[str, Any] | None) -> dict[str, Any]:
    """A row of ``trials`` without ``run``, ``status``, ``error`` and ``error_kind``.

    Args:
        values: the resolved experiment, in sections, as in ``config.yaml``.
        summary: what ``summary.json`` holds; without one, the results are missing.

    Raises:
        pydantic.ValidationError: (a ``UserError``) values that this version does not know.
    """
    experiment = Experiment.model_validate(values)
    fields = {name: v for name, v in fields_of(experiment).items() if name != "seed"}
    return {
        **identity(experiment),
        **fields,
        **{name: (summary or {}).get(name) for name in RESULTS},
    }


def as_trials(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows (:func:`trial_row` with ``run``, ``status``, ``error`` and ``error_kind``) as the
    ``trials`` frame."""
    table = pd.DataFrame(list(rows))
    return one_type(table[[*TRIAL, *(name for name in table.columns if name not in TRIAL)]])


def one_type(table: pd.DataFrame) -> pd.DataFrame:
    """Columns that parquet can hold: text where a column mixes text and numbers ("auto", 0.25)."""
    return table.assign(**{str(name): _one_type(table[name]) for name in table.columns})


def _read(paths: Paths) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``trials`` and ``rounds`` without the configuration."""
    frames = [_of_path(path) for path in dict.fromkeys(map(Path, paths))]
    evaluations = [table for _, table in frames if len(table)]
    if not evaluations:
        given = ", ".join(map(str, paths)) or "nothing"
        raise UserError(
            f"no evaluated round in {given}: wait until a run has one, or give other folders"
        )
    runs = pd.concat([table for table, _ in frames], ignore_index=True).drop_duplicates("run")
    found = pd.concat(evaluations, ignore_index=True).drop_duplicates(["run", "round"])
    return one_type(runs.reset_index(drop=True)), one_type(found.reset_index(drop=True))


def _of_path(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    if not path.is_dir():
        raise UserError(f"{path} is not a folder: give run folders or sweep folders")
    if (path / "plan.yaml").exists():
        return _of_sweep(path)
    if (path / files.CONFIG).exists():
        return as_trials([_trial(path)]), evaluated(path)
    raise UserError(
        f"{path} is neither a run folder (config.yaml) nor a sweep folder (plan.yaml): give one of "
        "these, such as runs/NAME"
    )


def _of_sweep(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    tables = folder / "trials.parquet", folder / "rounds.parquet"
    if all(table.exists() for table in tables):
        runs, evaluations = (_joined(folder, store.read(table)) for table in tables)
        return _up_to_date(runs), evaluations
    begun = sorted(path.parent for path in (folder / "runs").glob("*/config.yaml"))
    if not begun:
        return pd.DataFrame(), pd.DataFrame()
    shown = [evaluated(run) for run in begun if len(_metrics(run))]
    return (
        as_trials(_trial(run) for run in begun),
        pd.concat(shown, ignore_index=True) if shown else pd.DataFrame(),
    )


def _up_to_date(runs: pd.DataFrame) -> pd.DataFrame:
    """Trials with the columns that older sweeps lack."""
    without = dict.fromkeys(RESULTS) | LATER
    return runs.assign(**{name: value for name, value in without.items() if name not in runs})


def _joined(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(run=[str(folder / run) for run in table["run"]])


def _trial(folder: Path) -> dict[str, Any]:
    experiment, summary = _experiment(folder), read_summary(folder)
    if summary is not None and summary["rounds"] != experiment.federation.rounds:
        summary = None  # out of date: the run was resumed with more rounds
    status = "unfinished" if summary is None else "finished"
    row = trial_row(experiment.model_dump(), summary)
    return {"run": str(folder), "status": status, "error": None, "error_kind": None, **row}


def _of_run(folder: Path) -> pd.DataFrame:
    table = _metrics(folder)
    if table.empty:
        raise UserError(f"{folder} holds no round yet (no rows in metrics.csv)")
    experiment = _experiment(folder)
    metric = experiment.task.metric
    metric = "accuracy" if metric == "auto" else metric  # in folders from before there were others
    total = table["uplink_bytes"] + table["downlink_bytes"]
    leading = {
        "run": str(folder),
        **identity(experiment),
        "metric": metric,
        "score": table[f"eval_{metric}"],
        "kib_per_client": total / experiment.federation.num_clients / 1024,
    }
    return pd.DataFrame(leading, index=table.index).join(table)


def _metrics(folder: Path) -> pd.DataFrame:
    """The valid rows of ``metrics.csv``; empty if there is no file."""
    table = pd.DataFrame(list(scan_rows(folder / files.METRICS)))
    if table.empty:
        return table
    table = table.apply(pd.to_numeric)
    # Folders from before the virtual clock lack its column.
    return table if "simulated_seconds" in table else table.assign(simulated_seconds=0.0)


def _experiment(folder: Path) -> Experiment:
    path = folder / files.CONFIG
    values = config.read_yaml(path)
    try:
        return Experiment.model_validate(values)
    except (ValidationError, UserError) as error:
        raise UserError(
            f"{path} does not fit this version of hiso-ray; update hiso-ray, or correct it: {error}"
        ) from error


def _one_type(values: pd.Series) -> pd.Series:
    present = values.dropna()
    if present.empty:
        return pd.Series(
            [None] * len(values), values.index, "str" if values.name in TEXT else float
        )
    texts = sum(isinstance(value, str) for value in present)
    if 0 < texts < len(present):
        mixed = [None if pd.isna(value) else str(value) for value in values]
        return pd.Series(mixed, values.index, "str")
    return values.infer_objects()
