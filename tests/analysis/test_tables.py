from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest
from made_up_trials import frames, trial

from hiso_ray.analysis import selection, speedup, tables
from hiso_ray.analysis.thresholds import reached, to_threshold


def spread(value: str, mean: Any, low: Any, high: Any, some: int, **more: Any) -> pd.DataFrame:
    row = {f"{value}_mean": mean, f"{value}_min": low, f"{value}_max": high}
    return pd.DataFrame([{"seeds": 3, **row, f"{value}_seeds": some, **more}])


def cell(table: pd.DataFrame) -> str:
    """The last one."""
    return tables.formatted(table).iloc[0, -1]


@pytest.mark.parametrize(
    ("value", "numbers", "text"),
    [
        ("final_score", (0.9124, 0.908, 0.9161), "91.2 % (90.8–91.6)"),
        ("round", (1234.4, 900, 1500), "1,234 (900–1,500)"),
        ("forward_passes", (2e6, 1e6, 3e6), "2,000,000 (1,000,000–3,000,000)"),
        ("kib_per_client", (2.3, 0.9887, 10400.4), "2.30 (0.989–10,400)"),
    ],
)
def test_numbers(value: str, numbers: tuple[float, ...], text: str) -> None:
    assert cell(spread(value, *numbers, 3)) == text


def test_some_of_the_seeds() -> None:
    nothing = (None, None, None)
    assert cell(spread("round", *nothing, 2, threshold=0.5)[["threshold", "seeds", "round_mean",
        "round_min", "round_max", "round_seeds"]]) == "2 of 3 seeds"  # fmt: skip
    assert "not reached" in tables.formatted(spread("round", *nothing, 0, threshold=0.5)).values
    assert cell(spread("area", *nothing, 0)) == "no score"
    assert cell(spread("final_score", 0.5, 0.4, 0.6, 2)) == "50.0 % (40.0–60.0), 2 of 3 seeds"
    assert cell(spread("final_score", 0.5, 0.5, 0.5, 1)) == "50.0 %, 1 of 3 seeds"


def test_one_seed_has_no_range() -> None:
    assert cell(spread("area", 0.5, 0.5, 0.5, 1).assign(seeds=1)) == "50.0 %"


@pytest.mark.parametrize(
    ("bound", "numbers", "some", "text"),
    [
        ("=", (2.0, 1.0, 3.0), 3, "2.00× (1.00–3.00)"),
        ("≥", (2.5, 2.0, None), 3, "≥ 2.50× (from 2.00)"),
        ("≤", (0.75, None, 1.0), 3, "≤ 0.75× (up to 1.00)"),
        ("neither", (None, None, None), 0, "neither"),
        ("at once", (None, None, None), 0, "reached before training"),
        ("unseen", (None, None, None), 0, "broke down"),
        ("mixed", (None, None, None), 2, "2 of 3 seeds"),
        ("mixed", (None, None, None), 3, "bounds both ways"),
    ],
)
def test_speedups(bound: str, numbers: tuple[Any, ...], some: int, text: str) -> None:
    assert cell(spread("speedup", *numbers, some, bound=bound)) == text


def chosen() -> pd.DataFrame:
    rows = [
        trial(method, lr, seed, None if (method, lr, seed) == ("decomfl", 0.03, 1) else score)
        for method in ("hiso", "decomfl")
        for lr, score in ((0.01, 0.5), (0.03, 0.6))
        for seed in (0, 1)
    ]
    return selection.best_rate(pd.DataFrame(rows), ["federation.alpha"])


def test_the_edge_of_a_grid_is_shown() -> None:
    cells = tables.formatted(chosen())
    assert cells["method"].tolist() == ["HiSo", "DeComFL"]
    assert cells["η"].tolist() == ["0.03 (highest tried)", "0.01 (lowest tried)"]
    assert cells["rates tried"].tolist() == ["0.01, 0.03"] * 2
    assert list(cells.columns) == ["α", "method", "η", "seeds", "final score", "rates tried"]
    first, second = tables.cautions(chosen())
    assert first == (
        "HiSo at α = 1: the best learning rate, 0.03, is the highest of those tried (0.01, 0.03); "
        "a better one may lie beyond."
    )
    assert second.startswith("DeComFL at α = 1: the best learning rate, 0.01, is the lowest")


