"""Every model family, as a tiny random model of its real configuration class."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hiso_ray import Experiment, replay, run, tasks
from hiso_ray.tasks.contract import views

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "vocab_size": 400, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
    "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": None,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "opt": SMALL | {"ffn_dim": 32, "word_embed_proj_dim": 8, "pad_token_id": 0, "dropout": 0.5},
    "llama": SMALL | {"tie_word_embeddings": True, "attention_dropout": 0.5},
    "qwen2": SMALL | {"tie_word_embeddings": True},
    "qwen3": SMALL | {"head_dim": 8, "tie_word_embeddings": True},
    "gemma3_text": SMALL | {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8},
    "smollm3": SMALL | {"tie_word_embeddings": True},
    "phi": SMALL | {"num_key_value_heads": 2, "resid_pdrop": 0.5, "embd_pdrop": 0.5},
    "phi3": SMALL,
}
SUBSETS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"task.lora.r": 2},
    "patterns": {"task.trainable": "*layers.1.*,*norm*"},
    "mask": {"task.sparse_fraction": 0.1},
    "random mask": {"task.sparse_fraction": 0.1, "task.sparse_by": "random"},
}

Make = Callable[..., Experiment]


@pytest.fixture(scope="session")
def family(
    tiny_opt: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:  # fmt: skip
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        from transformers import AutoConfig, AutoModelForCausalLM

        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            for file in tiny_opt.glob("tokenizer*"):
                (folder / file.name).write_bytes(file.read_bytes())
            with torch.random.fork_rng():
                torch.manual_seed(0)
                config = AutoConfig.for_model(name, **FAMILIES[name])
                AutoModelForCausalLM.from_config(config).save_pretrained(folder)
            made[name] = folder
        return made[name]

    return make


@pytest.fixture
def of(language: Make, family: Callable[[str], Path]) -> Make:
    def make(name: str, subset: str = "full", **dotted: Any) -> Experiment:
        base = {"task.model": str(family(name)), "task.max_length": 40}
        return language(**(base | SUBSETS[subset] | dotted))

    return make


def built(experiment: Experiment) -> tuple[Any, Any, torch.Tensor]:
    experiment = tasks.resolve(experiment)
    prepared = tasks.prepare(experiment)
    return tasks.build(experiment, prepared, CPU), prepared, torch.tensor(prepared.x0)


def plain(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return (
        AutoModelForCausalLM.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_losses_are_those_of_plain_transformers_one_prompt_at_a_time(
    of: Make, family: Callable[[str], Path], text_data: Path, name: str
) -> None:
    # Left padding, position counting, attention masks, tied and scaled embeddings: all in here.
    task, prepared, x = built(of(name))
    model, tokenizer = plain(family(name))
    losses = task.losses(x, [task.batch(np.arange(10))])
    wanted = []
    for line in (text_data / "train.tsv").read_text().splitlines()[:10]:
        text, label = line.split("\t")
        with torch.inference_mode():
            ids = tokenizer(f"{text} It was", return_tensors="pt")["input_ids"]
            logits = model(input_ids=ids).logits[0, -1, prepared.spec["answers"]]
        wanted.append(float(torch.nn.functional.cross_entropy(logits, torch.tensor(int(label)))))
    assert losses[0] == pytest.approx(np.mean(wanted), rel=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_is_trained_once_tied_ones_too(
    of: Make, family: Callable[[str], Path], name: str
) -> None:
    task, prepared, _ = built(of(name))
    model, _ = plain(family(name))
    assert prepared.x0.size == sum(p.numel() for p in model.parameters())
    assert prepared.frozen == 0
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head.weight.data_ptr() == embedding.weight.data_ptr()
    mine = task.module.get_output_embeddings().weight.data_ptr()
    assert (mine == task.module.get_input_embeddings().weight.data_ptr()) == tied


def cases() -> list[Any]:
    """Llama with every subset, quickly; the other families as a whole and with LoRA, slowly."""
    llama = itertools.product(["llama"], SUBSETS, ("float32", "bfloat16"))
    others = itertools.product(set(FAMILIES) - {"llama"}, ("full", "lora"), ("float32", "bfloat16"))
    return [*llama, *(pytest.param(*case, marks=pytest.mark.slow) for case in sorted(others))]


@pytest.mark.parametrize(("name", "subset", "dtype"), cases())
def test_a_run_is_finite_replays_and_exports(
    of: Make, text_data: Path, tmp_path: Path, name: str, subset: str, dtype: str
) -> None:
    e = of(name, subset, **{"federation.rounds": 2, "task.dtype": dtype, "eval.every": 2})
    summary = run(e, tmp_path / "r")
    replayed = replay(tmp_path / "r", export=tmp_path / "model")
    assert replayed["matches"] is True
    assert np.isfinite(replayed["eval_loss"])
    if dtype == "float32":
        assert accuracy(tmp_path / "model", text_data) == summary["final_accuracy"]


def accuracy(folder: Path, data: Path) -> float:
    """Of an exported model, or of an adapter on its base model, with plain libraries."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    adapter = (folder / "adapter_config.json").exists()
    kind = AutoPeftModelForCausalLM if adapter else AutoModelForCausalLM
    model = kind.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    answers = [tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in (" bad", " good")]
    hits = []
    for line in (data / "dev.tsv").read_text().splitlines():
        text, label = line.split("\t")
        ids = tokenizer(f"{text} It was", return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            hits.append(int(model(input_ids=ids).logits[0, -1, answers].argmax()) == int(label))
    return float(np.mean(hits))


def test_frozen_weights_are_shared_where_they_lie_as_torch_lays_them() -> None:
    # Trap: matrix products change bits with alignment, and the object store's differs from torch's.
    from hiso_ray.tasks.language.causal import ALIGNMENT, _shared

    memory = np.zeros(64, np.float32)
    start = -memory.ctypes.data % ALIGNMENT // 4
    aligned, shifted = memory[start : start + 8], memory[start + 2 : start + 10]
    for array in (aligned, shifted):
        array.flags.writeable = False
    same, copy = (_shared(array, CPU) for array in (aligned, shifted))
    assert same.data_ptr() == aligned.ctypes.data
    assert copy.data_ptr() % ALIGNMENT == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "subset"),  # learned positions, grouped heads, windows, and parallel blocks
    [*((name, "full") for name in ("opt", "llama", "gemma3_text", "phi")), ("llama", "lora")],
)
def test_two_actors_give_the_serial_digest(
    of: Make, ray_cluster: Any, tmp_path: Path, name: str, subset: str
) -> None:
    digests = set()
    for executor in ("serial", "ray"):
        dotted = {"resources.executor": executor, "resources.max_actors": 2}
        e = of(name, subset, **dotted, **{"federation.rounds": 3})
        digests.add(run(e, tmp_path / executor)["model_sha256"])
    assert len(digests) == 1


