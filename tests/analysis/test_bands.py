from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex

from hiso_ray.analysis import style
from hiso_ray.analysis.bands import bands, means_and_ranges


def rows(method: str, seed: int, scores: dict[int, float], **more: Any) -> list[dict[str, Any]]:
    """A run's evaluated rounds: round -> score."""
    run = {
        "run": f"{method}-{seed}-{sorted(more.items())}",
        "cell": f"{method}-{sorted(more.items())}",
        "seed": seed,
        "method": method,
        "metric": "accuracy",
        "federation.alpha": 1.0,
        "federation.num_clients": 64,
        "method.lr": 0.1,
        "seconds": 0.0,
        "simulated_seconds": 0.0,
    } | more
    own = ({"round": r, "score": s, "kib_per_client": r * (1 + seed)} for r, s in scores.items())
    return [run | {"eval_loss": 1 - row["score"]} | row for row in own]


def trials_of(rounds: pd.DataFrame, lost: str = "", **how: str) -> pd.DataFrame:
    """The trials of these rounds; those of runs that begin like ``lost`` ended as ``how`` says."""
    fields = ["run", "seed", "method", *(name for name in map(str, rounds) if "." in name)]
    table = rounds[fields].drop_duplicates("run").reset_index(drop=True)
    table = table.assign(status="finished", error=None, error_kind=None)
    for name, value in how.items():
        table.loc[table["run"].str.startswith(lost), name] = value
    return table


def two_methods() -> pd.DataFrame:
    """Seed 2 of HiSo has no round 20."""
    return pd.DataFrame(
        [
            *rows("hiso", 0, {0: 0.1, 10: 0.4, 20: 0.9}),
            *rows("hiso", 1, {0: 0.3, 10: 0.8, 20: 0.7}),
            *rows("hiso", 2, {0: 0.2, 10: 0.6}),
            *rows("decomfl", 0, {0: 0.1, 5: 0.2}),
            *rows("decomfl", 1, {0: 0.3, 5: 0.6}),
        ]
    )


def test_means_and_ranges_by_hand() -> None:
    table = two_methods()
    trials = trials_of(table, "hiso-2", status="stopped")
    found = means_and_ranges(table, trials, "kib_per_client", "score").set_index(
        ["method", "round"]
    )
    assert found.loc[("hiso", 0)].tolist() == pytest.approx([0, 0.2, 0.1, 0.3, 3, False])
    # x: bytes of seeds 0, 1 and 2 are 10, 20 and 30
    assert found.loc[("hiso", 10)].tolist() == pytest.approx([20, 0.6, 0.4, 0.8, 3, True])
    assert found.loc[("decomfl", 5)].tolist() == pytest.approx([7.5, 0.4, 0.2, 0.6, 2, False])
    assert list(found.columns) == ["x", "mean", "low", "high", "seeds", "cut"]
    assert found.index.tolist() == [
        ("decomfl", 0), ("decomfl", 5), ("hiso", 0), ("hiso", 10),  # 20 would be of survivors
    ]  # fmt: skip


def test_a_line_ends_where_the_first_seed_does_and_says_so() -> None:
    table = two_methods()
    trials = trials_of(table, "hiso-2", status="failed", error_kind="NonFiniteLoss")
    figure = bands(table, trials)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == [
        "HiSo (n = 3; of 3 runs 1 diverged)", "DeComFL (n = 2)", "mean, min–max of n seeds",
        "not all seeds went on",
    ]  # fmt: skip
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    shown = [line for line in crosses if len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in shown] == [[10]]


def test_a_seed_without_a_round_leaves_no_line() -> None:
    table = two_methods()
    trials = trials_of(table, "hiso-2", status="failed", error="worker died")
    gone = table[~table["run"].str.startswith("hiso-2")]
    (axes,) = bands(gone, trials).axes
    colours = {line.get_color() for line in axes.lines if len(line.get_xdata())}
    assert colours == {style.KNOWN["decomfl"].colour}
    alone = gone["method"] == "hiso"
    (axes,) = bands(gone[alone], trials[trials["method"] == "hiso"]).axes
    assert [text.get_text() for text in axes.texts] == ["no round that\nall seeds have"]


