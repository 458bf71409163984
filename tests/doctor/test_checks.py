"""Every check of ``doctor``, with faults planted in what two sound nodes say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hiso_ray import Experiment, tasks
from hiso_ray.config import ResourcesConfig
from hiso_ray.doctor import alike, folders
from hiso_ray.doctor.examine import judge
from hiso_ray.doctor.facts import Access, Facts, Gpu
from hiso_ray.doctor.finding import Examined, Finding, grouped
from hiso_ray.doctor.tiny_run import Bits, tiny_run
from hiso_ray.execution.placement import Node

Make = Callable[..., Experiment]
GIB = 2**30
SOFTWARE = {"python": "3.11.7", "ray": "2.60.0", "torch": "2.13.0+cpu", "hiso_ray": "0.2.0"}
H200 = Gpu("NVIDIA H200", 140 * GIB, 139 * GIB)
SOUND = Facts(SOFTWARE, (), 8 * GIB, Access(True, None), Bits("cpu AVX512", "2d4302785d0e"))
HALF = {"resources.gpus_per_client": 0.5}


def nodes(**planted: Any) -> list[Examined]:
    """The driver's node, which is sound, and another with values planted."""
    here = Examined("10.0.0.1", True, Node(4, 0, 16 * GIB), 4 * GIB, 0.0, SOUND)
    there = replace(here, address="10.0.0.2", here=False, ahead=0.004)
    of_node = {name: planted.pop(name) for name in tuple(planted) if hasattr(there, name)}
    return [here, replace(there, facts=replace(SOUND, **planted), **of_node)]


def judged(experiment: Experiment, examined: list[Examined]) -> dict[str, Finding]:
    resolved = tasks.resolve(experiment)
    found = judge(resolved, tasks.count(resolved), Path("/shared/runs"), examined)
    return {finding.check: finding for finding in found}


def test_sound_nodes_have_no_faults(experiment: Make) -> None:
    found = judged(experiment(), nodes())
    assert {finding.level for finding in found.values()} == {"ok"}
    assert found["clocks"].found == "within 0.004 s"
    assert found["actors"].found == "12 clients on 8 actors, 2 per actor, 1 CPU each"
    assert found["same bits"].found == "cpu AVX512: 2d4302785d0e on 10.0.0.1, 10.0.0.2"
    with_gpus = nodes(room=Node(4, 1, 16 * GIB), gpus=(H200,), bits=Bits("cuda NVIDIA H200", "0f"))
    found = judged(experiment(**HALF), with_gpus)
    assert {finding.level for finding in found.values()} == {"ok"}
    assert found["GPUs"].found == (
        "NVIDIA H200, 140.0 GiB: 69.4 GiB for torch in a share of 0.5 on 10.0.0.2 #0"
    )
    assert "and 0.5 GPU each" in found["actors"].found
    auto = judged(experiment(**{"resources.gpus_per_client": "auto"}), with_gpus)
    assert auto["same bits"].found == "cuda NVIDIA H200: 0f on 10.0.0.2"


