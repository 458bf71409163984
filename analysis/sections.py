"""The sections of a report: the pictures and tables that the data of a study allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from hiso_ray.analysis import (
    communication,
    comparison,
    evidence,
    evidence_pictures,
    pictures,
    style,
    tables,
)
from hiso_ray.analysis.pictures import Picture
from hiso_ray.analysis.study import SHOWN, Study
from hiso_ray.errors import UserError

KEYS = ("run", "method", "seed", "method.lr")
CHOSEN = {
    True: "by the validation score: the test score shown owes nothing to the choice.",
    False: "by the score that is shown, with no validation set between; that flatters all methods "
    "alike as long as all had as many rates.",
}
OF_A_TRIAL = ("status", "rounds", "final_score", "best_score", "paper_bytes_per_client")


@dataclass(frozen=True)
class Table:
    """A computed frame, its text, and its caveats.

    Attributes:
        name: of its files, without a suffix.
        frame: the numbers, with a column ``runs``.
        cells: the same as text.
        cautions: sentences.
    """

    name: str
    title: str
    frame: pd.DataFrame
    cells: pd.DataFrame
    cautions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    title: str
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def sections(study: Study, thresholds: Sequence[float], folders: Sequence[Path]) -> list[Section]:
    """Everything that can be shown; only the trials, if they cannot be compared.

    Args:
        thresholds: scores for the tables and pictures of when each was reached.
        folders: run folders that are also shown one by one.
    """
    single = [pictures.every_run(folders, study.trials)] if folders else []
    if not study.comparable:
        alone = [Section("Trials", single, [every_trial(study)]), *_same_examples(study)]
        return [*alone, *_evidence(study.trials)]
    found = [_scores(study), *_same_examples(study), _convergence(study, single)]
    if study.has_grid:
        found.append(_rates(study))
    if any(view.rows for view in study.views):
        found.append(Section("Maps of the score", pictures.score_maps(study)))
    found += [_thresholds(study, thresholds), _communication(study)]
    found += _evidence(study.best_trials)
    return [*found, Section("Every trial", tables=[every_trial(study)])]


def _scores(study: Study) -> Section:
    table = study.summary()
    title = "Score after the last round, and the best along the way"
    notes = [
        "Means over seeds, in brackets the lowest and the highest seed; of how many, where not all "
        "have a score. A trial that was stopped early has none: it is of fewer rounds."
    ]
    cautions = []
    if study.has_grid:
        notes.append(
            "Each method has, in each setting, the learning rate whose mean score after the last "
            f"round was best, {CHOSEN[study.validated]}"
        )
        cautions = tables.cautions(study.best)
    else:
        notes.append("One learning rate was run per method: none was tuned here.")
        cautions = [line for line in tables.cautions(study.best) if "did not finish" in line]
    return Section(
        "Scores", tables=[Table("scores", title, table, tables.formatted(table), cautions)],
        notes=notes,
    )  # fmt: skip


def _same_examples(study: Study) -> list[Section]:
    """Differences on the same test examples, or a line that says why there are none."""
    if len(study.trials) == 1:
        return []
    table = study.differences()
    done, said = table[table["why"] == ""], comparison.sentences(table)
    if done.empty:
        return [Section("On the same examples", notes=said)]
    counts = done["examples"].unique()
    which = f"{counts[0]:,.0f} examples" if len(counts) == 1 else "examples"
    shown = Table(
        "differences", "Differences", table, comparison.cells(table), _how_compared(study)
    )
    return [Section(f"On the same {which}", pictures.differences(table), [shown], said)]


def _how_compared(study: Study) -> list[str]:
    said = [
        "Differences are taken example by example and seed by seed. The 95 % interval is from "
        "resampling the examples and, where there are several, the seeds; it leaves out 0 where "
        "methods can be told apart. What would have been found is the smallest true difference "
        "that such runs tell apart four times in five.",
        "Each line is a question of its own: of twenty methods that do not differ from the "
        "baseline, one is told apart from it by chance.",
    ]
    if study.comparable and study.has_grid and not study.validated:
        said.append(
            "The learning rates were chosen by the score on these same examples, which no interval "
            "allows for."
        )
    return said


def _convergence(study: Study, single: list[Picture]) -> Section:
    if single and not study.within and study.best["seeds"].max() == 1:
        return Section("Convergence", single)  # which a band of one seed would repeat
    shown = pictures.convergence(study) + pictures.convergence(study, "kib_per_client")
    shown += pictures.convergence(study, y="eval_loss")
    if study.best_rounds["simulated_seconds"].max() > 0:
        shown += pictures.convergence(study, "simulated_seconds")
    return Section("Convergence", shown + pictures.schedules(study) + single)


def _rates(study: Study) -> Section:
    cells = tables.formatted(study.rates)
    every = Table("learning-rates", "Every learning rate", study.rates, cells)
    return Section("Learning rates", pictures.sensitivities(study), [every])


def _thresholds(study: Study, thresholds: Sequence[float]) -> Section:
    title = "Rounds to a score"
    if not thresholds:
        return Section(title, notes=["No trial got beyond the score of its initial model."])
    reached = study.to_thresholds(thresholds)
    cautions = [
        "A score counts as reached at the first evaluated round that has it, so arrivals are late "
        "by up to a pause between evaluations. Where only some seeds got there, their mean would "
        "flatter, so their number stands instead.",
    ]
    shown = [
        Table("thresholds", "What each score took", reached, tables.formatted(reached), cautions)
    ]
    notes = ["The same scores for every method and setting."]
    maps: list[Picture] = []
    if study.rivals:
        try:
            ratios = study.speedups(thresholds)
        except UserError as error:
            return Section(title, maps, shown, [*notes, f"No speedups: {error}."])
        maps = pictures.speedup_maps(study, thresholds)
        said = [
            "The ratio of rounds, seed by seed, then its geometric mean. ≥ and ≤ are bounds: a "
            "method that did not get there counts as needing more than the rounds it had. What "
            "failed or stopped is counted over the trials of both methods."
        ]
        shown.append(Table("speedups", "Speedups", ratios, tables.formatted(ratios), said))
    return Section(title, maps, shown, notes)


def _communication(study: Study) -> Section:
    title, heading = "Communication", "Bytes per sampled client and round"
    costs = communication.costs(study.best_trials, study.within)
    if costs["paper_bytes_seeds"].sum() == 0:
        return Section(title, notes=["No trial has finished, so none has totals."])
    cautions = [
        "Three rules that must not be mixed. The paper's: 2 × 4 × τ × P, for a client that takes "
        "part in every round. The protocol's: scalars up; down, the request and every record "
        "missed since the client's last turn. Measured: Ray's messages between driver and actors, "
        "none with the serial executor. The initial model is downloaded once, whatever the method."
    ]
    table = Table("communication", heading, costs, communication.cells(costs), cautions)
    return Section(title, pictures.turn_bytes(study), [table])


def _evidence(trials: pd.DataFrame) -> list[Section]:
    """The measurements of H in these trials, if there are any."""
    rows = evidence.of(trials)
    if rows.empty:
        return []
    runs = rows["run"].nunique()
    notes = [f"Measured in {runs} of {len(trials)} trials (diagnostics.csv in their folders)."]
    return [Section("Evidence about H", evidence_pictures.every(rows), notes=notes)]


def every_trial(study: Study) -> Table:
    """Trials one by one, with the fields that vary."""
    frame = study.trials[list(dict.fromkeys([*KEYS, *study.within, *OF_A_TRIAL]))]
    if study.validated:
        frame = frame.assign(final_validation_score=study.trials["final_validation_score"])
    numbers = {
        SHOWN: "{:.1%}",
        "final_validation_score": "{:.1%}",
        "best_score": "{:.1%}",
        "rounds": "{:,.0f}",
        "paper_bytes_per_client": "{:,.0f}",
    }
    cells: dict[str, list[str]] = {}
    for name in map(str, frame.columns):
        header = "paper bytes per client" if name in OF_A_TRIAL[-1:] else style.field_name(name)
        cells[header] = [_cell(name, value, numbers.get(name)) for value in frame[name]]
    traced = frame.assign(runs=frame["run"].map(lambda run: [run]))
    return Table("trials", "Every trial", traced, pd.DataFrame(cells, dtype=object))


def _cell(name: str, value: Any, number: str | None) -> str:
    if name == "run":
        return Path(value).name
    if name == "method":
        return style.name(value)
    if pd.isna(value):
        return "–"
    return number.format(float(value)) if number else style.value_name(value)
