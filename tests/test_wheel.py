"""What a release holds, and that the wheel made from its sources works in an empty folder, and
beside folders of its own names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]
SERIAL = ["--federation.rounds", "1", "--resources.executor", "serial"]
SDIST = "from setuptools import build_meta; build_meta.build_sdist('dist')"
BESIDE = {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "constraints.txt"}
MADE = {"pyproject.toml", "MANIFEST.in", "setup.cfg", "PKG-INFO"}
MEBIBYTES = 2  # most that a release takes, a model of 0.4 MiB among it


def ran(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is committed."""
    folder = tmp_path_factory.mktemp("checkout")
    subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
    return folder


@pytest.fixture(scope="module")
def sdist(checkout: Path) -> Path:
    """The source release."""
    ran("-c", SDIST, cwd=checkout)
    (made,) = (checkout / "dist").iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of the source release alone."""
    return built(sdist, tmp_path_factory.mktemp("wheel"))


def built(source: Path, out: Path) -> Path:
    """A wheel, by the setuptools that is here."""
    options = ("-q", "--no-deps", "--no-build-isolation", "-w", str(out))
    ran("-m", "pip", "wheel", *options, str(source), cwd=out)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """A folder that holds the wheel's files and nothing else."""
    folder = wheel.parent / "installed"
    with ZipFile(wheel) as content:
        content.extractall(folder)
    return folder


def test_a_source_release_holds_the_package_and_its_papers(sdist: Path) -> None:
    with tarfile.open(sdist) as content:
        names = {member.name.partition("/")[2] for member in content if member.isfile()}
        assert not [member.name for member in content if member.issym()]
    package = {name for name in names if name.startswith(("hiso_ray/", "hiso_ray.egg-info/"))}
    assert names - package == BESIDE | MADE
    assert {"hiso_ray/analysis/page.html", "hiso_ray/sweeps/__main__.py"} <= package
    assert sdist.stat().st_size < MEBIBYTES * 2**20


def test_a_wheel_takes_one_name(wheel: Path) -> None:
    with ZipFile(wheel) as content:
        names = set(content.namelist())
    tops = {name.partition("/")[0] for name in names}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"hiso_ray"}
    sources = subprocess.run(
        ["git", "ls-files", "hiso_ray", "analysis", "sweeps"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    inside = (name if name.startswith("hiso_ray/") else f"hiso_ray/{name}" for name in sources)
    links = {"hiso_ray/analysis", "hiso_ray/sweeps"}
    assert {name for name in inside if not name.endswith(".ipynb")} - links <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def contents(wheel: ZipFile) -> dict[str, int]:
    """CRC by name."""
    return {entry.filename: entry.CRC for entry in wheel.infolist()}


def test_the_files_of_the_image_make_the_same_wheel(
    checkout: Path, wheel: Path, tmp_path: Path
) -> None:
    lines = (checkout / ".dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}

    def others(folder: str, names: list[str]) -> set[str]:
        return set(names) - kept if Path(folder) == checkout else set()

    context = tmp_path / "context"
    shutil.copytree(checkout, context, symlinks=True, ignore=others)
    with ZipFile(wheel) as one, ZipFile(built(context, tmp_path)) as other:
        assert contents(one) == contents(other)


def test_a_wheel_works_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    where = {"PYTHONPATH": str(installed)}
    found = ran("-c", "import hiso_ray; print(hiso_ray.__file__)", cwd=tmp_path, **where)
    assert Path(found.strip()).is_relative_to(installed)
    few = ["--task.train_examples", "200", "--task.eval_examples", "50"]
    said = ran("-m", "hiso_ray", "run", *SERIAL, *few, "--out", "r", cwd=tmp_path, **where)
    assert "could not be drawn" not in said
    assert (tmp_path / "r" / "convergence.png").exists()
    said = ran("-m", "hiso_ray", "replay", "r", "--export", "model", cwd=tmp_path, **where)
    assert "the digest equals the one in summary.json" in said
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(
        os.listdir(tmp_path / "model")
    )
    one = ["lr_grid", "--smoke", *SERIAL, "--method.name", "hiso", "--method.lr", "0.02"]
    said = ran("-m", "hiso_ray.sweeps", *one, "--out", "s", cwd=tmp_path, **where)
    assert "1 trials: 1 finished" in said
    ran("-m", "hiso_ray", "report", "r", cwd=tmp_path, **where)
    assert (tmp_path / "report" / "report.html").exists()


def test_a_wheel_works_beside_folders_of_its_own_names(installed: Path, tmp_path: Path) -> None:
    for name in ("analysis", "sweeps"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the user has their own')")
    where = {"PYTHONPATH": str(installed)}
    digits = ["--task.name", "digits", *SERIAL]
    said = ran("-m", "hiso_ray", "run", *digits, "--out", "r", cwd=tmp_path, **where)
    assert "could not be drawn" not in said
    planned = ran("-m", "hiso_ray.sweeps", "lr_grid", "--dry-run", cwd=tmp_path, **where)
    assert "trials" in planned
    helped = ran("-m", "hiso_ray.sweeps", "--help", cwd=tmp_path, **where)
    assert helped.startswith("usage: python -m hiso_ray.sweeps SWEEP")
