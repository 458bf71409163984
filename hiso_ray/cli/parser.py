"""The command line's commands and options."""

from __future__ import annotations

import argparse
from typing import Any

from hiso_ray.cli.doctor import add_doctor
from hiso_ray.cli.options import Parser, add_fields
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
    for add in (_add_run, _add_resume, _add_replay, _add_report):
        add(commands)
    watching.add_commands(commands)
    add_doctor(commands)
    return top


def _add_run(commands: Any) -> None:
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


def _add_resume(commands: Any) -> None:
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


def _add_replay(commands: Any) -> None:
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


def _add_report(commands: Any) -> None:
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