# trainable subsets


def test_adapters_start_as_the_base_model_and_come_from_the_run_seed(of: Make) -> None:
    full, _, x = built(of("llama"))
    batch = np.arange(6)
    one, prepared, adapters = built(of("llama", "lora"))
    assert one.losses(adapters, [one.batch(batch)]) == pytest.approx(
        full.losses(x, [full.batch(batch)]), rel=1e-6
    )
    named = views(adapters, one.layout)
    assert all((named[n] == 0).all() == (".lora_B." in n) for n in named)
    assert "rank 2, alpha 16 on 4 layers (q_proj, v_proj)" in " ".join(prepared.notes)
    assert np.array_equal(prepared.x0, built(of("llama", "lora"))[1].x0)
    assert not np.array_equal(prepared.x0, built(of("llama", "lora", seed=1))[1].x0)


def test_a_mask_trains_its_weights_and_leaves_the_others(of: Make) -> None:
    full, whole, x = built(of("llama"))
    task, prepared, small = built(of("llama", "mask"))
    index = prepared.arrays["mask/index"]
    assert small.numel() == round(0.1 * x.numel()) == len(index)
    assert prepared.frozen + small.numel() == x.numel()
    kept = np.zeros(x.numel(), bool)
    kept[index] = True
    assert np.abs(whole.x0[kept]).min() >= np.abs(whole.x0[~kept]).max()
    moved = torch.tensor(whole.x0)
    moved[index] += 0.1
    batch = np.arange(6)
    for weights, dense in ((small, x), (small + 0.1, moved), (small, x)):
        assert task.losses(weights, [task.batch(batch)]) == full.losses(dense, [full.batch(batch)])


