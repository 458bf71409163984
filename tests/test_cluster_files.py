"""The files of docs/cluster fit Ray's schema, the pinned versions and the command line."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from hiso_ray import config
from hiso_ray.cli.parser import parser
from hiso_ray.config import Experiment

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((DOCS / "cluster" / name).read_text(encoding="utf-8"))


def ray_version() -> str:
    found = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found
    return found[1]


def accepted(command: str) -> str | None:
    """The command's --out, after the command line and the experiment have taken the rest."""
    words = shlex.split(command, comments=True)
    given = parser().parse_args(words[words.index("run") :])
    values: dict[str, Any] = {}
    for name, value in vars(given).items():
        if name.startswith("field:"):
            config.put(values, name.removeprefix("field:"), value)
    Experiment.model_validate(values)
    return given.out


def test_cluster_launcher_file_fits_rays_schema() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    given = read("autoscaling.yaml")
    validate_config(prepare_config(given))
    assert given["docker"]["image"].startswith(f"rayproject/ray:{ray_version()}-")
    assert {".git", ".venv", "runs"} <= set(given["rsync_exclude"])
    types = given["available_node_types"]
    assert types["gpu_worker"]["min_workers"] > 0  # a run takes what is there when it starts
    assert types["gpu_worker"]["max_workers"] <= given["max_workers"]


def test_a_misspelt_cluster_launcher_file_would_fail() -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(ValidationError, match="setup_comands"):
        validate_config(prepare_config(read("autoscaling.yaml") | {"setup_comands": []}))


def test_rayjob_runs_a_command_that_the_command_line_takes() -> None:
    job = read("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"]["shutdownAfterJobFinishes"]
    assert job["spec"]["entrypoint"].startswith("python -m hiso_ray run ")
    out = accepted(job["spec"]["entrypoint"])
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == ray_version()
    claim = read("runs-pvc.yaml")["metadata"]["name"]
    workers = cluster["workerGroupSpecs"]
    for group in (cluster["headGroupSpec"], *workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"].endswith(f":{ray_version()}")
        (volume,) = pod["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim
        (mount,) = container["volumeMounts"]
        assert mount["name"] == volume["name"]
        assert out is not None
        assert out.startswith(mount["mountPath"] + "/")
    (gpus,) = workers
    assert gpus["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert gpus["replicas"] == gpus["minReplicas"] == gpus["maxReplicas"]


def page() -> str:
    return (DOCS / "cluster.md").read_text(encoding="utf-8").replace("\\\n", " ")


def test_commands_of_the_page_are_taken() -> None:
    commands = re.findall(r"^\$ .*(?:hiso_ray|hiso-ray) run .*$", page(), re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        accepted(command)


def test_the_pages_calls_of_doctor_and_slurm_are_taken() -> None:
    (doctor,) = re.findall(r"^\$ hiso-ray (doctor .*)$", page(), re.MULTILINE)
    assert parser().parse_args(shlex.split(doctor)).nodes == 2
    (slurm,) = re.findall(r"^\$ sbatch .*slurm.sh (.*)$", page(), re.MULTILINE)
    assert accepted(f"run --out {slurm}") == "/shared/runs/sst2"


def image() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile and what follows each."""
    lines = (DOCS / "cluster" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    told = [line for line in lines.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in told)]


def test_the_image_is_made_of_what_is_here() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert "*" in ignored
    assert all((ROOT / name).exists() for name in kept)
    copied = {rest.split()[0] for word, rest in image() if word == "COPY" and "--from" not in rest}
    assert copied - kept == {"."}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"], "constraints.txt"} <= kept
    included = re.findall(r"^include (.*)$", (ROOT / "MANIFEST.in").read_text(), re.MULTILINE)
    assert {name for line in included for name in line.split()} <= kept


def test_the_image_is_the_one_that_rayjob_runs() -> None:
    said = dict(image())  # of the last stage, where an instruction stands in both
    pinned = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][0]
    assert said["FROM"] == f"{pinned.replace('=', ':')}-slim"
    assert said["USER"].split(":")[0] not in ("0", "root")
    (command,) = json.loads(said["ENTRYPOINT"])
    assert command in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    head = read("rayjob.yaml")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert int(said["USER"].split(":")[1]) == head["securityContext"]["fsGroup"]
    (container,) = head["containers"]
    text = (DOCS / "cluster" / "Dockerfile").read_text(encoding="utf-8")
    assert f"--tag {container['image']} ." in text
