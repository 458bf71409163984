"""Ray and the for-loop agree bit for bit, whatever the packing and whatever dies."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiso_ray import Experiment, replay, run
from hiso_ray.errors import NonFiniteLoss
from hiso_ray.execution.cluster import session
from hiso_ray.execution.cluster.gauges import NAMES
from hiso_ray.execution.cluster.labels import label_of
from hiso_ray.run_folder.actor_times import read_actor_times
from hiso_ray.run_folder.ledger import Ledger
from hiso_ray.run_folder.metrics_reader import read_rows

Make = Callable[..., Experiment]
pytestmark = pytest.mark.usefixtures("ray_cluster")
RAY = {"resources.executor": "ray"}


@pytest.mark.parametrize(
    ("tau", "cohort", "together", "model"),
    [
        (2, 3, 1, "mlp-8"),
        (2, 8, 3, "mlp-8"),  # all weight vectors at once, the clients' own too
        (1, 8, 3, "mlp-2048"),  # one by one
        # on 1, 2 and 4 actors: alone, all together, groups that do not divide the cohort
        pytest.param(1, 3, 1, "mlp-8", marks=pytest.mark.slow),
        pytest.param(1, 3, 8, "mlp-8", marks=pytest.mark.slow),
        pytest.param(2, 10, 4, "mlp-2048", marks=pytest.mark.slow),
    ],
)
def test_digest_is_the_serial_one_for_1_2_and_4_actors(
    experiment: Make, tmp_path: Path, tau: int, cohort: int, together: int, model: str,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    base = {"federation.local_steps": tau, "federation.clients_per_round": cohort}
    base |= {"task.clients_per_forward": together, "task.model": model}
    slow = request.node.get_closest_marker("slow") is not None
    expected = run(experiment(**base), tmp_path / "serial")
    ledger = (tmp_path / "serial" / "ledger.jsonl").read_text()
    for actors in (1, 2, 4) if slow else (2,):
        folder = tmp_path / str(actors)
        summary = run(experiment(**base, **RAY, **{"resources.max_actors": actors}), folder)
        assert summary["actors"] == actors
        assert summary["model_sha256"] == expected["model_sha256"]
        assert (folder / "ledger.jsonl").read_text() == ledger
        assert summary["final_accuracy"] == expected["final_accuracy"]
        assert sum(time.turns for time in read_actor_times(folder)) == 6 * cohort
    assert replay(folder)["matches"] is True


@pytest.mark.slow
def test_unpacked_one_client_per_actor(experiment: Make, tmp_path: Path) -> None:
    base = {"federation.num_clients": 4}
    notes: list[str] = []
    packed = run(experiment(**base), tmp_path / "serial")
    summary = run(experiment(**base, **RAY), tmp_path / "ray", on_note=notes.append)
    assert "4 clients on 4 actors, one each, 1 CPU each" in notes
    assert summary["model_sha256"] == packed["model_sha256"]


def test_emulated_gpu_fractions_pack_and_say_that_torch_sees_no_gpu(
    experiment: Make, tmp_path: Path
) -> None:
    notes: list[str] = []
    gpu = {"resources.gpus_per_client": 1.0}
    expected = run(experiment(), tmp_path / "serial")
    summary = run(experiment(**RAY, **gpu), tmp_path / "ray", on_note=notes.append)
    assert summary["actors"] == 2
    assert any("torch sees none here" in note for note in notes)
    assert summary["model_sha256"] == expected["model_sha256"]


def test_language_model_on_two_actors(language: Make, tmp_path: Path) -> None:
    groups = {"federation.clients_per_round": 5, "task.clients_per_forward": 2}
    expected = run(language(**groups), tmp_path / "serial")
    rows: list[Any] = []
    two = {"resources.max_actors": 2}
    summary = run(language(**RAY, **groups, **two), tmp_path / "ray", rows.append)
    assert summary["model_sha256"] == expected["model_sha256"]
    assert [r["round"] for r in rows] == list(range(7))
    for row, serial in zip(rows, read_rows(tmp_path / "serial" / "metrics.csv"), strict=True):
        assert row["eval_loss"] == pytest.approx(serial["eval_loss"], abs=0)


def test_more_actors_than_there_is_work_for(experiment: Make, tmp_path: Path) -> None:
    # One unit of clients and two evaluation batches; some actors get neither.
    base = {"task.eval_batch_size": 200, "task.clients_per_forward": 3}
    expected = run(experiment(**base), tmp_path / "serial")
    notes: list[str] = []
    four = {"resources.max_actors": 4}
    summary = run(experiment(**base, **RAY, **four), tmp_path / "ray", on_note=notes.append)
    assert summary["actors"] == 4
    assert summary["model_sha256"] == expected["model_sha256"]
    assert summary["final_accuracy"] == expected["final_accuracy"]
    assert summary["faults"] == 0
    assert (
        sum("1 of 4 actors compute in a round: 3 clients, 3 to a forward" in n for n in notes) == 1
    )
    read = [read_rows(tmp_path / how / "metrics.csv") for how in ("serial", "ray")]
    assert len({str([row["eval_loss"] for row in rows]) for rows in read}) == 1


def test_what_passes_is_scalars_whatever_the_model(experiment: Make, tmp_path: Path) -> None:
    columns = []
    for width in (4, 256):
        e = experiment(**RAY, **{"task.model": f"mlp-{width}", "resources.max_actors": 2})
        run(e, tmp_path / str(width))
        names = ("uplink_bytes", "downlink_bytes", "ray_bytes")
        rows = read_rows(tmp_path / str(width) / "metrics.csv")
        columns.append([[row[name] for name in names] for row in rows])
        d = 64 * width + width + 10 * width + 10
    assert columns[0] == columns[1]
    assert columns[1][-1][2] / 6 < 4 * d / 10  # a round is far from one model


def test_non_finite_loss_reaches_the_caller_and_the_ledger_stays_readable(
    experiment: Make, tmp_path: Path
) -> None:
    e = experiment(**RAY, **{"method.lr": 1e30, "federation.rounds": 50})
    with pytest.raises(NonFiniteLoss, match=r"client \d+, round \d+, local step 0"):
        run(e, tmp_path / "r")
    assert Ledger.read(tmp_path / "r" / "ledger.jsonl").dropped_bytes == 0


@pytest.mark.parametrize(
    ("dotted", "words"),
    [
        ({"resources.gpus_per_client": 4}, "cluster has 2 GPUs"),
        ({"resources.cpus_per_client": 5}, "cluster has 4 CPUs"),
    ],
)
def test_more_than_the_cluster_has_is_refused_at_once(
    experiment: Make, tmp_path: Path, dotted: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        run(experiment(**RAY, **dotted), tmp_path / "r")


def test_a_busy_cluster_is_waited_for_and_then_said(experiment: Make, tmp_path: Path) -> None:
    other = session.ray.util.placement_group([{"CPU": 3}])
    session.ray.get(other.ready())
    try:
        with pytest.raises(ValueError, match=r"4 actors .* free now: 1 of 4 CPUs.*max_actors 1"):
            run(experiment(**RAY, **{"resources.reserve_seconds": 2.0}), tmp_path / "r")
    finally:
        session.ray.util.remove_placement_group(other)


def inside(bundles: list[dict[str, float]], experiment: Experiment, folder: Path) -> Any:
    """Runs a federation from a task in a placement group of its own, as a Tune trial would."""
    group = session.ray.util.placement_group(bundles)
    strategy = session.ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(
        placement_group=group,
        placement_group_bundle_index=0,
        placement_group_capture_child_tasks=True,
    )

    def trial() -> tuple[dict[str, Any], list[str]]:
        notes: list[str] = []
        return run(experiment, folder, on_note=notes.append), notes

    try:
        task = session.ray.remote(num_cpus=1, scheduling_strategy=strategy)(trial)
        return session.ray.get(task.remote())
    finally:
        session.ray.util.remove_placement_group(group)


@pytest.mark.parametrize(
    ("own", "bundles", "line"),
    [
        (  # one per bundle: the third has GPU for one only
            {"resources.gpus_per_client": "auto"},
            [{"CPU": 1.0}, {"CPU": 1.0, "GPU": 0.5}, {"CPU": 2.0, "GPU": 0.5}],
            "12 clients on 2 actors, 6 per actor, 1 CPU and 0.5 GPU each",
        ),
        (
            {"resources.cpus_per_client": 0.01},
            [{"CPU": 1.0}, {"CPU": 0.01}, {"CPU": 0.02}],
            "12 clients on 3 actors, 4 per actor, 0.01 CPU each",
        ),
    ],
)
def test_a_run_inside_a_placement_group_uses_its_bundles(
    experiment: Make, tmp_path: Path, own: dict[str, Any], bundles: list[dict[str, float]],
    line: str,
) -> None:  # fmt: skip
    expected = run(experiment(), tmp_path / "serial")
    summary, notes = inside(bundles, experiment(**RAY, **own), tmp_path / "inside")
    assert summary["model_sha256"] == expected["model_sha256"]
    assert any(note.startswith(line) for note in notes), notes


def test_a_placement_group_without_room_for_actors_is_said(
    experiment: Make, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"one more bundle per actor, .*PlacementGroupFactory"):
        inside([{"CPU": 1.0}], experiment(**RAY), tmp_path / "r")


def test_auto_gpu_share_where_torch_sees_none(experiment: Make, tmp_path: Path) -> None:
    notes: list[str] = []
    e = experiment(**RAY, **{"resources.gpus_per_client": "auto"})
    assert run(e, tmp_path / "ray", on_note=notes.append)["actors"] == 2
    assert any("torch sees no GPU where Ray has one; one GPU per actor" in n for n in notes)


def test_actors_have_names_and_numbers_are_on_rays_metrics_page(
    experiment: Make, tmp_path: Path
) -> None:
    ray, names, shown = session.ray, set(), set()

    def on_row(row: dict[str, Any]) -> None:
        names.update(ray.util.list_named_actors())
        page = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
        deadline = time.monotonic() + 60
        while row["round"] == 6 and shown != set(NAMES):  # exported every few seconds
            assert time.monotonic() < deadline, shown
            with urllib.request.urlopen(page) as answer:
                lines = answer.read().decode().splitlines()
            own = (line for line in lines if 'run="tiger"' in line)
            shown.update(line.removeprefix("ray_").split("{")[0] for line in own)
            time.sleep(0.5)
        if row["round"] == 6:
            raise KeyboardInterrupt

    e = experiment(**RAY, **{"resources.max_actors": 2, "federation.rounds": 4000})
    with pytest.raises(KeyboardInterrupt):
        run(e, tmp_path / "tiger", on_row)
    kinds = {name.rpartition("/")[2] for name in names if name.startswith("tiger-")}
    assert kinds == {"driver", "actor-000", "actor-001"}


def test_names_need_not_be_ascii(language: Make, tmp_path: Path) -> None:
    data, folder = tmp_path / "däten", tmp_path / "lauf-ü [1] 50%"
    data.mkdir()
    rows = [f"Text Nummer {i},{i % 2},{('groß', 'klein')[i % 3 > 0]}" for i in range(60)]
    for name, own in (("train", rows[:40]), ("dev", rows[40:])):
        text = "\n".join(["text,label,größe", *own, ""])
        (data / f"{name}.csv").write_text(text, encoding="utf-8")
    e = language(**RAY, **{"resources.max_actors": 2, "task.data": str(data),
                           "federation.by": "größe",
                           "federation.rounds": 2, "federation.num_clients": 4,
                           "federation.clients_per_round": 2})  # fmt: skip
    run(e, folder)
    assert replay(folder)["matches"] is True
    header = (folder / "partition.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "client,examples,groß,klein"
    assert label_of(folder) == "lauf-%C3%BC [1] 50%25"


LISTENING = """
import psutil, ray
from hiso_ray.execution.cluster.session import joined_cluster
with joined_cluster():
    ray.get(ray.remote(lambda: None).remote())
    here = psutil.Process()
    for process in [here, *here.children(recursive=True)]:
        for one in process.net_connections("inet"):
            if one.status == psutil.CONN_LISTEN:
                print(one.laddr.ip)
"""


def test_a_cluster_of_ones_own_listens_on_loopback_only() -> None:
    pytest.importorskip("psutil")
    done = subprocess.run(
        [sys.executable, "-c", LISTENING],
        env=os.environ | {"RAY_ADDRESS": ""},  # which is to point at no cluster
        capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    found = set(done.stdout.split())
    assert found
    assert found <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
