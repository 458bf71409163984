"""``python -m sweeps``: a sweep from the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hiso_ray.analysis import sweep_files
from hiso_ray.cli.options import (
    FAILED,
    Parser,
    add_fields,
    console,
    fields_given,
    guarded,
    print_anywhere,
    warn_of_job_copy,
)
from hiso_ray.errors import UserError
from hiso_ray.run_folder.folder import fresh
from hiso_ray.sweeps import folder as sweep_folder
from hiso_ray.sweeps.ready import READY
from hiso_ray.sweeps.table import Sweep, read_sweep

COMMAND = "python -m sweeps"  # from a checkout; installed, python -m hiso_ray.sweeps


def parser(command: str = COMMAND) -> argparse.ArgumentParser:
    """
    Args:
        command: how it was called.
    """
    ready = "\n".join(f"  {name:<10} {sweep.about}" for name, sweep in READY.items())
    sweeps = Parser(
        prog=command,
        usage="%(prog)s SWEEP [--out DIR] [--resume] [--dry-run] [--smoke] [--concurrency N]\n"
        "                        [--SECTION.FIELD VALUE [VALUE ...] ...]",
        description="Runs every trial of a sweep on Ray Tune and leaves a sweep folder: a run\n"
        "folder per trial, trials.parquet and rounds.parquet. Of the experiment's fields, one\n"
        "value fixes it for every trial, several make it an axis.\n\nready sweeps:\n" + ready,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        f"  {command} stress --dry-run\n"
        f"  {command} lr_grid --method.lr 0.01 0.03 0.1 --seed 0 1 --out runs/rates\n"
        f"  {command} lr_grid --method.lr 0.01 0.03 0.1 --seed 0 1 2 --out runs/rates \\\n"
        "      --resume                                 # what is missing, and what is new\n"
        f"  {command} --resume --out runs/rates   # the sweep that lies there\n"
        f"  {command} rates.yaml                  # a table of one's own\n"
        "  hiso-ray report runs/rates                   # curves, tables, a page",
        allow_abbrev=False,
    )
    sweeps.add_argument(
        "sweep", nargs="?", metavar="SWEEP", help="a ready sweep, a YAML file, or a .py with SWEEP"
    )
    sweeps.add_argument("--out", metavar="DIR", help="sweep folder (default: runs/sweep-NAME-TIME)")
    sweeps.add_argument(
        "--resume",
        action="store_true",
        help="run what the folder lacks: interrupted and failed trials, and new ones",
    )
    sweeps.add_argument(
        "--dry-run", action="store_true", help="check every trial, say what they take, and stop"
    )
    sweeps.add_argument("--smoke", action="store_true", help="the sweep in tiny, in a minute or so")
    sweeps.add_argument(
        "--concurrency",
        type=_positive,
        metavar="N",
        help="trials at once (default: as many as the cluster holds, one actor each)",
    )
    sweeps.add_argument(
        "--early-stopping",
        action="store_true",
        help="let ASHA stop trials that fall behind all others, whatever their setting: cheaper, "
        "and no longer a fair comparison",
    )
    add_fields(sweeps, nargs="+")
    return sweeps


def main(arguments: Sequence[str] | None = None, command: str = COMMAND) -> int:
    """Runs or plans a sweep; returns the exit status: 1 if a trial failed."""
    print_anywhere()
    given = parser(command).parse_args(arguments)
    if given.sweep is None and not given.resume:
        parser(command).error(
            f"which sweep? Name it first: {', '.join(READY)}, or a .yaml or .py file"
        )
    goes_on = "trials that have finished are kept, --resume runs the others"
    return guarded("sweeps", lambda: _sweep(given, console()), goes_on)


def _sweep(given: argparse.Namespace, console: Console) -> int:
    sweep = _asked_for(given)
    out = Path(given.out) if given.out else sweep_folder.default_path(sweep)
    trials = sweep.trials()
    if given.dry_run:
        from hiso_ray.sweeps.plan import plan, plan_table

        sweep_folder.check_plan(out, sweep, trials)
        found = plan(trials, out, given.concurrency, given.early_stopping)
        console.print(plan_table(sweep, trials, found), highlight=False)
        return 0
    from hiso_ray.sweeps.runner import run_sweep

    with nullcontext(out) if given.out else fresh(out) as folder:
        warn_of_job_copy(console, folder.resolve(), given.out)
        table = run_sweep(
            sweep,
            folder,
            concurrency=given.concurrency,
            resume=given.resume,
            early_stopping=given.early_stopping,
            console=console,
        )
        return _conclude(table, folder, console)


def _asked_for(given: argparse.Namespace) -> Sweep:
    if given.sweep is None:
        if given.out is None:
            raise UserError("--resume without a sweep needs --out: the sweep folder to go on with")
        sweep = sweep_folder.planned(Path(given.out))
    elif given.sweep in READY:
        sweep = READY[given.sweep]
    elif given.sweep.endswith((".yaml", ".yml", ".py")):
        sweep = read_sweep(given.sweep)
    else:
        raise UserError(
            f"{given.sweep}: no such sweep (ready ones: {', '.join(READY)}; or a .yaml or .py file)"
        )
    if given.smoke:
        sweep = sweep.smoked()
    values = {
        name: _value(texts[0]) if len(texts) == 1 else [_value(text) for text in texts]
        for name, texts in fields_given(given).items()
    }
    return sweep.changed(values)


def _conclude(table: Any, out: Path, console: Console) -> int:
    counts = table["status"].value_counts()
    failed = table[table["status"] == sweep_files.FAILED]
    if len(failed):
        shown = Table("trial", "error", title="failed")
        for run, error in zip(failed["run"], failed["error"], strict=True):
            shown.add_row(escape(Path(run).name), escape(error.strip().splitlines()[-1]))
        console.print(shown)
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    console.print(
        f"{len(table)} trials: {told}\nin {out}\ncurves and tables: hiso-ray report {out}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    over = {sweep_files.FINISHED, sweep_files.STOPPED}
    return 0 if set(table["status"]) <= over else FAILED


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number, 1 or more")
    return int(text)


def _value(text: str) -> Any:
    """The text as a number if it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
