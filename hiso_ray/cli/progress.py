"""What the user sees: a progress bar in a terminal, plain lines elsewhere, a table at the end."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from hiso_ray.config import Experiment
from hiso_ray.run_folder.metrics_reader import Row

if TYPE_CHECKING:  # loads torch, which the command line's help does not need
    from typing import Self

    from hiso_ray.runs.plan import Plan


def readable_bytes(count: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


class Bar:
    """A progress bar in a terminal, nothing elsewhere; use as a context manager."""

    def __init__(self, console: Console, what: str, total: int) -> None:
        self._progress: Progress | None = None
        if console.is_terminal:
            self._progress = Progress(
                TextColumn(what),
                MofNCompleteColumn(),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(compact=True),
                console=console,
            )
            self._task = self._progress.add_task(what, total=total, numbers="")

    def __enter__(self) -> Self:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._progress:
            self._progress.stop()

    def show(self, done: int, numbers: str) -> bool:
        """Updates the bar; returns False if there is none."""
        if self._progress:
            self._progress.update(self._task, completed=done, numbers=numbers)
        return self._progress is not None


class Display(Bar):
    """Shows each row when it is made; use as a context manager around a run."""

    def __init__(self, console: Console, experiment: Experiment) -> None:
        super().__init__(console, "round", experiment.federation.rounds)
        self.console, self.rounds = console, experiment.federation.rounds
        self.metric = experiment.task.metric
        self._score = self._loss = float("nan")
        self._first: Row | None = None

    def note(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def row(self, row: Row) -> None:
        self._first = self._first or row
        score = row.get(f"eval_{self.metric}")
        self._score = self._score if score is None else score
        loss = row["train_loss"] if row["train_loss"] is not None else row["eval_loss"]
        self._loss = loss if loss is not None else self._loss
        elapsed = row["seconds"] - self._first["seconds"]
        speed = (row["round"] - self._first["round"]) / elapsed if elapsed > 0 else 0.0
        numbers = (
            f"loss {self._loss:.4f}  {self.metric} {self._score:.2%}  "
            f"{readable_bytes(row['uplink_bytes'] + row['downlink_bytes'])}  {speed:.1f} rounds/s"
        )
        if not self.show(row["round"], numbers) and score is not None:
            self.note(f"round {row['round']}/{self.rounds}  {numbers}")


def two_columns(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    """A table of names and values."""
    table = Table(show_header=False, title=escape(title))
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(escape(name), escape(value))
    return table


def plan_table(experiment: Experiment, plan: Plan) -> Table:
    """The table of a plan, for ``--dry-run``."""
    federation, method, task = experiment.federation, experiment.method, experiment.task
    whole = plan.trainable + plan.frozen
    rounds = (
        f"{federation.rounds:,} rounds, {federation.clients_per_round:,} of "
        f"{federation.num_clients:,} clients each, {federation.local_steps} local step(s)"
    )
    if method.row.draws:
        what = "projections" if method.row.projects else "perturbations"
        rounds += f", {method.directions_per_step} {what}"
    return two_columns(
        f"{method.name} on {task.name}: a plan, nothing was run",
        (
            ("paper", method.row.paper),
            ("a round", method.row.rule),
            ("model", task.model),
            ("trainable weights d", f"{plan.trainable:,} of {whole:,}"),
            *_curvature(method.curvature, plan.curvature),
            *([("probes hold", plan.probes)] if plan.probes else []),
            ("federation", rounds),
            ("up, a sampled client and round", f"{plan.uplink_bytes:,} B"),
            ("down, the same, one record missed", f"{plan.downlink_bytes:,} B"),
            ("per client, the paper's rule", f"{plan.paper_bytes_per_client:,} B"),
            ("initial model, each client", readable_bytes(plan.initial_model_bytes)),
            *([("mask, each client", f"{plan.mask_bytes:,} B")] if plan.mask_bytes else []),
            ("forward passes", f"{plan.forward_passes:,}, each {task.batch_size} examples"),
            *(("virtual clock", line) for line in plan.clock),
            ("memory of an actor", readable_bytes(plan.actor_bytes)),
            ("and for activations", f"{readable_bytes(plan.activation_bytes)} at most"),
            *_shared(plan.shared_bytes),
            *_server(plan.server_bytes),
            (
                "actors a GPU's memory holds",
                ", ".join(f"{n} on {size} GiB" for size, n in plan.actors_per_gpu.items()),
            ),
        ),
    )


def _shared(memory: int) -> list[tuple[str, str]]:
    words = f"{readable_bytes(memory)} of frozen weights"
    return [("shared by a node's actors", words)] if memory else []


def _server(memory: int) -> list[tuple[str, str]]:
    return [("memory of the driver", readable_bytes(memory))] if memory else []


def _curvature(arm: str, memory: str) -> list[tuple[str, str]]:
    return [] if arm == "none" else [("curvature", f"{arm}, {memory}")]


def _faults(summary: dict[str, Any]) -> str:
    kinds = ", ".join(f"{n} {kind}" for kind, n in summary["faults_by_kind"].items())
    return f"{summary['faults']} ({kinds})" if kinds else f"{summary['faults']}"


def _simulated(summary: dict[str, Any]) -> list[tuple[str, str]]:
    seconds = summary["simulated_seconds"]
    return [("time on the virtual clock", f"{seconds:,.0f} s")] if seconds else []


def _privacy(summary: dict[str, Any]) -> list[tuple[str, str]]:
    epsilon, delta = summary["epsilon"], summary["delta"]
    return [] if epsilon is None else [("privacy of a client", f"ε = {epsilon:.3g}, δ = {delta:g}")]


def _validation(summary: dict[str, Any]) -> list[tuple[str, str]]:
    final, best = summary["final_validation_score"], summary["best_validation_score"]
    if final is None:
        return []
    there = summary["score_at_best_validation"]
    return [("on validation", f"{final:.2%} (best {best:.2%}, the test {there:.2%} then)")]


def _share(score: float | None) -> str:
    return "–" if score is None else f"{score:.2%}"


def summary_table(summary: dict[str, Any], folder: str) -> Table:
    """The closing table of a run."""
    rows = (
        ("rounds", f"{summary['rounds']:,} with {summary['clients']:,} clients"),
        (
            summary["metric"],
            f"{_share(summary['initial_score'])} → {summary['final_score']:.2%} "
            f"(best {summary['best_score']:.2%})",
        ),
        *_validation(summary),
        ("sent up, all clients", readable_bytes(summary["uplink_bytes"])),
        ("sent down, all clients", readable_bytes(summary["downlink_bytes"])),
        ("per client, the paper's rule", readable_bytes(summary["paper_bytes_per_client"])),
        ("initial model, each client", readable_bytes(summary["initial_model_bytes_per_client"])),
        ("driver ↔ actors, measured", readable_bytes(summary["ray_bytes"])),
        ("forward passes", f"{summary['forward_passes']:,}"),
        ("time in rounds", f"{summary['seconds']:.1f} s on {summary['actors']} actor(s)"),
        *_simulated(summary),
        *_privacy(summary),
        ("faults survived", _faults(summary)),
        ("model_sha256", summary["model_sha256"]),
        ("folder", folder),
    )
    return two_columns(f"{summary['method']} on {summary['task']}", rows)
