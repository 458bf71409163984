"""Models that cannot be had say what to change; hub tokens stay in the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from hiso_ray import Experiment, run, tasks
from hiso_ray.errors import UserError
from hiso_ray.tasks.pretrained import pretrained


def refused(kind: type[Exception]) -> Callable[..., Any]:
    """What transformers raises when the hub refuses: an OSError caused by the hub's own."""

    def from_pretrained(*_: Any, **__: Any) -> Any:
        cause = kind.__new__(kind)  # without the response of a server
        raise OSError("You are trying to access a gated repo.") from cause

    return from_pretrained


@pytest.mark.parametrize("token", [None, "hf_secret"])
def test_a_gated_model(monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", refused(GatedRepoError))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ValueError, match=r"a gated model.* HF_TOKEN in the environment") as error:
        pretrained.load("meta-llama/Llama-3.2-1B")
    assert ("has no access" in str(error.value)) == bool(token)
    assert "hf_secret" not in str(error.value)


def test_a_model_that_the_hub_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = refused(RepositoryNotFoundError)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", kind)
    with pytest.raises(ValueError, match="the hub has no such model, or it is private"):
        pretrained.load("nobody/nothing")


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    code = "from hiso_ray.tasks.pretrained import pretrained; pretrained.load('facebook/opt-125m')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "the hub did not give it" in done.stderr
    assert "Without a hub, name a local folder with config.json, model.safetensors" in done.stderr


def test_a_hub_token_reaches_no_file(
    language: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    run(language(**{"federation.rounds": 1}), tmp_path / "r", on_note=print)
    for file in (tmp_path / "r").rglob("*"):
        assert file.is_dir() or b"hf_secret" not in file.read_bytes(), file


def test_a_model_larger_than_the_machine(tiny_opt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: 16)
    with pytest.raises(
        ValueError, match=r"opt\d+: reading it takes about 0 GiB of memory, this machine"
    ):
        pretrained.load(str(tiny_opt))


def test_a_model_without_a_padding_token_needs_none(
    language: Callable[..., Experiment], tiny_opt: Path, tmp_path: Path
) -> None:
    import json
    import shutil

    folder = shutil.copytree(tiny_opt, tmp_path / "opt")
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    assert settings.pop("pad_token") == "<pad>"
    file.write_text(json.dumps(settings))
    digests = {
        run(language(**{"task.model": str(model)}), tmp_path / name)["model_sha256"]
        for name, model in (("with", tiny_opt), ("without", folder))
    }
    assert len(digests) == 1


def test_weights_of_other_shapes_are_named(tiny_opt: Path, tmp_path: Path) -> None:
    import json
    import shutil

    folder = Path(shutil.copytree(tiny_opt, tmp_path / "opt"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 500}))
    with pytest.raises(ValueError, match=r"its weights lack or do not fit .*embed_tokens"):
        pretrained.load(str(folder))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(
    tiny_opt: Path, tmp_path: Path, value: float
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_opt, tmp_path / "opt"))
    weights = load_file(folder / "model.safetensors")
    name = "model.decoder.layers.1.fc1.weight"
    weights[name][0, 3] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    words = r"1 of its tensors hold weights that are infinite .*\(model\.decoder\.layers\.1\.fc1"
    with pytest.raises(UserError, match=words) as failure:
        pretrained.load(str(folder))
    assert "method.lr" not in str(failure.value)


def test_a_token_that_the_embedding_has_no_row_for_is_named(
    language: Callable[..., Experiment], tiny_opt: Path, tmp_path: Path
) -> None:
    import json
    import shutil

    folder = Path(shutil.copytree(tiny_opt, tmp_path / "opt"))
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["Ġfilm"] = 9999
    path.write_text(json.dumps(content))
    experiment = tasks.resolve(language(**{"task.model": str(folder)}))
    words = r"opt: its tokenizer makes token 9999 \('Ġfilm'\), its embedding has \d+ rows"
    with pytest.raises(UserError, match=words):
        tasks.prepare(experiment)
