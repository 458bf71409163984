"""The command line: thin callers of the library. Those that look at runs are in ``watching``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from hiso_ray.cli.bars import Steps
from hiso_ray.cli.doctor import add_doctor, doctor
from hiso_ray.cli.options import (
    FAILED,
    Parser,
    add_fields,
    console,
    experiment_given,
    fields_given,
    guarded,
    print_anywhere,
    warn_of_job_copy,
)
from hiso_ray.cli.progress import Display, plan_table, summary_table
from hiso_ray.cli.watching import commands as watching


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="hiso-ray",
        description="Scalar-only federated zeroth-order fine-tuning (HiSo, DeComFL, their "
        "relatives, and the first-order baselines), simulated on Ray. `hiso-ray run` without "
        "options runs the embedded default job.",
        allow_abbrev=False,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="run one federation",
        usage="%(prog)s [--config FILE] [--out DIR] [--dry-run] [--SECTION.FIELD VALUE ...]",
        description="Runs one federation and leaves a run folder. Options override --config, "
        "which overrides the defaults shown.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  hiso-ray run --method.name decomfl --federation.alpha 0.1 --out runs/decomfl\n"
        "  hiso-ray run --task.name sst2 --task.model PATH --task.data PATH --method.lr 6e-4\n"
        "  hiso-ray run --task.name prompts --task.data reviews.csv --dry-run \\\n"
        "    --task.prompt.template '{review} It was' --task.prompt.answers ' bad, good'\n"
        "  hiso-ray run --config runs/decomfl/config.yaml --out runs/again",
        allow_abbrev=False,
    )
    run.add_argument("--config", metavar="FILE", help="YAML file with sections of fields")
    run.add_argument(
        "--out", metavar="DIR", help="run folder (default: runs/TASK-METHOD-seedN-TIME)"
    )
    run.add_argument(
        "--dry-run",
        action="store_true",
        help="check and resolve everything, say what the run will take, show the first prompts of "
        "a language task with their tokens, where data and tokenizer are here, and stop: no "
        "weights are read, no hub is asked for data",
    )
    add_fields(run)

    resume = commands.add_parser(
        "resume",
        help="go on with an interrupted run, or add rounds to a finished one",
        usage="%(prog)s DIR [--federation.rounds N] [--SECTION.FIELD VALUE ...]",
        description="Goes on from the ledger to the same end. More rounds can be asked for, and "
        "tracking, resources, eval and diagnostics may change; a change of anything else is "
        "refused. Fields keep the run's values unless given.",
        allow_abbrev=False,
    )
    resume.add_argument("folder", metavar="DIR")
    add_fields(resume)

    replay = commands.add_parser(
        "replay",
        help="rebuild the weights from x_0 and the ledger, check the digest, export, upload",
        allow_abbrev=False,
    )
    replay.add_argument("folder", metavar="DIR")
    replay.add_argument("--round", type=int, metavar="R", help="how many rounds (default: all)")
    replay.add_argument(
        "--export", metavar="FOLDER", help="write the model and its card to a new folder"
    )
    replay.add_argument(
        "--merge",
        action="store_true",
        help="LoRA: export the whole model with the adapter folded in, not the adapter",
    )
    replay.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="upload the export to this repository of the Hugging Face hub, or of HF_ENDPOINT, as "
        "the owner of the token in HF_TOKEN; it is created if there is none",
    )
    replay.add_argument(
        "--private", action="store_true", help="create that repository as a private one"
    )
    replay.add_argument(
        "--outcomes",
        metavar="FILE",
        help="write loss and scores of every evaluation example to a new Parquet file, as the "
        "run's outcomes.parquet has them after its last round",
    )

    report = commands.add_parser(
        "report",
        help="pictures, tables and a page from run folders and sweep folders",
        usage="%(prog)s DIR [DIR ...] [--out FOLDER] [--thresholds SCORE [SCORE ...]]\n"
        "                       [--live [--port P]]",
        description="Writes pictures (PDF, PNG), tables (Markdown, LaTeX, CSV) and report.html, "
        "which holds them all. What is shown follows from what the folders hold: several seeds "
        "give bands, several learning rates the best one per method, several settings maps, and "
        "outcomes.parquet differences on the same examples.",
        allow_abbrev=False,
    )
    report.add_argument("folders", nargs="+", metavar="DIR", help="run folders and sweep folders")
    report.add_argument(
        "--out", metavar="FOLDER", default="report", help="where to write (default: report)"
    )
    report.add_argument(
        "--thresholds",
        nargs="+",
        type=float,
        metavar="SCORE",
        help="scores whose arrival is compared, such as 0.7 0.8 0.9 (default: a few round ones "
        "that were reached)",
    )
    watching.add_live(report)
    watching.add_commands(commands)
    add_doctor(commands)
    return top


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
