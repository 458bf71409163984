"""Finds out whether an actor was killed for memory or died of another cause.

Ray's exception does not tell. For an actor that will be restarted it says "temporarily
unavailable", whatever ended the process; for any dead process it says that the kernel may have
killed it for memory. Two other sources do tell:

- for Ray's memory monitor, the row that Ray's control service keeps of each process of the cluster:
  it says how the process ended, and appears a few milliseconds after the error;
- for the kernel, a counter (``oom_kills``), read on the driver's node only. Kernel kills on other
  nodes are not seen.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import ray
from ray._raylet import (  # type: ignore[attr-defined]  # its stub is not complete
    GcsClientOptions,
    GlobalStateAccessor,
    WorkerID,
)
from ray.core.generated import common_pb2, gcs_pb2
from ray.exceptions import OutOfMemoryError

from hiso_ray.client.out_of_memory import Batch, less_on_machine
from hiso_ray.config import Experiment
from hiso_ray.execution.cluster.oom_kills import OomKills

ROW_SECONDS = 2.0  # for Ray to record a process's end; takes milliseconds if the node is alive
FOR_MEMORY = common_pb2.WorkerExitType.Value("NODE_OUT_OF_MEMORY")
UNEXPECTED = common_pb2.WorkerExitType.Value("SYSTEM_ERROR")
BATCH: dict[str, Batch] = {"turns": "batch_size", "scores": "eval_batch_size"}


class Process(NamedTuple):
    """One incarnation of an actor, by Ray's ids.

    Attributes:
        worker: id of the process, 56 hexadecimal digits.
        node: id of the node, in the same form.
    """

    worker: str
    node: str

    @staticmethod
    def here() -> Process:
        """The calling process."""
        context = ray.get_runtime_context()
        return Process(context.get_worker_id(), context.get_node_id())


@dataclass(frozen=True)
class Killed:
    """A process that was killed for memory; unknown attributes are None.

    Attributes:
        by_ray: killed by Ray's memory monitor; else by the kernel.
        node: id of its node.
        largest: memory of the largest Ray process on the node [GiB].
        used: memory in use on the node [GiB].
        total: the node's memory [GiB].
        limit: use above which Ray kills [GiB].
    """

    by_ray: bool
    node: str | None = None
    largest: float | None = None
    used: float | None = None
    total: float | None = None
    limit: float | None = None

    @staticmethod
    def told(text: str) -> Killed:
        """Parses the message of Ray's memory monitor; values that are not found stay None."""
        node = re.search(r"\bID: (\w+)\)", text)
        of_node = re.search(r"was ([\d.]+)GB used / ([\d.]+)GB limit", text)
        limit = re.search(r"threshold of (\d+)B", text)
        sizes = [float(size) for size in re.findall(r"actual memory used=([\d.]+)GB", text)]
        return Killed(
            by_ray=True,
            node=node and node[1],
            largest=max(sizes, default=None),
            used=float(of_node[1]) if of_node else None,
            total=float(of_node[2]) if of_node else None,
            limit=int(limit[1]) / 2**30 if limit else None,
        )


def words(experiment: Experiment, killed: Killed, actors: int, beside: int, stage: str) -> str:
    """What happened and what to change, in one line.

    Args:
        actors: number of actors of the run.
        beside: number of them on the node, itself included; 0 if unknown.
        stage: what the process was doing: a method of the worker, or another name.
    """
    who = f"{beside} actor{'s' if beside > 1 else ''}" if beside else "an actor"
    size = "" if killed.largest is None else f" of about {killed.largest:.1f} GiB"
    node = "a node" if killed.total is None else f"a node of {killed.total:.1f} GiB"
    used = "" if killed.used is None else f", {killed.used:.1f} GiB of it in use"
    by = "" if killed.limit is None else f" (Ray kills above {killed.limit:.1f} GiB)"
    if not killed.by_ray:
        node, by = "the driver's node", " (by the kernel, whose count of such kills has risen)"
    ways = ", or ".join(less_on_machine(experiment, actors, BATCH.get(stage)))
    return f"killed for memory: {who}{size} on {node}{used}{by}; {ways}"


class Deaths:
    """Finds out why processes have ended.

    Args:
        kills: the kernel's count on this node.
    """

    def __init__(self, kills: OomKills | None = None) -> None:
        self._kills = OomKills() if kills is None else kills
        self._node = ray.get_runtime_context().get_node_id()
        self._found: dict[str, Killed | None] = {}  # by process: a kill explains one death
        self._silent: set[str] = set()  # nodes that did not report a process's end

    @cached_property
    def _tables(self) -> GlobalStateAccessor:
        """The tables of Ray's control service. ``ray.util.state`` would need the dashboard, which
        a local cluster does not run."""
        options = GcsClientOptions.create(
            ray.get_runtime_context().gcs_address,
            None,
            allow_cluster_id_nil=True,
            fetch_cluster_id_if_nil=False,
        )
        tables = GlobalStateAccessor(options)
        tables.connect()
        return tables

    def mark(self) -> None:
        """Begins a new stretch of work; forgets kernel kills from before the previous one."""
        self._kills.mark()

    def of(self, process: Process) -> Killed | None:
        """How the process was killed for memory; None if it was not, or if that is unknown. Waits
        up to ``ROW_SECONDS`` for Ray to record its end, which a lost node never reports."""
        if process.worker in self._found:
            return self._found[process.worker]
        row, killed = self._ended(process), None
        if row is not None and row.exit_type == FOR_MEMORY:
            killed = Killed.told(row.exit_detail)
        elif row is None or row.exit_type == UNEXPECTED:
            killed = self._by_kernel(process.node)
        if row is not None:
            self._found[process.worker] = killed
        return killed

    def of_driver(self, error: Exception) -> Killed | None:
        """The same for an actor on this node that Ray does not restart, whose error tells."""
        if isinstance(error, OutOfMemoryError):
            return Killed.told(str(error))
        return self._by_kernel(self._node)

    def since(self, actor: Any, process: Process | None) -> list[Killed]:
        """Kills for memory of the actor's processes after ``process``, none of which had started.

        Args:
            actor: its handle.
            process: its last process that had started; None if none had.
        """
        found = self._tables.get_actor_info(actor._actor_id)
        info = gcs_pb2.ActorTableData.FromString(found or b"")
        incarnations = getattr(info, "previous_incarnations", ())  # older versions of Ray keep none
        before = [Process(p.worker_id.hex(), p.node_id.hex()) for p in incarnations]
        if process in before:
            before = before[before.index(process) + 1 :]
        return [killed for killed in map(self.of, before) if killed is not None]

    def unseen(self, process: Process) -> str:
        """Addition to the message of a death that is not known to be for memory."""
        if process.node == self._node:
            return ""
        return (
            " (whether the kernel killed it for memory is not seen from the driver's node: "
            f"`dmesg` on node {process.node[:8]} would tell)"
        )

    def _by_kernel(self, node: str) -> Killed | None:
        if node != self._node or not self._kills.took_one():
            return None
        return Killed(by_ray=False, node=node)

    def _ended(self, process: Process) -> Any | None:
        """Ray's row of a process that has ended; None if Ray has not recorded the end."""
        worker = WorkerID(bytes.fromhex(process.worker))
        patience = 0.0 if process.node in self._silent else ROW_SECONDS
        deadline = time.monotonic() + patience
        while True:
            found = self._tables.get_worker_info(worker)
            row = None if found is None else gcs_pb2.WorkerTableData.FromString(found)
            if row is None or not row.is_alive:
                return row
            if time.monotonic() >= deadline:
                self._silent.add(process.node)
                return None
            time.sleep(0.005)
