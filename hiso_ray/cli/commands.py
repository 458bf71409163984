"""The commands: thin callers of the library. Those that look at runs are in ``watching``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from hiso_ray.cli.bars import Steps
from hiso_ray.cli.doctor import doctor
from hiso_ray.cli.options import (
    FAILED,
    console,
    experiment_given,
    fields_given,
    guarded,
    print_anywhere,
    warn_of_job_copy,
)
from hiso_ray.cli.parser import parser
from hiso_ray.cli.progress import Display, plan_table, summary_table
from hiso_ray.cli.watching import commands as watching


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    print_anywhere()
    given = parser().parse_args(arguments)
    with_hint = "the rounds done so far are in the ledger, `resume` goes on"
    return guarded("hiso-ray", lambda: COMMANDS[given.command](given, console()), with_hint)


def _run(given: argparse.Namespace, console: Console) -> int:
    from hiso_ray.run_folder.folder import named
    from hiso_ray.runs import run

    experiment = experiment_given(given)
    if given.dry_run:
        from hiso_ray.runs.plan import plan
        from hiso_ray.tasks import preview

        shown = preview(experiment)
        console.print(plan_table(experiment, plan(experiment)), highlight=False)
        for line in shown:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        return 0
    with named(experiment, given.out) as path:
        folder = path.resolve()
        warn_of_job_copy(console, folder, given.out)
        with Display(console, experiment) as display:
            summary = run(experiment, folder, display.row, display.note)
    console.print(summary_table(summary, str(folder)), highlight=False)
    return 0


def _resume(given: argparse.Namespace, console: Console) -> int:
    from hiso_ray.run_folder.folder import continued
    from hiso_ray.runs import resume

    changes = fields_given(given)
    with Display(console, continued(Path(given.folder), changes)) as display:
        summary = resume(given.folder, display.row, display.note, changes)
    console.print(summary_table(summary, given.folder), highlight=False)
    return 0


def _replay(given: argparse.Namespace, console: Console) -> int:
    from hiso_ray.runs import replay

    with Steps(console):
        found = replay(
            given.folder,
            given.round,
            given.export,
            lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True),
            given.outcomes,
            merge=given.merge,
            push=given.push,
            private=given.private,
        )
    console.print(f"round {found['round']}: {_scores(found, 'eval')}", highlight=False)
    if "validation_loss" in found:
        console.print(f"validation: {_scores(found, 'validation')}", highlight=False)
    console.print(f"model_sha256 {found['model_sha256']}", highlight=False)
    if given.export:
        console.print(f"exported to {given.export}", highlight=False, markup=False)
    if given.push:
        where = f"pushed to {found['pushed']}" if found["pushed"] else "not pushed"
        console.print(where, highlight=False, markup=False, soft_wrap=True)
    if given.outcomes:
        console.print(f"outcomes in {given.outcomes}", highlight=False, markup=False)
    if found["matches"] is None:
        return 0
    verdict = "equals" if found["matches"] else "DIFFERS from"
    console.print(f"the digest {verdict} the one in summary.json", highlight=False)
    return 0 if found["matches"] else FAILED


def _scores(found: dict[str, Any], part: str) -> str:
    """``accuracy 97.70%, loss 0.1029`` of the ``eval_`` or ``validation_`` values."""
    scores = {k.removeprefix(f"{part}_"): v for k, v in found.items() if k.startswith(f"{part}_")}
    loss = scores.pop("loss")
    return f"{', '.join(f'{name} {value:.2%}' for name, value in scores.items())}, loss {loss:.4f}"


def _report(given: argparse.Namespace, console: Console) -> int:
    from rich.markup import escape
    from rich.table import Table

    from hiso_ray.analysis import report

    if given.live:
        return watching.run_live(given, console)
    with Steps(console):
        made = report.write(given.folders, given.out, given.thresholds)
    cells = made.short_table()
    table = Table(*map(str, cells.columns))
    for row in cells.itertuples(index=False):
        table.add_row(*map(escape, row))
    console.print(table)
    for warning in made.warnings:
        console.print(f"note: {warning}", highlight=False, markup=False, soft_wrap=True)
    *files, page = (file.name for file in made.files)
    endings = sorted({file.rpartition(".")[2] for file in files})
    console.print(
        f"{len(files)} files ({', '.join(endings)}) and {page} in {given.out}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return 0


COMMANDS = {
    "run": _run,
    "resume": _resume,
    "replay": _replay,
    "report": _report,
    "show": watching.run_show,
    "watch": watching.run_watch,
    "doctor": doctor,
}