def test_the_picture_shows_them() -> None:
    table = two_methods()
    figure = bands(table, trials_of(table), "round", "eval_loss")
    (axes,) = figure.axes
    lines = {line.get_color(): line for line in axes.lines if len(line.get_xdata())}
    hiso = lines[style.KNOWN["hiso"].colour]
    assert np.asarray(hiso.get_xdata()).tolist() == [0, 10]
    assert np.asarray(hiso.get_ydata()).tolist() == pytest.approx([0.8, 0.4])
    shades = {
        to_hex(band.get_facecolor()[0][:3]).upper(): band.get_datalim(axes.transData)
        for band in axes.collections
        if isinstance(band, PolyCollection)
    }
    shade = shades[style.KNOWN["hiso"].colour]
    assert (shade.ymin, shade.ymax) == pytest.approx((0.2, 0.9))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Communication round", "Test loss")
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["HiSo (n = 3)", "DeComFL (n = 2)", "mean, min–max of n seeds"]


def test_panels_share_axes_and_say_their_values() -> None:
    table = pd.DataFrame(
        [
            row
            for alpha in (10.0, 0.1)
            for clients in (16, 64)
            if (alpha, clients) != (10.0, 64)
            for row in rows(
                "hiso", 0, {0: 0.1, clients: alpha / 20},
                **{"federation.alpha": alpha, "federation.num_clients": clients},
            )
        ]
    )  # fmt: skip
    trials = trials_of(table)
    figure = bands(table, trials, columns="federation.alpha", rows="federation.num_clients")
    assert [axes.get_title() for axes in figure.axes] == ["α = 0.1", "α = 10", "", ""]
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == ["clients = 16", "clients = 64"]
    ends = [[d[-1] for line in axes.lines if len(d := line.get_ydata())] for axes in figure.axes]
    assert ends == [[0.005], [0.5], [0.005], []]
    assert [text.get_text() for text in figure.axes[3].texts] == ["no runs"]
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    # ends of 16 and 640 would leave nothing to see of the shorter
    far = table.assign(round=table["round"].replace(64, 640))
    figure = bands(far, trials, columns="federation.alpha", rows="federation.num_clients")
    limits = [axes.get_xlim()[1] for axes in figure.axes]
    assert limits[0] == limits[1] < 20 < 600 < limits[2] == limits[3]


def test_several_cells_of_a_method_have_no_mean() -> None:
    table = pd.DataFrame(
        rows("hiso", 0, {0: 0.1}) + rows("hiso", 0, {0: 0.2}, **{"method.lr": 0.3})
    )
    with pytest.raises(ValueError, match=r"hiso has 2 cells .* differ in method\.lr\)"):
        bands(table, trials_of(table))
    assert len(bands(table, trials_of(table), columns="method.lr").axes) == 2


def test_time_is_in_a_unit_that_suits_it_and_needs_a_clock() -> None:
    table = two_methods()
    with pytest.raises(ValueError, match=r"no round has both .* devices\.profile"):
        bands(table, trials_of(table), "simulated_seconds")
    clocked = table.assign(simulated_seconds=60.0 * table["round"])
    (axes,) = bands(clocked, trials_of(clocked), "simulated_seconds").axes
    assert axes.get_xlabel() == "Simulated time (min)"
    assert max(line.get_xdata()[-1] for line in axes.lines if len(line.get_xdata())) == 10


def test_unknown_axes_and_fields_are_said() -> None:
    with pytest.raises(ValueError, match="x = bytes: choose one of round, kib_per_client"):
        bands(two_methods(), trials_of(two_methods()), "bytes")
    with pytest.raises(ValueError, match=r"method\.colour is no column"):
        bands(two_methods(), trials_of(two_methods()), columns="method.colour")