@pytest.mark.parametrize("subset", [name for name in SUBSETS if name != "lora"])
def test_an_exported_folder_holds_the_weights(of: Make, tmp_path: Path, subset: str) -> None:
    _, whole, _ = built(of("llama"))
    task, prepared, x = built(of("llama", subset))
    task.export(x + 0.01, tmp_path / "model")
    moved = prepared.x0 + np.float32(0.01)
    if "mask" in subset:
        dense = whole.x0.copy()
        dense[prepared.arrays["mask/index"]] = moved
        expected = views(torch.tensor(dense), task_layout(whole))
    else:
        expected = views(torch.tensor(whole.x0), task_layout(whole))
        expected |= views(torch.tensor(moved), task.layout)
    found = dict(plain(tmp_path / "model")[0].named_parameters())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def task_layout(prepared: Any) -> Any:
    return tuple((name, tuple(shape)) for name, shape in prepared.spec["layout"])


@pytest.mark.parametrize(
    ("targets", "adapted"),
    [
        ("q_proj,v_proj", 4),
        ("layers.0.self_attn.q_proj", 1),  # one layer of two, not all that end alike
        ("all-linear", 14),
    ],
)
def test_an_exported_adapter_holds_the_weights(
    of: Make, tmp_path: Path, targets: str, adapted: int
) -> None:
    from peft import AutoPeftModelForCausalLM

    lora = {"task.lora.r": 2, "task.lora.target_modules": targets}
    task, prepared, x = built(of("llama", **lora))
    assert len(task.layout) == 2 * adapted
    assert {n for n, _ in task.module.named_parameters() if ".lora_" in n} == {
        name for name, _ in task.layout
    }
    task.export(x + 0.01, tmp_path / "adapter")
    model = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    found = {n: p for n, p in model.named_parameters() if ".lora_" in n}
    expected = views(torch.tensor(prepared.x0 + np.float32(0.01)), task.layout)
    assert {n.removeprefix("base_model.model.") for n in found} == set(expected)
    assert all(torch.equal(found[f"base_model.model.{n}"], p) for n, p in expected.items())


@pytest.mark.parametrize("subset", ["full", "lora"])
def test_weights_that_were_saved_untied_stay_untied(
    of: Make, family: Callable[[str], Path], tmp_path: Path, subset: str
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(family("llama"), tmp_path / "untied"))
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = 0.5 * tensors["model.embed_tokens.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    task, prepared, x = built(of("llama", subset, **{"task.model": str(folder)}))
    model, _ = plain(folder)
    batch = task.batch(np.arange(8))
    with torch.inference_mode():
        singles = [model(input_ids=torch.tensor(row[None]).long()) for row in
                   task.rows("train_prompt", np.arange(8))]  # fmt: skip
        logits = torch.cat([s.logits[:, -1, prepared.spec["answers"]] for s in singles])
    wanted = float(torch.nn.functional.cross_entropy(logits, batch.labels))
    assert task.losses(x, [batch])[0] == pytest.approx(wanted, rel=1e-5)
    assert prepared.frozen + prepared.x0.size >= sum(p.numel() for p in model.parameters())


def test_patterns_train_what_they_name(of: Make) -> None:
    task, prepared, _ = built(of("llama", "patterns"))
    assert all("layers.1." in name or "norm" in name for name, _ in task.layout)
    assert any("layers.0.input_layernorm" in name for name, _ in task.layout)
    assert prepared.frozen > prepared.x0.size


@pytest.mark.parametrize(
    ("dotted", "words"),
    [
        ({"task.lora.r": 2, "task.lora.target_modules": "query"},
         r"target_modules = query: no linear layer 'query' .* it has .*k_proj, .*q_proj"),
        ({"task.lora.r": 2, "task.lora.target_modules": "q_proj,embed_tokens"},
         "no linear layer 'embed_tokens'"),
        ({"task.lora.target_modules": "q_proj"}, "need adapters, set lora.r as well"),
        ({"task.sparse_by": "random"}, "needs a mask, set sparse_fraction"),
        ({"task.trainable": "*.layers.0.*,encoder.*"}, r"no parameter fits 'encoder.\*'"),
        ({"task.lora.r": 2, "task.sparse_fraction": 0.5}, "adapters alone: leave out sparse_fract"),
    ],
)  # fmt: skip
def test_subsets_that_are_not_there(of: Make, dotted: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        built(of("llama", **dotted))