@pytest.mark.parametrize(
    ("fields", "planted", "check", "level", "words"),
    [
        ({}, {"bits": Bits("cpu AVX2", "12ab")}, "same bits", "fail",
         ["cpu AVX2: 12ab on 10.0.0.2", "nodes of one kind"]),
        ({}, {"bits": Bits("cpu AVX512", "12ab")}, "same bits", "fail",
         ["12ab on 10.0.0.2", "their libraries differ"]),
        ({}, {"bits": "out of GPU memory"}, "same bits", "fail", ["out of GPU memory on 10.0.0.2"]),
        ({}, {"ahead": -7.25}, "clocks", "warn", ["-7.2 s on 10.0.0.2", "chrony"]),
        ({}, {"store": 1024.0}, "object store", "warn",
         ["0.00 GiB on 10.0.0.2", "--object-store-memory"]),
        ({}, {"shared_memory": GIB // 16}, "object store", "warn",
         ["4.0 GiB in a /dev/shm of 0.06 GiB on 10.0.0.2", "--shm-size"]),
        ({}, {"access": Access(False, "No such file or directory")}, "run folder", "warn",
         ["/shared/runs: not there on 10.0.0.2", "shared storage"]),
        ({}, {"access": Access(True, "Read-only file system")}, "run folder", "warn",
         ["Read-only file system on 10.0.0.2"]),
        ({}, {"here": True, "address": "10.0.0.0", "access": Access(True, "Disk quota exceeded")},
         "run folder", "fail", ["cannot be written: Disk quota exceeded", "another --out"]),
        (HALF, {"room": Node(4, 1, 16 * GIB)}, "GPUs", "fail",
         ["Ray counts 1, torch 2.13.0+cpu sees 0 on 10.0.0.2", "built for CUDA"]),
        ({}, {"room": Node(4, 1, 16 * GIB)}, "GPUs", "warn", ["Ray counts 1"]),
        (HALF, {"gpus": (H200,)}, "GPUs", "warn",
         ["torch sees 1, Ray counts 0 on 10.0.0.2", "--num-gpus"]),
        (HALF, {}, "actors", "fail",
         ["gpus_per_client = 0.5, but the largest node has 0 GPUs", "start Ray where GPUs are"]),
        (HALF, {"room": Node(4, 1, 16 * GIB), "gpus": (H200._replace(free=20 * GIB),)},
         "GPU memory", "warn", ["120.0 GiB in use already on 10.0.0.2 #0", "nvidia-smi"]),
    ],
)  # fmt: skip
def test_a_planted_fault_is_found_and_has_a_remedy(
    experiment: Make, fields: dict[str, Any], planted: dict[str, Any],
    check: str, level: str, words: list[str],
) -> None:  # fmt: skip
    examined = nodes(**planted)
    if planted.get("here"):
        examined.reverse()
    found = judged(experiment(**fields), examined)[check]
    assert found.level == level
    assert all(word in f"{found.found}\n{found.remedy}" for word in words), found


def test_no_shared_storage_is_no_fault_without_snapshots(experiment: Make) -> None:
    examined = nodes(access=Access(False, "No such file or directory"))
    found = judged(experiment(**{"resources.snapshot_every": 0}), examined)["run folder"]
    assert (found.level, found.found) == ("ok", "/shared/runs can be written")


def test_other_software_absent_nodes_and_a_full_cache_are_found() -> None:
    found = alike.versions(
        {"this process": SOFTWARE, "10.0.0.1": SOFTWARE,
         "10.0.0.2": SOFTWARE | {"torch": "2.12.0+cpu"}}
    )  # fmt: skip
    assert found.level == "fail"
    assert found.found == ("torch: 2.13.0+cpu on this process, 10.0.0.1; 2.12.0+cpu on 10.0.0.2")
    (silent,) = alike.answers({"10.0.0.2": "No module named 'hiso_ray'"})
    assert (silent.level, silent.found) == ("fail", "No module named 'hiso_ray' on 10.0.0.2")
    rooms = [Node(4, 0, GIB)] * 2
    assert alike.cluster(rooms, []).level == "ok"
    gone = alike.cluster(rooms, ["10.0.0.3"])
    assert gone.level == "warn"
    assert "10.0.0.3 left it" in gone.found
    assert alike.cluster(rooms, ["10.0.0.3"], expected=3).level == "fail"
    assert folders.cache(Path("/c"), None).level == "ok"
    assert folders.cache(Path("/c"), "No space left on device").level == "warn"


def test_many_nodes_are_counted_not_listed() -> None:
    values = {f"10.0.0.{n}": "sound" for n in range(9)} | {"10.0.0.9": "ill"}
    assert grouped(values) == "sound on 10.0.0.0, 10.0.0.1, 10.0.0.2 and 6 more; ill on 10.0.0.9"


def test_another_kind_of_processor_has_other_bits(experiment: Make) -> None:
    code = (
        "from hiso_ray.config import ResourcesConfig; from hiso_ray.doctor import tiny_run; "
        "print(*tiny_run.tiny_run(ResourcesConfig()), sep='|')"
    )
    # Without vector instructions, as if the other node's processor had none.
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"ATEN_CPU_CAPABILITY": "default"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    here, there = tiny_run(ResourcesConfig()), Bits(*done.stdout.strip().split("|"))
    assert here == tiny_run(ResourcesConfig())
    assert (there.device, there.digest) != (here.device, here.digest)
    examined = nodes(bits=there)
    examined[0] = replace(examined[0], facts=replace(SOUND, bits=here))
    found = judged(experiment(), examined)["same bits"]
    assert found.level == "fail"
    assert "nodes of one kind" in found.remedy