def test_lost_seeds_are_shown() -> None:
    rows = pd.DataFrame([trial("hiso", 0.1, 0, 0.5), trial("hiso", 0.1, 1)])
    best = selection.best_rate(rows, [])
    assert tables.formatted(best)["failed"].tolist() == ["1"]
    assert tables.cautions(best) == [
        "HiSo: 0.1 is the only learning rate that was tried.",
        "HiSo: at 0.1, 1 of 2 seeds did not finish (1 failed).",
    ]


def test_a_map_says_of_how_many_seeds_or_how_all_ended() -> None:
    rows = [
        *(trial("a", 0.1, seed, 0.5) for seed in (0, 1)),
        *(trial("b", 0.1, seed, score) for seed, score in ((0, 0.25), (1, None))),
        trial("c", 0.1, 0, status="stopped"), trial("c", 0.1, 1, error_kind="NonFiniteLoss"),
    ]  # fmt: skip
    best = selection.best_rate(pd.DataFrame(rows), [])
    said = tables.of_some_seeds(best, "final_score").tolist()
    assert said == [None, "25.0%\n1 of 2", "1 diverged\n1 stopped early"]


def computed() -> Sequence[pd.DataFrame]:
    trials, rounds = frames(
        {(m, s): [0.1, 0.3 + s / 10, 0.9] for m in ("hiso", "decomfl") for s in (0, 1)}
    )
    arrivals = reached(trials, rounds, [0.35, 0.95], ["federation.alpha"])
    return (
        selection.best_rate(trials, ["federation.alpha"]),
        to_threshold(arrivals),
        speedup.mean_ratios(speedup.by_seed(arrivals, "hiso", "decomfl")),
    )


def test_every_row_of_a_csv_names_its_runs() -> None:
    for table in computed():
        back = pd.read_csv(io.StringIO(tables.csv(table)))
        runs = [cell.split(";") for cell in back["runs"]]
        assert runs == table["runs"].tolist()
        assert all(len(row) == (4 if "one" in back else 2) for row in runs)
    assert back["speedup_mean"].tolist() == pytest.approx(
        table["speedup_mean"].tolist(), rel=0, abs=0, nan_ok=True
    )  # not rounded
    with pytest.raises(ValueError, match="give the frame that was computed"):
        tables.csv(tables.formatted(table))


def test_computing_does_not_format_and_formatting_does_not_change() -> None:
    for table in computed():
        copy = table.copy(deep=True)
        cells = tables.formatted(table)
        tables.csv(table)
        pd.testing.assert_frame_equal(table, copy)
        assert cells.map(lambda cell: isinstance(cell, str)).all(axis=None)


def test_markdown() -> None:
    lines = tables.markdown(tables.formatted(computed()[1])).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0] == [
        "α", "method", "threshold", "seeds", "rounds", "KiB per client", "forward passes",
    ]  # fmt: skip
    assert rows[2] == [
        "1", "HiSo", "35 %", "2", "15 (10–20)", "30.0 (20.0–40.0)", "1,500 (1,000–2,000)",
    ]  # fmt: skip
    assert rows[4] == ["1", "HiSo", "95 %", "2", "not reached", "not reached", "not reached"]
    assert r"a \| b" in tables.markdown(pd.DataFrame({"x": ["a | b"]}))


def test_latex() -> None:
    text = tables.latex(tables.formatted(computed()[1]))
    assert r"\toprule" in text
    assert r"$\alpha$ & method & threshold" in text
    assert r"1 & HiSo & 35~\% & 2 & 15 (10--20)" in text
    bound = tables.latex(pd.DataFrame({"x": ["≥ 1.50× (from 1.20)", "a_b & c"]}))
    assert r"$\geq$~1.50$\times$ (from 1.20)" in bound
    assert r"a\_b \& c" in bound
    everything = "".join(tables.latex(tables.formatted(table)) for table in computed())
    assert everything.isascii()


def test_methods_that_always_failed_are_still_shown() -> None:
    trials = pd.DataFrame([trial(m, 0.1, s) for m in ("hiso", "decomfl") for s in (0, 1)])
    _, rounds = frames({("elsewhere", 0): [0.1]})
    arrivals = reached(trials, rounds.head(0), [0.5], [])
    assert tables.formatted(to_threshold(arrivals))["rounds"].tolist() == ["not reached"] * 2
    ratio = speedup.mean_ratios(speedup.by_seed(arrivals, "hiso", "decomfl"))
    assert tables.formatted(ratio)["speedup"].tolist() == ["neither"]
