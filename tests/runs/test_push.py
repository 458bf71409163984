"""Exports that are uploaded to a hub, which a server of the test stands in for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_stand_in import TOKEN, Hub
from huggingface_hub import constants

from hiso_ray import Experiment, replay, run

Make = Callable[..., Experiment]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """Empty, with a token for it; what huggingface_hub read when it was imported is as if it had
    been imported with this hub's address."""
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    yield hub
    hub.close()


@pytest.fixture
def finished(experiment: Make, tmp_path: Path) -> Path:
    run(experiment(tracking=[]), tmp_path / "r")
    return tmp_path / "r"


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_command_uploads_what_is_in_the_folder(hub: Hub, finished: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hiso_ray", "replay", "r",
         "--export", "model", "--push", "me/digits", "--private"],
        cwd=finished.parent,
        env=os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": ""}
        | {"TRANSFORMERS_OFFLINE": ""},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"pushed to {hub.url}/me/digits" in done.stdout
    assert hub.repositories == {"me/digits": content(finished.parent / "model")}
    assert hub.by_lfs == {"model.safetensors"}
    assert hub.private == {"me/digits"}
    card = (finished.parent / "model" / "README.md").read_text()
    assert set(hub.cards) == {card}
    assert 'name = snapshot_download("me/digits")' in card
    assert TOKEN not in done.stdout + done.stderr


def test_a_second_upload_takes_the_place_of_the_first(
    hub: Hub, language: Make, finished: Path, tmp_path: Path
) -> None:
    pushed = replay(finished, export=tmp_path / "a", push="me/it")["pushed"]
    assert pushed == f"{hub.url}/me/it"
    assert hub.private == set()
    # Beside the weights of another kind of export, libraries would load those.
    hub.repositories["me/it"] |= {"adapter_config.json": b"{}", "LICENSE": b"mine"}
    hub.repositories["me/it"]["adapter_model.safetensors"] = b"0"
    lora = {"task.lora.r": 2, "federation.rounds": 1, "tracking": []}
    run(language(**lora), tmp_path / "lora")
    replay(tmp_path / "lora", export=tmp_path / "b", push="me/it", merge=True)
    assert hub.repositories["me/it"] == content(tmp_path / "b") | {"LICENSE": b"mine"}
    assert b"fine-tuned from" in hub.repositories["me/it"]["README.md"]


def test_a_public_repository_is_not_taken_for_a_private_one(hub: Hub, finished: Path) -> None:
    hub.repositories["me/open"] = {}
    with pytest.raises(ValueError, match=r"already and public; make it private first"):
        replay(finished, export=finished / "model", push="me/open", private=True)
    hub.failing = ("/api/repos/create", 500)
    with pytest.raises(ValueError, match=r"hf upload me/it \S+/again --private$"):
        replay(finished, export=finished / "again", push="me/it", private=True)
    assert hub.repositories == {"me/open": {}}


@pytest.mark.parametrize(
    ("failing", "words"),
    [
        (("/api/repos/create", 401), "it does not accept the token (status 401)"),
        (("/api/repos/create", 403), "the token may not write there (status 403)"),
        (("/api/models/me/it/commit", 403), "the token may not write there (status 403)"),
        (("/api/models/me/it/commit", 500), "500 Internal Server Error"),
        (("/lfs/", 400), "400 Bad Request"),
    ],
)
def test_a_hub_that_fails_leaves_the_export(
    hub: Hub, finished: Path, failing: tuple[str, int], words: str
) -> None:
    hub.failing = failing
    folder = finished.parent / "my model"
    with pytest.raises(ValueError, match="did not take me/it") as failed:
        replay(finished, export=folder, push="me/it")
    assert words in str(failed.value)
    assert f"complete, in {folder}" in str(failed.value)
    assert f"hf upload me/it '{folder}'" in str(failed.value)
    assert TOKEN not in str(failed.value)
    assert "secret" not in str(failed.value)  # of an address that is signed
    assert (folder / "model.safetensors").exists()
    assert not any(hub.repositories.values())


def test_a_hub_that_cannot_be_reached(
    hub: Hub, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.close()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url.replace("//", "//me:hush@"))
    with pytest.raises(ValueError, match=rf"{hub.url} did not take me/it: .*refused") as failed:
        replay(finished, export=finished / "model", push="me/it")
    assert "hush" not in str(failed.value)


def test_what_cannot_be_uploaded_is_refused_before_the_replay(
    hub: Hub, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hiso_ray.runs.rebuild.settle", lambda *_, **__: pytest.fail("it began"))
    folder = finished / "model"
    with pytest.raises(ValueError, match="nothing to push without an export"):
        replay(finished, push="me/it")
    with pytest.raises(ValueError, match="private: it is of the repository of a push"):
        replay(finished, export=folder, private=True)
    for name in ("me/it/again", "me/i t", "-/it", "me/it.git"):
        with pytest.raises(ValueError, match=f"push = {name}: .*Repo.id"):
            replay(finished, export=folder, push=name)
    with pytest.raises(ValueError, match=r"name its owner as well.*OWNER/it"):
        replay(finished, export=folder, push="it")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"HF_HUB_OFFLINE.* is set"):
        replay(finished, export=folder, push="me/it")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ValueError, match="Set HF_TOKEN in the environment"):
        replay(finished, export=folder, push="me/it")
    assert hub.requests == []
    assert not folder.exists()


def test_an_adapter_of_a_folder_of_this_machine_is_not_uploaded(
    hub: Hub, language: Make, tmp_path: Path
) -> None:
    run(language(**{"task.lora.r": 2, "federation.rounds": 1, "tracking": []}), tmp_path / "r")
    with pytest.raises(ValueError, match=r"which nobody else has; merge it \(--merge\)"):
        replay(tmp_path / "r", export=tmp_path / "model", push="me/it")
    assert hub.requests == []


def test_a_model_with_another_digest_is_not_uploaded(hub: Hub, finished: Path) -> None:
    path = finished / "summary.json"
    digest = replay(finished)["model_sha256"]
    path.write_text(path.read_text().replace(digest, "0" * 64))
    found = replay(finished, export=finished / "model", push="me/it")
    assert (found["matches"], found["pushed"]) == (False, None)
    assert hub.requests == []
