"""Writes ``metrics.csv``, one row per round with an evaluation every ``eval.every`` rounds, and
``diagnostics.csv``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hiso_ray.config import Experiment
from hiso_ray.config.schedule import rate
from hiso_ray.errors import NonFiniteLoss
from hiso_ray.execution.history import History
from hiso_ray.federation.traffic import Traffic
from hiso_ray.messages import Score
from hiso_ray.record import Record
from hiso_ray.run_folder import files
from hiso_ray.run_folder.metrics_reader import Row, scan_rows
from hiso_ray.run_folder.metrics_writer import DiagnosticsFile, MetricsFile
from hiso_ray.run_folder.outcomes import means
from hiso_ray.run_folder.summary import Course
from hiso_ray.server.privacy import Accountant

if TYPE_CHECKING:
    from hiso_ray.execution.contract import Executor


class MetricsRows:
    """Builds one row per round, writes it and passes it to ``on_row``.

    Bytes, forward passes and simulated seconds are computed from the records; seconds and Ray's
    bytes continue from the last row of an interrupted run. The table follows the ledger: every
    record has a row, even if an interrupted run lost some of its table.

    Attributes:
        course: the scores so far.
        score: of the newest round; None if this process has not evaluated that round.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        history: History,
        traffic: Traffic,
        executor: Executor,
        on_row: Callable[[Row], None],
    ) -> None:
        self.experiment, self.history, self.traffic = experiment, history, traffic
        self.executor, self.on_row = executor, on_row
        self.course = Course()
        self.score: Score | None = None
        self._accountant = _accountant(experiment)
        self.seconds_before, self.bytes_before = 0.0, 0
        kept = kept_rows(folder, history.ledger.round, experiment.federation.rounds)
        self.file = MetricsFile(folder, map(self.course.add, self._so_far(kept)))
        every = experiment.diagnostics.every
        self._diagnostics = DiagnosticsFile(folder, history.ledger.round) if every else None
        self.started = time.perf_counter()

    def catch_up(self) -> None:
        """Adds the row of round 0, or of a last round whose record was written but not its row."""
        last, done = self.course.row, self.history.round
        if last is None or last["round"] < done:
            self.add(self.history.ledger.since(done - 1)[0] if done else None)

    def _so_far(self, kept: Iterator[Row]) -> Iterator[Row]:
        """The rows of an interrupted run; rebuilds lost rows before the last round from their
        records. Counts the traffic of all records."""
        row = self._again(next(kept, None))
        if row is not None and row["round"] == 0:
            yield row
            row = self._again(next(kept, None))
        for record in self.history.ledger.scan():
            self.traffic.add(record)
            done = record.round + 1
            if row is not None and row["round"] == done:
                yield row
                row = self._again(next(kept, None))
            elif done < self.history.ledger.round:
                yield self._bare(done, record)

    def _again(self, row: Row | None) -> Row | None:
        """Continues the clock and the count of Ray's bytes from a row."""
        if row is not None:
            self.seconds_before, self.bytes_before = row["seconds"], row["ray_bytes"]
        return row

    def _bare(self, done: int, record: Record | None) -> Row:
        """A row without an evaluation, with the last known clock and Ray's bytes."""
        return {
            "round": done,
            "train_loss": record.train_loss if record else None,
            "eval_loss": None,
            "uplink_bytes": self.traffic.up,
            "downlink_bytes": self.traffic.down,
            "seconds": self.seconds_before,
            "ray_bytes": self.bytes_before,
            "forward_passes": self.traffic.forwards,
            "answered": len(record.cohort) if record else 0,
            "dropped": len(record.dropped) if record else 0,
            "late": len(record.late) if record else 0,
            "simulated_seconds": self.traffic.simulated_seconds,
            "lr": rate(self.experiment.method, record.round) if record else None,
            "epsilon": self._accountant.epsilon(done) if self._accountant else None,
        }

    def add(self, record: Record | None) -> None:
        """Evaluates if an evaluation is due, and adds the row of the newest round.

        Args:
            record: of that round; None for round 0.

        Raises:
            NonFiniteLoss: the evaluation loss is not finite.
        """
        done, experiment = self.history.round, self.experiment
        self.score = None
        row = self._bare(done, record)
        if done % experiment.eval.every == 0 or done == experiment.federation.rounds:
            row |= self._evaluation()
        row |= {
            "seconds": round(self.seconds_before + time.perf_counter() - self.started, 6),
            "ray_bytes": self.bytes_before + self.executor.message_bytes,
        }
        if self._diagnostics is not None and done % experiment.diagnostics.every == 0:
            # Before the row: while the row is missing, an interrupted run repeats this step.
            found = self.executor.diagnose(self.history) | self._of_server()
            with self.history.writing():
                self._diagnostics.add(found)
        self.course.add(row)
        with self.history.writing():
            self.file.add(row)
        self.on_row(row)

    def _evaluation(self) -> Row:
        result = self.executor.evaluate(self.history)
        self.score = result.score
        scores = means(result.score, self.experiment.task.validation_examples)
        if not all(math.isfinite(value) for value in scores.values()):
            raise NonFiniteLoss(
                f"non-finite evaluation loss after round {self.history.round}; lower "
                + " or ".join(self.experiment.method.rates)
            )
        return scores | result.statistics | self._of_server()

    def final_score(self) -> Score:
        """Score of the last round; evaluates again if an earlier process wrote that row."""
        return self.executor.evaluate(self.history).score if self.score is None else self.score

    def _of_server(self) -> Row:
        """Columns that only the server knows; empty unless the method sends weights."""
        server = self.history.server
        return {} if server is None else {"update_norm": server.update_norm}

    def close(self) -> None:
        self.file.close()


def kept_rows(folder: Path, done: int, rounds: int) -> Iterator[Row]:
    """The rows of an interrupted run that are kept. Rows beyond the ledger's end are dropped, and
    so is the last round's if it has no evaluation, because the run was then planned to be longer.

    Args:
        done: rounds in the ledger.
        rounds: planned for the run.
    """
    for row in scan_rows(folder / files.METRICS):
        due = row["round"] == done == rounds and row["eval_loss"] is None
        if row["round"] <= done and not due:
            yield row


def _accountant(experiment: Experiment) -> Accountant | None:
    federation, privacy = experiment.federation, experiment.privacy
    if privacy.noise == 0:
        return None
    sizes = (federation.num_clients, federation.clients_per_round)
    return Accountant(*sizes, privacy.noise, privacy.delta)
