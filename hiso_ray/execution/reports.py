"""The rows of ``metrics.csv``: one a round, with the evaluation every ``eval.every`` rounds; and
those of ``diagnostics.csv``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hiso_ray.config import Experiment
from hiso_ray.execution.history import History
from hiso_ray.messages import NonFiniteLoss, Score
from hiso_ray.metrics import Course, DiagnosticsFile, MetricsFile, Row, scan_rows
from hiso_ray.outcomes import means
from hiso_ray.privacy import Accountant
from hiso_ray.record import Record
from hiso_ray.traffic import Traffic

if TYPE_CHECKING:
    from hiso_ray.execution.contract import Executor


class Reports:
    """Makes a row of each round, writes it and passes it on.

    Bytes, forward passes and simulated seconds come from the fold over the records; seconds and
    Ray's bytes go on from where an interrupted run left them.

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
        found = (r for r in scan_rows(folder / "metrics.csv") if not self._due_again(r))
        self.file = MetricsFile(folder, map(self.course.add, found))
        self._accountant = _accountant(experiment)
        every = experiment.diagnostics.every
        self._diagnostics = DiagnosticsFile(folder, history.ledger.round) if every else None
        before = self.course.row or {"seconds": 0.0, "ray_bytes": 0}
        self.seconds_before, self.bytes_before = before["seconds"], before["ray_bytes"]
        self.started = time.perf_counter()

    def catch_up(self) -> None:
        """The row of round 0, or of a round whose record was written and whose row was not."""
        last, done = self.course.row, self.history.round
        if last is None or last["round"] < done:
            self.add(self.history.ledger.since(done - 1)[0] if done else None)

    def _due_again(self, row: Row) -> bool:
        """A row that the ledger does not reach, or a last round that was not the last then."""
        done = self.history.ledger.round
        last = row["round"] == done == self.experiment.federation.rounds
        return row["round"] > done or (last and row["eval_loss"] is None)

    def add(self, record: Record | None) -> None:
        """Evaluates if it is time, and adds the row of the newest round.

        Args:
            record: of that round; None for round 0.

        Raises:
            NonFiniteLoss: the evaluation loss is not finite.
        """
        done, experiment = self.history.round, self.experiment
        self.score = None
        row: Row = {
            "round": done,
            "train_loss": record.train_loss if record else None,
            "eval_loss": None,
        }
        if done % experiment.eval.every == 0 or done == experiment.federation.rounds:
            row |= self._evaluation()
        row |= {
            "uplink_bytes": self.traffic.up,
            "downlink_bytes": self.traffic.down,
            "seconds": round(self.seconds_before + time.perf_counter() - self.started, 6),
            "ray_bytes": self.bytes_before + self.executor.message_bytes,
            "forward_passes": self.traffic.forwards,
            "answered": len(record.cohort) if record else 0,
            "dropped": len(record.dropped) if record else 0,
            "late": len(record.late) if record else 0,
            "simulated_seconds": self.traffic.simulated_seconds,
            "epsilon": self._accountant.epsilon(done) if self._accountant else None,
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


def _accountant(experiment: Experiment) -> Accountant | None:
    federation, privacy = experiment.federation, experiment.privacy
    if privacy.noise == 0:
        return None
    sizes = (federation.num_clients, federation.clients_per_round)
    return Accountant(*sizes, privacy.noise, privacy.delta)
