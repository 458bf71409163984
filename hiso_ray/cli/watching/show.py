"""``hiso-ray show``: a run or a sweep on one screen, with what to do next."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hiso_ray.analysis import sweep_files
from hiso_ray.analysis.identity import label
from hiso_ray.analysis.sweep_state import read_sweep_state
from hiso_ray.cli.progress import directions_in_words, readable_seconds
from hiso_ray.cli.watching import run_view, sweep_view
from hiso_ray.cli.watching.next_steps import Step, next_steps, next_steps_of_sweep
from hiso_ray.cli.watching.pace import pace
from hiso_ray.cli.watching.run_view import Rows
from hiso_ray.run_folder import files
from hiso_ray.run_folder.ledger import Ledger, LedgerError
from hiso_ray.run_folder.state import State, read_state
from hiso_ray.run_folder.summary import spoilt


def show(folder: Path, console: Console) -> int:
    """Explains a folder; returns the exit status.

    Raises:
        UserError: it is neither a run folder nor a sweep folder.
    """
    if sweep_files.kind_of(folder) == "sweep":
        _show_sweep(folder, console)
    else:
        _show_run(folder, console)
    return 0


def _show_run(folder: Path, console: Console) -> None:
    run = read_state(folder)
    ledger, broken = _ledger(run)
    digest = (run.summary or {}).get("model_sha256")
    _print_rows(console, "what", _what(run))
    how = [
        ("state", run_view.state_in_words(run)),
        ("rounds", _rounds(run)),
        *run_view.scores(run),
        *run_view.traffic(run),
        *run_view.troubles(run),
        ("ledger", broken or ledger),
        *([("model_sha256", digest)] if digest else []),
        *(("warning", line) for line in spoilt(folder)),
    ]
    _print_rows(console, "how it went", how)
    _print_steps(console, next_steps(run, broken))


def _show_sweep(folder: Path, console: Console) -> None:
    sweep = read_sweep_state(folder)
    _print_rows(
        console,
        f"sweep {sweep.name}",
        [("folder", str(folder)), ("state", sweep_view.state_in_words(sweep))],
    )
    console.print(sweep_view.trials_table(sweep), highlight=False)
    _print_steps(console, next_steps_of_sweep(sweep))


def _what(run: State) -> Rows:
    experiment = run.experiment
    method, task, federation = experiment.method, experiment.task, experiment.federation
    rule = f"{label(experiment)}, learning rate {method.lr:g}{directions_in_words(method)}"
    if not method.row.first_order:
        rule += f", μ = {method.mu:g}"
    skew = f", α = {federation.alpha:g}" if federation.partition == "dirichlet" else ""
    sweep = sweep_files.sweep_of(run.folder)
    return [
        ("folder", str(run.folder)),
        *([("trial of", str(sweep))] if sweep else []),
        ("method", rule),
        ("task", f"{task.name} with {task.model} in {task.dtype}; data {task.data}"),
        (
            "federation",
            f"{federation.clients_per_round:,} of {federation.num_clients:,} clients a round, "
            f"{federation.local_steps} local step(s), {federation.partition}{skew}; seed "
            f"{experiment.seed}",
        ),
        ("made by", run.versions or "unknown"),
    ]


def _rounds(run: State) -> str:
    words, found = f"{run.done:,} of {run.planned:,}", pace(run)
    if (seconds := run.last("seconds")) is not None:
        words += f", in {readable_seconds(seconds)}"
    if found is None:
        return words
    return f"{words}; {found if run.phase == 'running' else found.speed_in_words}"


def _ledger(run: State) -> tuple[str, str]:
    """(what the ledger holds, why it cannot be trusted: empty if it can)."""
    path = run.folder / files.LEDGER
    if not path.exists():
        return "none yet: the run has not reached its first round", ""
    try:
        ledger = Ledger.read(path)
    except LedgerError as error:
        return "", str(error)
    torn = f", and a torn record of {ledger.dropped_bytes} bytes" if ledger.dropped_bytes else ""
    return f"{ledger.round:,} rounds, all checks hold{torn}", ""


def _print_rows(console: Console, title: str, rows: Rows) -> None:
    table = Table(box=None, show_header=False, title=f"[bold]{escape(title)}", title_justify="left")
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(escape(name), escape(value))
    console.print(table, highlight=False)


def _print_steps(console: Console, steps: list[Step]) -> None:
    """Unwrapped, so that commands can be copied."""
    console.print("[bold]next")
    for what, command in steps:
        console.print(f"  {what}:", highlight=False, markup=False, style="dim")
        console.print(f"    {command}", highlight=False, markup=False, soft_wrap=True)
