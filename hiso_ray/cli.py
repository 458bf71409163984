"""The command line: ``run``, ``resume``, ``replay`` and ``report``, thin callers of the library."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin

from pydantic import ValidationError
from rich.console import Console

from hiso_ray import config
from hiso_ray.config import Experiment
from hiso_ray.fields import explain, known_fields
from hiso_ray.messages import TurnFailed
from hiso_ray.progress import Display, plan_table, summary_table

USER_ERROR, FAILED, INTERRUPTED = 2, 1, 130
NEGATIVE_NUMBER = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray where `ray job submit` runs its command
PLAIN_WIDTH = 120  # columns where there is no terminal


class _Parser(argparse.ArgumentParser):
    """Says which option was probably meant."""

    def error(self, message: str) -> NoReturn:
        unknown = [word for word in message.split() if word.startswith("--")]
        if "unrecognized arguments" in message and unknown:
            near = difflib.get_close_matches(unknown[0], self.options(), n=1, cutoff=0.5)
            message += f" (did you mean {near[0]}?)" if near else ""
        super().error(message)

    def options(self) -> list[str]:
        subs = [a for a in self._actions if isinstance(a, argparse._SubParsersAction)]
        parsers = [self, *(p for s in subs for p in s.choices.values())]
        return [o for p in parsers for a in p._actions for o in a.option_strings]


def parser() -> argparse.ArgumentParser:
    top = _Parser(
        prog="hiso-ray",
        description="Scalar-only federated zeroth-order fine-tuning (HiSo, DeComFL), simulated on "
        "Ray. `hiso-ray run` without options runs the embedded default job.",
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
        help="check and resolve everything, say what the run will take, and stop: no weights or "
        "data are read",
    )
    _add_fields(run)

    resume = commands.add_parser(
        "resume",
        help="go on with an interrupted run, or add rounds to a finished one",
        usage="%(prog)s DIR [--federation.rounds N] [--SECTION.FIELD VALUE ...]",
        description="Goes on from the ledger to the same end. More rounds can be asked for, and "
        "resources and eval may change; a change of anything else is refused. Fields keep the "
        "run's values unless given.",
        allow_abbrev=False,
    )
    resume.add_argument("folder", metavar="DIR")
    _add_fields(resume)

    replay = commands.add_parser(
        "replay",
        help="rebuild the weights from x_0 and the ledger, check the digest, export",
        allow_abbrev=False,
    )
    replay.add_argument("folder", metavar="DIR")
    replay.add_argument("--round", type=int, metavar="R", help="how many rounds (default: all)")
    replay.add_argument("--export", metavar="FOLDER", help="write the model to a new folder")

    report = commands.add_parser(
        "report", help="curves and a table from run folders", allow_abbrev=False
    )
    report.add_argument("folders", nargs="+", metavar="DIR")
    report.add_argument(
        "--out", metavar="FILE", default="report.png", help="picture (png, pdf, svg)"
    )
    return top


def _add_fields(run: argparse.ArgumentParser) -> None:
    """One option per field of the experiment, grouped by section."""
    run._negative_number_matcher = NEGATIVE_NUMBER  # argparse's own does not know exponents
    groups: dict[str, Any] = {}
    for name, info in known_fields().items():
        section = name.rpartition(".")[0] or "experiment"
        if section not in groups:
            groups[section] = run.add_argument_group(section)
        groups[section].add_argument(
            f"--{name}",
            dest=f"field:{name}",
            metavar=_kind(info.annotation),
            default=argparse.SUPPRESS,
            help=f"{info.description} (default: {info.default})".replace("%", "%%"),
        )


def _kind(annotation: Any) -> str:
    """What a field takes: its choices, or INT, FLOAT, TEXT."""
    if get_origin(annotation) is Literal:
        return "{" + ",".join(get_args(annotation)) + "}"
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    kinds = {int: "INT", float: "FLOAT", str: "TEXT"}
    if annotation in kinds:
        return kinds[annotation]
    return "|".join(_kind(part).strip("{}") for part in get_args(annotation))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    given = parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    signal.signal(signal.SIGTERM, _interrupt)  # `ray job stop`
    try:
        return COMMANDS[given.command](given, console)
    except ValidationError as error:
        return _fail(explain(error), USER_ERROR)
    except TurnFailed as error:
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        return _fail(str(error), FAILED)
    except (ValueError, OSError) as error:
        return _fail(str(error), USER_ERROR)
    except KeyboardInterrupt:
        return _fail(
            "interrupted; the rounds done so far are in the ledger, `resume` goes on", INTERRUPTED
        )


def _interrupt(signum: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _fail(message: str, status: int) -> int:
    print(f"hiso-ray: error: {message}", file=sys.stderr)
    return status


def _fields_given(given: argparse.Namespace) -> dict[str, Any]:
    fields = vars(given).items()
    return {name.removeprefix("field:"): v for name, v in fields if name.startswith("field:")}


def _run(given: argparse.Namespace, console: Console) -> int:
    from hiso_ray.run_folder import default_folder
    from hiso_ray.runs import run
    from hiso_ray.tasks import resolve

    values = config.load(given.config) if given.config else {}
    for name, value in _fields_given(given).items():
        config.put(values, name, value)
    experiment = resolve(Experiment.model_validate(values))
    if given.dry_run:
        from hiso_ray.plan import plan

        console.print(plan_table(experiment, plan(experiment)), highlight=False)
        return 0
    folder = Path(given.out or default_folder(experiment)).resolve()
    if JOB in os.environ and not Path(given.out or "").is_absolute():
        console.print(
            f"note: a Ray job runs in a copy of its working directory, so {folder} may be removed "
            "with it; give --out an absolute path",
            highlight=False,
            soft_wrap=True,
        )
    with Display(console, experiment) as display:
        summary = run(experiment, folder, display.row, display.note)
    console.print(summary_table(summary, str(folder)), highlight=False)
    return 0


def _resume(given: argparse.Namespace, console: Console) -> int:
    from hiso_ray.run_folder import continued
    from hiso_ray.runs import resume

    changes = _fields_given(given)
    with Display(console, continued(Path(given.folder), changes)) as display:
        summary = resume(given.folder, display.row, display.note, changes)
    console.print(summary_table(summary, given.folder), highlight=False)
    return 0


def _replay(given: argparse.Namespace, console: Console) -> int:
    from hiso_ray.runs import replay

    found = replay(given.folder, given.round, given.export, lambda line: console.print(line))
    scores = {k.removeprefix("eval_"): v for k, v in found.items() if k.startswith("eval_")}
    loss = scores.pop("loss")
    console.print(
        f"round {found['round']}: {', '.join(f'{k} {v:.2%}' for k, v in scores.items())}, loss "
        f"{loss:.4f}\nmodel_sha256 {found['model_sha256']}",
        highlight=False,
    )
    if given.export:
        console.print(f"exported to {given.export}", highlight=False)
    if found["matches"] is None:
        return 0
    verdict = "equals" if found["matches"] else "DIFFERS from"
    console.print(f"the digest {verdict} the one in summary.json", highlight=False)
    return 0 if found["matches"] else FAILED


def _report(given: argparse.Namespace, console: Console) -> int:
    from rich.table import Table

    from analysis import curves, load

    curves.convergence(given.folders, given.out)
    columns = (
        "run", "method", "curvature", "rounds", "metric", "final_score", "best_score",
        "paper_bytes_per_client",
    )  # fmt: skip
    table = Table(*columns)
    for row in load.summaries(given.folders).to_dict("records"):
        table.add_row(*(f"{v:.4f}" if isinstance(v := row[c], float) else str(v) for c in columns))
    console.print(table)
    console.print(f"curves in {given.out}", highlight=False)
    return 0


COMMANDS = {"run": _run, "resume": _resume, "replay": _replay, "report": _report}
