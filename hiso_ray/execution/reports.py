"""The rows of ``metrics.csv``: one a round, with the evaluation every ``eval.every`` rounds; and
those of ``diagnostics.csv``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hiso_ray.config import Experiment
from hiso_ray.errors import NonFiniteLoss
from hiso_ray.execution.history import History
from hiso_ray.federation.traffic import Traffic
from hiso_ray.messages import Score
from hiso_ray.record import Record
from hiso_ray.run_folder.metrics import DiagnosticsFile, MetricsFile
from hiso_ray.run_folder.outcomes import means
from hiso_ray.run_folder.rows import Row, scan_rows
from hiso_ray.run_folder.summary import Course
from hiso_ray.server.privacy import Accountant

if TYPE_CHECKING:
    from hiso_ray.execution.contract import Executor


class Reports:
    """Makes a row of each round, writes it and passes it on.

    Bytes, forward passes and simulated seconds come from the fold over the records; seconds and
    Ray's bytes go on from where an interrupted run left them. The table follows the ledger: it has
    a row for every record, whatever became of the table of an interrupted run.

    Attributes:
        course: the scores so far.
        score: of the newest round's evaluation; None where that was not made here.
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
        """The row of round 0, or of a round whose record was written and whose row was not."""
        last, done = self.course.row, self.history.round
        if last is None or last["round"] < done:
            self.add(self.history.ledger.since(done - 1)[0] if done else None)

    def _so_far(self, kept: Iterator[Row]) -> Iterator[Row]:
        """The rows of an interrupted run up to the newest that was kept; where one was lost, what
        the ledger says of its round. Counts the traffic of all records."""
        row = self._again(next(kept, None))
        if row is not None and row["round"] == 0:
            yield row
            row = self._again(next(kept, None))
        for record in self.history.ledger.scan():
            self.traffic.count(record)
            done = record.round + 1
            if row is not None and row["round"] == done:
                yield row
                row = self._again(next(kept, None))
            elif done < self.history.ledger.round:
                yield self._bare(done, record)

    def _again(self, row: Row | None) -> Row | None:
        """Goes on counting from a row."""
        if row is not None:
            self.seconds_before, self.bytes_before = row["seconds"], row["ray_bytes"]
        return row

    def _bare(self, done: int, record: Record | None) -> Row:
        """A row without an evaluation, with the clock and Ray's bytes where they were left."""
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
            "epsilon": self._accountant.epsilon(done) if self._accountant else None,
        }

    def add(self, record: Record | None) -> None:
        """Evaluates if it is time, and adds the row of the newest round.

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
            # Before the row, whose absence is what makes an interrupted run come back here.
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
            method = self.experiment.method
            raise NonFiniteLoss(
                f"non-finite evaluation loss after round {self.history.round}; lower method.lr "
                f"(now {method.lr:g})"
                + f" or method.server_lr (now {method.server_lr:g})"
                * self.experiment.sends_weights
            )
        return scores | result.statistics | self._of_server()

    def final_score(self) -> Score:
        """Of the last round, whose row may be of a process that ended before its run did."""
        return self.executor.evaluate(self.history).score if self.score is None else self.score

    def _of_server(self) -> Row:
        """What only the server of methods that send weights knows."""
        server = self.history.server
        return {} if server is None else {"update_norm": server.update_norm}

    def close(self) -> None:
        self.file.close()


def kept_rows(folder: Path, done: int, rounds: int) -> Iterator[Row]:
    """The rows of an interrupted run that stay: without those that the ledger does not reach, and
    without that of the last round if it was not the last then and has no evaluation.

    Args:
        done: rounds in the ledger.
        rounds: that the run is to have.
    """
    for row in scan_rows(folder / "metrics.csv"):
        due = row["round"] == done == rounds and row["eval_loss"] is None
        if row["round"] <= done and not due:
            yield row


def _accountant(experiment: Experiment) -> Accountant | None:
    federation, privacy = experiment.federation, experiment.privacy
    if privacy.noise == 0:
        return None
    sizes = (federation.num_clients, federation.clients_per_round)
    return Accountant(*sizes, privacy.noise, privacy.delta)
