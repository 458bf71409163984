"""One run on a cluster, from joining it to leaving it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hiso_ray.errors import NodesLost, TurnFailed, UserError
from hiso_ray.execution.cluster.address import SECONDS, check_reachable, unreachable
from hiso_ray.execution.cluster.cause_of_death import Deaths, words
from hiso_ray.execution.cluster.driver_actor import DriverActor
from hiso_ray.execution.cluster.labels import label_of
from hiso_ray.execution.cluster.memory_kills import GOES_ON
from hiso_ray.execution.cluster.reservation import Reservation, reserved, with_gpu_share
from hiso_ray.execution.cluster.shared import Shared, SharedTask, publish
from hiso_ray.execution.contract import Job, OnNote, OnRow
from hiso_ray.execution.metrics_rows import kept_rows
from hiso_ray.run_folder import files
from hiso_ray.run_folder.faults import Faults
from hiso_ray.run_folder.ledger import Ledger
from hiso_ray.run_folder.metrics_reader import scan_rows
from hiso_ray.server.work_units import idle

if TYPE_CHECKING:
    from hiso_ray.federation.partition import Partition
    from hiso_ray.tasks.contract import Prepared

POLL_SECONDS = 0.2


def run_on_ray(
    job: Job,
    prepared: Prepared,
    partition: Partition,
    on_row: OnRow,
    on_note: OnNote,
    task: SharedTask | None = None,
) -> dict[str, Any]:
    """Runs or continues a federation on a Ray cluster; returns the summary.

    A driver actor that dies is restarted and continues from the ledger, as ``resume`` would.

    Args:
        task: ``prepared``, if it is in the object store already.

    Raises:
        UserError: the cluster cannot hold the actors asked for (says what is missing).
        NonFiniteLoss: from a client, with its round and step.
        TurnFailed: a client, or the driver itself, failed ``resources.tries`` times.
    """
    progress, faults = _Progress(on_row, _heard(job)), Faults(job.folder, on_note)
    with joined_cluster():
        shared = (task or publish(prepared), ray.put(partition))
        job = replace(job, experiment=with_gpu_share(job.experiment, shared, on_note))
        name, lost = label_of(job.folder), False
        while True:
            with reserved(job.experiment, prepared.size, on_note, name, lost) as reservation:
                if (few := idle(job.experiment, reservation.placement.actors)) is not None:
                    on_note(few)
                try:
                    return _drive_on(job, reservation, shared, progress, faults, on_note)
                except NodesLost:
                    lost = True
                    faults.add(
                        "lost", progress.round, "rounds",
                        "nodes have left: going on with what the cluster has",
                    )  # fmt: skip


def _drive_on(
    job: Job,
    reservation: Reservation,
    shared: Shared,
    progress: _Progress,
    faults: Faults,
    on_note: OnNote,
) -> dict[str, Any]:
    """Runs one driver actor after the other, until one finishes."""
    died, deaths = 0, Deaths()  # died: consecutive deaths without a new round
    while True:
        before = progress.round
        try:
            return _drive(job, reservation, shared, progress.row, on_note, deaths)
        except (RayActorError, OutOfMemoryError) as error:
            for row in scan_rows(job.folder / files.METRICS):
                progress.row(row)  # written but not reported before it died
            died = 1 if progress.round > before else died + 1
            actors, killed = reservation.placement.actors, deaths.of_driver(error)
            if killed is None:
                faults.add("driver", progress.round, "rounds", f"the driver died: {error}")
                first, last, cause = "", f", the last time like this:\n{error}", error
            else:
                why = words(job.experiment, killed, actors, 0, "rounds")
                faults.add("memory", progress.round, "rounds", f"the driver was {why}")
                first, last, cause = f"{why}\n", f"; {GOES_ON}", None
            if died == job.experiment.resources.tries:
                raise TurnFailed(
                    f"{first}the driver died {died} times after round {progress.round} "
                    f"(resources.tries){last}"
                ) from cause
            reservation = reservation.again()


def _heard(job: Job) -> int:
    """The round of the newest row of an interrupted run; -1 if there is none."""
    ledger = job.folder / files.LEDGER
    if not ledger.exists():
        return -1
    done = Ledger.read(ledger).round
    newest = -1
    for row in kept_rows(job.folder, done, job.experiment.federation.rounds):
        newest = row["round"]
    return max(newest, done - 1)


class _Progress:
    """Passes each row on once: skips rows that a restarted driver repeats, or that were reported
    before this run."""

    def __init__(self, on_row: OnRow, heard: int) -> None:
        self._on_row, self._heard = on_row, heard

    @property
    def round(self) -> int:
        return max(self._heard, 0)

    def row(self, row: dict[str, Any]) -> None:
        if row["round"] > self._heard:
            self._heard = row["round"]
            self._on_row(row)


def _drive(
    job: Job,
    reservation: Reservation,
    shared: Shared,
    on_row: OnRow,
    on_note: OnNote,
    deaths: Deaths,
) -> dict[str, Any]:
    """Runs one driver actor from its start to its summary."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": here}
    name = f"{reservation.label}/driver"
    driver = ray.remote(**options)(DriverActor).options(name=name).remote()
    try:
        result = driver.run.remote(job, reservation, shared)
        finished: list[Any] = []
        while not finished:
            finished, _ = ray.wait([result], timeout=POLL_SECONDS)
            deaths.mark()
            rows, notes = ray.get(driver.news.remote())
            for note in notes:
                on_note(note)
            for row in rows:
                on_row(row)
        summary = ray.get(result)
    finally:
        ray.kill(driver)  # its client actors go with it
    if isinstance(summary, Exception):
        raise summary
    return summary


@contextmanager
def joined_cluster(seconds: float = SECONDS) -> Iterator[None]:
    """Joins the cluster that this process is in or ``RAY_ADDRESS`` names; else starts a local one
    and stops it at the end of the context.

    Args:
        seconds: after which an address counts as unreachable.

    Raises:
        UserError: nothing answers at ``RAY_ADDRESS``, that cluster has another Python or Ray, or no
            local cluster can be started.
    """
    if ray.is_initialized():
        yield
        return
    on_terminate = signal.getsignal(signal.SIGTERM)
    if address := os.environ.get("RAY_ADDRESS"):
        check_reachable(address, seconds)
        try:
            ray.init(logging_level="ERROR", log_to_driver=False)
        except ConnectionError as error:
            raise unreachable(address, str(error)) from error
        except RuntimeError as error:
            if "Version mismatch" not in str(error):
                raise
            raise UserError(
                f"RAY_ADDRESS = {address}: {error}. Install on all nodes what constraints.txt pins"
            ) from error
    else:
        _start_local()
    if threading.current_thread() is threading.main_thread():
        # Ray has installed its own handler, which ends the process with a stack trace.
        signal.signal(signal.SIGTERM, on_terminate)
    try:
        yield
    finally:
        ray.shutdown()


def _start_local() -> None:
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            logging_level="ERROR",
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
        )
    except OSError as error:
        if "AF_UNIX" not in str(error):
            raise
        name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
        raise UserError(
            f"{name} = {os.environ.get(name)} is too long for the names of Ray's sockets (107 "
            "bytes in all): set RAY_TMPDIR to a shorter folder, such as /tmp"
        ) from error
