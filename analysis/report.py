"""A report on any run and sweep folders: pictures, tables and one page."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from hiso_ray import progress
from hiso_ray.analysis import sections, study, style, tables
from hiso_ray.analysis.identity import fields_of
from hiso_ray.analysis.sections import Section
from hiso_ray.analysis.study import Study
from hiso_ray.config import Experiment
from hiso_ray.errors import UserError
from hiso_ray.run_folder import files
from hiso_ray.run_folder.summary import spoilt

PAGE = "report.html"
INCH = 96  # CSS pixels
# Fields in the head of the page, whether they vary or not.
FACTS = {
    "task.name": "task",
    "task.model": "model",
    "task.data": "data",
    "task.trainable": "trained weights",
    "task.batch_size": "batch per client and local step",
    "metric": "score",
    "federation.num_clients": "clients",
    "federation.clients_per_round": "clients per round",
    "federation.partition": "partition",
    "federation.alpha": "skew α",
    "federation.rounds": "rounds",
    "federation.local_steps": "local steps τ",
    "method.num_perturbations": "perturbations P",
    "method.mu": "smoothing radius μ",
    "method.probe": "probe",
    "eval.every": "rounds between evaluations",
    "method.lr": "learning rates η",
    "seed": "seeds",
}
# Fields that are there only if they differ from their defaults.
DEPARTURES = (
    "attack.kind", "attack.fraction", "aggregation.rule", "aggregation.weights", "privacy.clip",
    "privacy.noise", "federation.dropout", "devices.deadline",
)  # fmt: skip
LONGEST = 150  # rows of a table on the page; longer ones are in their files
NAMED = 3  # folders in the title
SOME = 8  # values of a fact that are listed; more are counted


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        study: what was compared.
        files: in the order they were written; the page is the last.
    """

    study: Study
    files: list[Path]

    @property
    def warnings(self) -> list[str]:
        return list(_warnings(self.study))

    def short_table(self) -> pd.DataFrame:
        """The scores as text; trials one by one where they cannot be compared."""
        if self.study.comparable:
            return tables.formatted(self.study.summary().drop(columns="grid", errors="ignore"))
        return sections.every_trial(self.study).cells


def write(
    paths: Sequence[Path | str], out: Path | str, thresholds: Sequence[float] | None = None
) -> Report:
    """Writes pictures (PDF, PNG), tables (Markdown, LaTeX, CSV) and ``report.html``.

    Args:
        paths: run folders and sweep folders, mixed.
        out: a folder, made if it is missing; other files in it stay as they are.
        thresholds: scores for the table of when each was reached, shares in 0..1; by default a few
            round ones that were reached (:meth:`~.study.Study.thresholds`).

    Raises:
        UserError: paths that cannot be read, a threshold outside 0..1, ``out`` is a file;
            nothing has been written.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: a report is a folder, choose another --out")
    if wrong := [t for t in thresholds or () if not 0 < t <= 1]:
        raise UserError(
            f"thresholds = {', '.join(map(str, wrong))}: give scores as shares, above 0 and up to "
            "1 (0.9 for 90 %)"
        )
    with progress.step("reading"):
        found = study.read(*paths)
    if thresholds is None:
        thresholds = found.thresholds() if found.comparable else []
    with progress.step("comparing and drawing"):
        shown = sections.sections(found, sorted(set(thresholds)), _one_by_one(found, paths))
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for section in progress.parts("writing sections", shown):
        for picture in section.pictures:
            for ending in ("pdf", "png"):
                written += style.save(picture.figure, out / f"{picture.name}.{ending}")
        for table in section.tables:
            texts = {
                "md": tables.markdown(table.cells) + "\n",
                "tex": tables.latex(table.cells),
                "csv": tables.csv(table.frame),
            }
            for ending, text in texts.items():
                file = out / f"{table.name}.{ending}"
                file.write_text(text, encoding="utf-8")
                written.append(file)
    page = out / PAGE
    page.write_text(_page(found, shown, paths, out), encoding="utf-8")
    return Report(found, [*written, page])


def _one_by_one(found: Study, paths: Sequence[Path | str]) -> list[Path]:
    """The run folders given directly; all of them, if the trials cannot be compared."""
    if found.comparable:
        given = [path for path in map(Path, paths) if not (path / "plan.yaml").exists()]
        return list(dict.fromkeys(given))
    folders, shown = map(Path, found.trials["run"]), set(found.rounds["run"])
    return [f for f in folders if (f / files.METRICS).exists() and str(f) in shown]


def _page(found: Study, shown: Sequence[Section], paths: Sequence[Path | str], out: Path) -> str:
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    names = [Path(path).resolve().name for path in paths]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    failed = found.trials[found.trials["status"] == "failed"]
    return environment.from_string(template).render(
        title=f"Report: {', '.join(names[:NAMED])}{more}",
        longest=LONGEST,
        facts=list(_facts(found)),
        warnings=list(_warnings(found)),
        failed=[
            (Path(run).name, _last_line(error))
            for run, error in zip(failed["run"], failed["error"], strict=True)
        ],
        sections=[
            {
                "title": section.title,
                "notes": section.notes,
                "tables": section.tables,
                "pictures": [
                    {
                        "caption": picture.caption,
                        "width": round(picture.figure.get_size_inches()[0] * INCH),
                        "base64": base64.b64encode(
                            (out / f"{picture.name}.png").read_bytes()
                        ).decode(),
                    }
                    for picture in section.pictures
                ],
            }
            for section in shown
        ],
    )


def _facts(found: Study) -> Iterator[tuple[str, str]]:
    """What was compared, for the head of the page."""
    trials = found.trials
    yield "methods", ", ".join(style.name(m) for m in trials["method"].unique())
    usual = fields_of(Experiment())
    departed = [n for n in DEPARTURES if n in trials and set(trials[n].dropna()) - {usual[n]}]
    others = [name for name in dict.fromkeys([*found.within, *departed]) if name not in FACTS]
    for name, words in (FACTS | {name: name for name in others}).items():
        varied = " (varied)" if name in found.within else ""
        yield words + varied, _values(trials[name])
    counts = trials["status"].value_counts()
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    yield "trials", f"{len(trials)}: {told}"


def _warnings(found: Study) -> Iterator[str]:
    if not found.comparable:
        yield (
            f"Not a fair comparison, so methods are not compared: {found.unfair}. Trials are "
            "shown one by one."
        )
    elif found.unfair:
        yield f"Not a fair comparison, and shown all the same: {found.unfair}."
    if unfinished := int((found.trials["status"] == "unfinished").sum()):
        yield (
            f"{unfinished} of {len(found.trials)} trials have not finished: numbers, and the "
            "choice of rates, may change."
        )
    if stopped := int((found.trials["status"] == "stopped").sum()):
        yield (
            f"{stopped} trials were stopped early, so that budgets differ: scores after the last "
            "round are of different rounds."
        )
    for run in found.trials["run"]:
        yield from spoilt(Path(run))


def _last_line(error: Any) -> str:
    """The last line of an error with its traceback."""
    lines = [] if pd.isna(error) else str(error).strip().splitlines()
    return lines[-1] if lines else "unknown"


def _values(column: pd.Series) -> str:
    values: list[Any] = list(column.dropna().unique())
    if all(not isinstance(value, str) for value in values):
        values.sort()
    shown = [str(v) if isinstance(v, bool) else style.value_name(v) for v in values[:SOME]]
    more = f" and {len(values) - SOME} more" if len(values) > SOME else ""
    return (", ".join(shown) or "none") + more
