"""Run folders -> DataFrames."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from hiso_ray.config import CURVATURE_OF


def rounds(folders: Sequence[Path | str]) -> pd.DataFrame:
    """Every row of every ``metrics.csv``, and the run it belongs to.

    Added columns: ``run`` (the folder), ``method``, ``seed``, ``metric`` (what the task goes by),
    ``score`` (that metric), and ``kib_per_client``, the protocol bytes up and down, divided by the
    number of clients. ``simulated_seconds`` is 0 where there was no virtual clock.

    Raises:
        ValueError: a folder without a round to show.
    """
    frames = []
    for folder in map(Path, folders):
        path = folder / "metrics.csv"
        frame = pd.read_csv(path) if path.exists() else pd.DataFrame()
        if frame.empty:
            raise ValueError(f"{folder} holds no round yet (no rows in metrics.csv)")
        config = configuration(folder)
        method, curvature = config["method"]["name"], config["method"]["curvature"]
        own = CURVATURE_OF.get(method) in (curvature, None)
        label = method if own else f"{method} ({curvature})"
        clients, metric = (
            config["federation"]["num_clients"],
            config["task"].get("metric", "accuracy"),
        )
        total = frame["uplink_bytes"] + frame["downlink_bytes"]
        frames.append(
            frame.assign(
                run=str(folder),
                method=label,
                seed=config["seed"],
                metric=metric,
                score=frame[f"eval_{metric}"],
                kib_per_client=total / clients / 1024,
                simulated_seconds=frame.get("simulated_seconds", 0.0),
            )
        )
    return pd.concat(frames, ignore_index=True)


def configuration(folder: Path | str) -> dict[str, Any]:
    """The run's ``config.yaml``."""
    return yaml.safe_load((Path(folder) / "config.yaml").read_text(encoding="utf-8"))


def summaries(folders: Sequence[Path | str]) -> pd.DataFrame:
    """One row per folder whose run has finished (``summary.json``)."""
    found = [
        {"run": str(folder), **json.loads((Path(folder) / "summary.json").read_text())}
        for folder in folders
        if (Path(folder) / "summary.json").exists()
    ]
    return pd.DataFrame(found)
