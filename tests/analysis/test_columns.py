from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from hiso_ray import Experiment, run
from hiso_ray.analysis import load

PAGE = Path(__file__).resolve().parents[2] / "docs" / "columns.md"
LINE = re.compile(r"^\| `([\w.]+)` \|.*?(?:\| (plan|result|machine) )?\|$")


def sections() -> dict[str, dict[str, str | None]]:
    """Heading -> column -> its kind, as the page has them."""
    found: dict[str, dict[str, str | None]] = {}
    for part in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        heading, *lines = part.splitlines()
        matches = [match.groups() for line in lines if (match := LINE.match(line))]
        found[heading] = dict(matches)
        assert len(found[heading]) == len(matches), f"twice in {heading}"
    return found


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same run two times."""
    small = {
        "task.name": "digits", "task.model": "mlp-8", "federation.num_clients": 12,
        "federation.clients_per_round": 3, "federation.rounds": 6, "eval.every": 3,
        "resources.executor": "serial",
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("columns")
    for name in "ab":
        run(Experiment().changed(**small), folder / name)
    return [folder / name for name in "ab"]


@pytest.mark.parametrize(("read", "own"), [(load.trials, "Trials"), (load.rounds, "Rounds")])
def test_every_column_has_its_line_and_every_line_its_column(
    read: Callable[[load.Paths], pd.DataFrame], own: str, twice: list[Path]
) -> None:
    page = sections()
    described = [*page["Both tables"], *page[own], *page["Configuration"]]
    assert sorted(described) == sorted(read(twice).columns)


@pytest.mark.parametrize("read", [load.trials, load.rounds])
def test_a_second_run_gives_the_same_plan_and_results(
    read: Callable[[load.Paths], pd.DataFrame], twice: list[Path]
) -> None:
    kinds = {name: kind for part in sections().values() for name, kind in part.items()}
    table = read(twice)
    equal = [c for c in table.columns if kinds[c] != "machine" and c != "run"]
    first, second = (table.loc[table["run"] == str(folder), equal] for folder in twice)
    pd.testing.assert_frame_equal(
        first.reset_index(drop=True), second.reset_index(drop=True), check_exact=True
    )
    assert {"score", "final_score"} & set(equal)
