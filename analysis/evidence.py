"""Reads the evidence about H (``diagnostics.csv``) of run and sweep folders into one tidy frame.

Runs have the file if ``diagnostics.every`` was set; ``docs/columns.md`` says what each column is.
To keep a sweep as its tables only, keep each ``runs/ID/diagnostics.csv`` with them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hiso_ray.analysis import load, settings, style
from hiso_ray.analysis.spread import HOW, before, over_seeds
from hiso_ray.errors import UserError
from hiso_ray.run_folder import files

FILE = files.DIAGNOSTICS
KEYS = ("run", "cell", "seed", "method")
BIN = 0.1  # decades between the edges of the histogram of H
BELOW = -12.0  # log10 of its first edge; one bin holds all that lies below
# Columns of the table of last measurements, and their headings.
LAST = {
    "round": "round",
    "h_median": "median H",
    "h_spread": "max H ÷ min H",
    "h_hessian_spearman": "rank correlation with diag ∇²f",
    "h_gradient_spearman": "with (∇f)²",
    "rank_gain": "effective rank, whitened ÷ plain",
    "lr_use": "η ÷ upper bound",
}
RATIOS = ("h_spread", "rank_gain", "lr_use")  # with geometric means


def folders(path: Path | str) -> list[Path]:
    """A run or sweep folder itself; for any other folder, the run and sweep folders in it.

    Raises:
        UserError: there is none.
    """
    path = Path(path)
    inside = sorted(path.iterdir()) if path.is_dir() else []
    for found in ([path], inside):
        ours = [f for f in found if any((f / n).exists() for n in ("plan.yaml", files.CONFIG))]
        if ours:
            return ours
    raise UserError(
        f"{path} is no run folder or sweep folder and holds none: give one, such as runs/NAME"
    )


def read(paths: load.Paths) -> pd.DataFrame:
    """The measurements (:func:`of`) of all runs in the folders.

    Args:
        paths: run folders and sweep folders, mixed.

    Raises:
        UserError: as :func:`~.load.trials`, or no run has measurements.
    """
    rows = of(load.trials(paths))
    if rows.empty:
        given = ", ".join(map(str, paths))
        raise UserError(
            f"no {FILE} with a measurement in the runs of {given}: run them with "
            "diagnostics.every = 50, or give other folders"
        )
    return rows


def of(trials: pd.DataFrame) -> pd.DataFrame:
    """What was measured in these trials.

    Args:
        trials: of :func:`~.load.trials`.

    Returns:
        One row per run and measured round, in the order read. Columns ``run``,
        ``cell``, ``seed``, ``method``, every configuration field, and those of ``diagnostics.csv``,
        where a number that is missing or not finite is nan. Empty, with ``KEYS`` and fields only,
        where nothing was measured.
    """
    fields = [name for name in map(str, trials.columns) if "." in name]
    found = [table for run in trials["run"] if len(table := _measured(Path(run), run))]
    if not found:
        return trials.loc[[], [*KEYS, *fields]]
    return trials[[*KEYS, *fields]].merge(pd.concat(found), on="run", validate="1:m")


def _measured(folder: Path, run: str) -> pd.DataFrame:
    """One run's measurements, without the torn last line of a killed run."""
    path = folder / FILE
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if not whole:
        return pd.DataFrame()
    table = pd.read_csv(io.StringIO(whole), dtype={"h_histogram": "str"})
    numbers = [name for name in table.columns if name not in ("round", "h_histogram")]
    table[numbers] = table[numbers].astype(float).replace([math.inf, -math.inf], math.nan)
    return table.assign(run=run)


def histograms(rows: pd.DataFrame) -> pd.DataFrame:
    """H's histogram in long form.

    Returns:
        One row per measurement and bin that is not empty: ``KEYS``, ``round``, ``low`` (log10 of
        the bin's lower edge; a bin is a tenth of a decade, and so, nominally, is the one below all
        edges) and ``count`` of weights.
    """
    bins = rows[[*KEYS, "round"]].assign(bins=rows["h_histogram"].str.split()).explode("bins")
    low, count = (bins["bins"].str.partition(":")[part] for part in (0, 2))
    edges = low.astype(float).replace(-math.inf, BELOW - BIN)
    long = bins.drop(columns="bins").assign(low=edges, count=count.astype(float))
    return long.dropna(subset=["low"]).astype({"count": int}).reset_index(drop=True)


def dimension(rows: pd.DataFrame) -> pd.Series:
    """Number of weights d of each row: the sum of its histogram's counts."""
    counts = rows["h_histogram"].str.findall(r":(\d+)")
    return counts.map(lambda texts: sum(map(int, texts)) if isinstance(texts, list) else math.nan)


def has_curvature(rows: pd.DataFrame) -> pd.Series:
    """Which rows belong to a run whose H was ever different from 1."""
    other = (rows["h_min"] != 1) | (rows["h_max"] != 1)
    return other.groupby(rows["run"]).transform("any")


def probes(rows: pd.DataFrame) -> pd.Series:
    """Which rows belong to a run of a method that probes: first-order ones have no scalars."""
    return rows["g_std"].notna().groupby(rows["run"]).transform("any")


def at_end(rows: pd.DataFrame) -> pd.DataFrame:
    """The last measurement of each run, over seeds.

    Returns:
        One row per setting, method and learning rate: :func:`~.spread.over_seeds` of
        ``round``; ``h_median``; ``h_spread`` = max H / min H; the rank correlations of H;
        ``rank_gain``, the effective rank with whitening ÷ without; ``lr_use`` = η ÷ the upper
        stability bound.
    """
    last = rows.loc[rows.groupby("run", sort=False)["round"].idxmax()]
    plain, white = last["effective_rank"], last["whitened_effective_rank"]
    ratios = last.assign(
        h_spread=last["h_max"] / last["h_min"],
        rank_gain=(white / plain).where((white > 0) & (plain > 0)),
        lr_use=(last["lr"] / last["lr_stable_high"]).where(probes(last)),
    )
    by = [*settings.setting_fields(rows), "method", "method.lr"]
    return over_seeds(ratios, list(LAST), by, partial=True, ratios=RATIOS)


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`at_end` as text: means (geometric for ratios), the lowest and highest seed in
    brackets, and how many seeds have a number where some have none."""
    cells: dict[str, Sequence[str]] = {}
    for name in before(table, "seeds"):
        said = style.name if name == "method" else style.value_name
        cells[style.field_name(name)] = [said(value) for value in table[name]]
    for value, header in LAST.items():
        parts = [table[f"{value}_{part}"] for part in (*HOW, "seeds")]
        cells[header] = [_spread(*row) for row in zip(*parts, table["seeds"], strict=True)]
    return pd.DataFrame(cells, dtype=object)


def _spread(mean: float, low: float, high: float, count: int, seeds: int) -> str:
    if math.isnan(mean):
        return "–"
    some = f", {count} of {seeds} seeds" if count < seeds else ""
    return f"{mean:.3g}{'' if low == high else f' ({low:.3g}–{high:.3g})'}{some}"
