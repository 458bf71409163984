"""Who holds what: how many examples of each group every client of a run holds."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hiso_ray.analysis.style import COLOURS, STYLE, save
from hiso_ray.errors import UserError
from hiso_ray.run_folder import files

FEW_CLIENTS = 40  # at most this many are shown one by one, in the order of their ids
SHOWN_GROUPS = 12
COLUMNS = 300  # of the map at most, so that each is wide enough to be seen
NAME_LENGTH = 24  # characters of a group's name
WIDE_RANGE = 20  # largest ÷ smallest client above which the axis of sizes is logarithmic
SHADES = LinearSegmentedColormap.from_list("shares", ["white", COLOURS[5], COLOURS[0], "#00304D"])


def who_holds_what(held: Path | str | pd.DataFrame, out: Path | str) -> Figure:
    """A map of clients × groups, with the clients' sizes.

    Up to 40 clients stand in the order of their ids, each below its number of examples. More are
    sorted by the group they hold most of, beside their sizes from largest to smallest; beyond
    300, neighbours share a column, which shows their mean.

    Args:
        held: a run folder, or :func:`holdings` of one.
        out: the picture's file; the ending chooses the format (png, pdf, svg).

    Raises:
        UserError: there is no partition to show.
    """
    table = held if isinstance(held, pd.DataFrame) else holdings(held)
    few = len(table) <= FEW_CLIENTS
    shown = shares(table if few else table.iloc[by_main_group(table)])
    with matplotlib.rc_context(STYLE):
        height = (2.1 if few else 1.1) + 0.2 * max(10, len(shown.columns))
        figure = Figure(figsize=(7.0, height), layout="constrained")
        if few:
            sizes, mix = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.5))
            _sizes_by_client(sizes, table.sum(axis=1))
            mix.set_xticks(range(len(table)), table.index, fontsize=6 if len(table) > 20 else None)
            mix.set_xlabel("client")
        else:
            mix, sizes = figure.subplots(1, 2, width_ratios=(3, 1.2))
            _sizes_by_rank(sizes, table.sum(axis=1))
            mix.set_xlabel("clients, sorted by the group they hold most of")
        image = _map(mix, shown)
        figure.colorbar(
            image, ax=mix, format=PercentFormatter(1.0), label="share of the client's examples"
        )
        figure.supxlabel(caption(table), fontsize=8)
        figure.draw_without_rendering()  # ticks depend on the layout, and the layout on the ticks
        save(figure, out)
    return figure


def holdings(folder: Path | str) -> pd.DataFrame:
    """A run's ``partition.csv``: one row per client, one column per group, in examples.

    Raises:
        UserError: the folder has no ``partition.csv``.
    """
    path = Path(folder) / files.PARTITION
    if not path.exists():
        raise UserError(f"{folder} has no partition.csv: is it a run folder?")
    # Group names may be "", "NA" or duplicates, which pandas would change in a header.
    names = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0]
    table = pd.read_csv(path, header=None, skiprows=1, index_col=0)
    return table.iloc[:, 1:].set_axis(names.iloc[2:].tolist(), axis=1).rename_axis("client")


def shares(table: pd.DataFrame, most: int = SHOWN_GROUPS) -> pd.DataFrame:
    """The share of each client's examples that belongs to each group.

    Args:
        table: (clients, groups) examples.
        most: with more groups, this many of the largest stay and the rest are merged into one,
            ``other (…)``.

    Returns:
        (clients, at most ``most + 1``) float64; rows sum to 1.
    """
    counts, names = table.to_numpy(), list(table.columns)
    if len(names) > most:
        largest, rest = np.split(_rows(counts, most), [most])
        counts = np.column_stack([counts[:, largest], counts[:, rest].sum(axis=1)])
        names = [*(names[i] for i in largest), f"other ({len(rest):,} groups)"]
    mix = counts / counts.sum(axis=1, keepdims=True)
    return pd.DataFrame(mix, index=table.index, columns=names)


def by_main_group(table: pd.DataFrame, most: int = SHOWN_GROUPS) -> np.ndarray:
    """(clients,) rows of ``table``, sorted by the group that the client holds most of, in the
    order of :func:`shares`, and then by that group's share."""
    counts = table.to_numpy()
    place = np.argsort(_rows(counts, most))
    share = counts.max(axis=1) / counts.sum(axis=1)
    return np.lexsort((-share, place[counts.argmax(axis=1)]))


def _rows(counts: np.ndarray, most: int) -> np.ndarray:
    """Groups from top to bottom: in their own order, or the largest first if not all are shown."""
    groups = counts.shape[1]
    return np.arange(groups) if groups <= most else np.argsort(-counts.sum(axis=0), kind="stable")


def columns(shown: pd.DataFrame, most: int = COLUMNS) -> np.ndarray:
    """(at most ``most``, groups) ``shown``, or the means of ``most`` runs of its rows."""
    rows = shown.to_numpy()
    return np.stack([run.mean(axis=0) for run in np.array_split(rows, min(most, len(rows)))])


def caption(table: pd.DataFrame) -> str:
    """The realised skew; the distance is from the overall mix of groups."""
    counts = table.to_numpy()
    sizes = counts.sum(axis=1)
    mix = counts / sizes[:, None]
    distance = 0.5 * np.abs(mix - counts.sum(axis=0) / counts.sum()).sum(axis=1).mean()
    return (
        f"clients: {len(sizes):,} · examples per client: min {sizes.min():,}, median "
        f"{np.median(sizes):,.10g}, max {sizes.max():,} · groups per client: "
        f"{(counts > 0).sum(axis=1).mean():.1f} of {counts.shape[1]:,}\n"
        f"mean total-variation distance between a client's mix of groups and the whole: "
        f"{distance:.2f}"
    )


def _map(axes: Axes, shown: pd.DataFrame) -> AxesImage:
    clients, groups = shown.shape
    image = axes.imshow(
        columns(shown).T,
        extent=(-0.5, clients - 0.5, groups - 0.5, -0.5),
        aspect="auto",
        interpolation="nearest",
        cmap=SHADES,
        vmin=0,
        vmax=1,
    )
    axes.set_yticks(range(groups), [_short(name) for name in shown.columns])
    axes.set_ylabel("group")
    axes.grid(False)
    return image


def _sizes_by_client(axes: Axes, sizes: pd.Series) -> None:
    axes.bar(range(len(sizes)), sizes, color=COLOURS[0])
    axes.set_ylabel("examples")
    axes.grid(visible=False, axis="x")
    axes.set_axisbelow(True)


def _sizes_by_rank(axes: Axes, sizes: pd.Series) -> None:
    rank = np.arange(1, len(sizes) + 1)
    axes.step(rank, np.sort(sizes)[::-1], where="mid", color=COLOURS[0])
    axes.set_xlabel("client's rank by size")
    axes.set_ylabel("examples")
    if sizes.max() > WIDE_RANGE * sizes.min():
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter("{x:,.0f}")
    else:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _short(name: str) -> str:
    line = " ".join(name.split())
    cut = line if len(line) <= NAME_LENGTH else line[: NAME_LENGTH - 1].rstrip() + "…"
    return cut.replace("$", r"\$")  # else matplotlib reads two dollars in a name as mathematics
