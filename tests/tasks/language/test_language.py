"""Prompts, answers, files and batches of the language tasks; what is wrong is said in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from hiso_ray import Experiment, tasks
from hiso_ray.config import TaskConfig
from hiso_ray.run_folder.outcomes import joined
from hiso_ray.tasks.contract import Prepared, views
from hiso_ray.tasks.flat.module import reached_parameters
from hiso_ray.tasks.forward.forwards import Form, chosen
from hiso_ray.tasks.language import language as language_task
from hiso_ray.tasks.language.causal import LanguageTask
from hiso_ray.tasks.text import examples
from hiso_ray.tasks.text.benchmarks import BENCHMARKS
from hiso_ray.tasks.text.prompts import Examples

CPU = torch.device("cpu")


def read(name: str, data: str, seed: int) -> tuple[Examples, Examples, tuple[str, ...]]:
    return examples.read(BENCHMARKS[name], TaskConfig(name=name, data=data), seed)


def build(
    experiment: Experiment, form: Form | None = None
) -> tuple[LanguageTask, Prepared, torch.Tensor]:
    """``form``: where it is not to be the model's own, the leanest."""
    experiment = tasks.resolve(experiment)
    prepared = tasks.prepare(experiment)
    if form is not None:
        assert chosen(prepared.spec["forward"]).form in ("scored", "packed")
        prepared.spec["forward"] = chosen(prepared.spec["forward"])._replace(form=form)
    return tasks.build(experiment, prepared, CPU), prepared, torch.tensor(prepared.x0)


# prompts and labels against hand-written strings


def test_sst2_prompt(tmp_path: Path) -> None:
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text('it \'s "null" and NA\t1\na dud\t0\n')
    train, _, _ = read("sst2", str(tmp_path), 0)
    assert train.prompts == ['it \'s "null" and NA It was', "a dud It was"]
    assert train.labels.tolist() == [1, 0]


def test_ag_news_prompt_from_the_original_csv_and_from_hub_columns(tmp_path: Path) -> None:
    original = '"3","Oil, up","Prices ""rose""."\n"1","Talks","In Oslo."\n'
    (tmp_path / "train.csv").write_text(original)
    (tmp_path / "test.csv").write_text(original)
    train, _, _ = read("ag_news", str(tmp_path), 0)
    assert train.prompts[0] == 'Oil, up Prices "rose". This is about'
    assert train.labels.tolist() == [2, 0]
    hub = tmp_path / "hub"
    hub.mkdir()
    frame = pd.DataFrame({"text": ["Oil, up Prices rose."], "label": [2]})
    frame.to_parquet(hub / "train.parquet")
    frame.to_json(hub / "test.jsonl", orient="records", lines=True)
    train, evaluation, _ = read("ag_news", str(hub), 0)
    for rows in (train, evaluation):
        assert rows.prompts == ["Oil, up Prices rose. This is about"]
        assert rows.labels.tolist() == [2]


def test_a_header_is_recognised_and_columns_are_found_by_name(tmp_path: Path) -> None:
    for name in ("train", "validation"):
        (tmp_path / f"{name}.csv").write_text("label,sentence,idx\n1,fine,0\n0,poor,1\n")
    train, _, _ = read("sst2", str(tmp_path), 0)
    assert train.prompts == ["fine It was", "poor It was"]


def test_ag_news_with_the_header_of_its_csv_exports(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text("Class Index,Title,Description\n4,Chips,Small.\n")
    train, _, _ = read("ag_news", str(tmp_path), 0)
    assert (train.prompts, train.labels.tolist()) == (["Chips Small. This is about"], [3])


def test_splits_in_several_files(tmp_path: Path) -> None:
    for part in range(2):
        frame = pd.DataFrame({"sentence": [f"part {part}"], "label": [part]})
        frame.to_parquet(tmp_path / f"train-0000{part}-of-00002.parquet")
    frame.to_parquet(tmp_path / "validation-00000-of-00001.parquet")
    train, _, _ = read("sst2", str(tmp_path), 0)
    assert train.prompts == ["part 0 It was", "part 1 It was"]


def test_a_single_split_is_divided_stratified(tmp_path: Path) -> None:
    file = tmp_path / "all.tsv"
    file.write_text("".join(f"text {i}\t{int(i < 80)}\n" for i in range(100)))
    train, held, notes = read("sst2", str(file), 0)
    assert np.bincount(held.labels).tolist() == [4, 16]
    assert not set(train.prompts) & set(held.prompts)
    assert len(train.prompts) == 80
    assert "20 of its 100 rows are held out" in notes[0]
    assert read("sst2", str(file), 1)[1].prompts != held.prompts


# the model


@pytest.mark.parametrize(
    ("family", "form"),
    [
        *(("opt", form) for form in ("scored", "packed", "padded", "alone")),
        # GPT-2's decoder lays its output out as its input: for all tokens or none.
        *(("gpt2", form) for form in ("packed", "padded", "alone")),
    ],
)
def test_logits_are_those_of_single_prompts_whatever_the_form(
    language: Callable[..., Experiment], tiny_opt: Path, tmp_path: Path, family: str, form: Form
) -> None:
    if family == "gpt2":  # counts the padding as positions unless told not to
        from transformers import GPT2Config, GPT2LMHeadModel

        copy_of(tiny_opt, tmp_path)
        config = GPT2Config(vocab_size=400, n_embd=16, n_layer=2, n_head=2, n_positions=64)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            GPT2LMHeadModel(config).save_pretrained(tmp_path)
    folder = tiny_opt if family == "opt" else tmp_path
    task, _, x = build(language(**{"task.model": str(folder)}), form)
    together = np.arange(10)
    batch = task.batch(together)
    with torch.inference_mode():
        task.losses(x, [batch])
        rows = task.logits(batch.inputs)
        for i in together:
            single = task.batch(np.array([i]))
            if form != "alone":
                assert single.inputs["input_ids"].shape[1] <= batch.inputs["input_ids"].shape[1]
            assert torch.allclose(rows[i], task.logits(single.inputs)[0], atol=1e-5)


def test_batches_hold_no_more_than_their_longest_or_no_padding_at_all(
    language: Callable[..., Experiment],
) -> None:
    for form in ("packed", "padded"):
        task, prepared, _ = build(language(), form)
        lengths = np.diff(prepared.arrays["train_prompt_offsets"])
        few = np.argsort(lengths)[[0, 1, 40]]
        assert len(set(lengths[few])) > 1
        wanted = {"packed": (1, lengths[few].sum()), "padded": (3, lengths[few].max())}
        assert task.batch(few).inputs["input_ids"].shape == wanted[form]


def test_loss_and_score_are_those_of_plain_transformers(
    language: Callable[..., Experiment], tiny_opt: Path, text_data: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    task, prepared, x = build(language())
    model = AutoModelForCausalLM.from_pretrained(tiny_opt).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_opt)
    bad, good = (tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in (" bad", " good"))
    assert prepared.spec["answers"] == [bad, good]
    losses, correct = [], 0
    for line in (text_data / "dev.tsv").read_text().splitlines():
        text, label = line.split("\t")
        with torch.inference_mode():
            ids = tokenizer(f"{text} It was", return_tensors="pt")["input_ids"]
            logits = model(ids).logits[0, -1, [bad, good]]
        losses.append(float(nn.functional.cross_entropy(logits, torch.tensor(int(label)))))
        correct += int(logits.argmax()) == int(label)
    scores = [task.score(x, b) for b in range(task.eval_batches)]
    found = joined(scores)
    assert found.points["accuracy"].sum() == correct
    assert found.losses == pytest.approx(np.array(losses), rel=1e-5)
    assert found.terms.tolist() == [1] * 40


def test_tied_embeddings_stay_tied_and_are_counted_once(
    language: Callable[..., Experiment],
) -> None:
    task, prepared, x = build(language())
    task.losses(x, [task.batch(np.arange(2))])
    model = task.module
    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert not any("lm_head" in name for name, _ in task.layout)
    assert sum(np.prod(shape) for _, shape in task.layout) == len(x) == prepared.x0.size


@pytest.mark.parametrize("form", ["scored", "packed", "padded"])
def test_the_answer_position_and_the_answers_are_all_that_is_scored(
    language: Callable[..., Experiment], form: Form
) -> None:
    task, _, x = build(language(), form)
    made: list[tuple[int, int]] = []

    def watch(_: nn.Module, args: tuple[torch.Tensor], out: torch.Tensor) -> None:
        made.append((args[0].shape[:2].numel(), out.shape[-1]))

    task.module.lm_head.register_forward_hook(watch)
    task.losses(x, [task.batch(np.arange(5), np.arange(3))])
    assert made == [(8, 2)]


def test_two_evaluations_are_bit_equal_and_small_mu_gives_finite_g(
    language: Callable[..., Experiment],
) -> None:
    # Trap: dropout (0.5 in this model), train mode.
    task, _, x = build(language())
    batch = [task.batch(np.arange(6))]
    first = task.losses(x, batch)
    assert task.losses(x.clone(), batch) == first
    assert np.isfinite((task.losses(x + 1e-7, batch) - first) / 1e-7).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_loss_is_computed_in_float32(language: Callable[..., Experiment], dtype: str) -> None:
    # Trap: one quantum of a half precision loss is .49 (fp16) or 3.9 (bf16) of g at μ = 1e-3.
    task, _, x = build(language(**{"task.dtype": dtype}))
    exact, _, _ = build(language())
    batches = [np.arange(i, i + 6) for i in range(8)]
    half = task.losses(x.to(getattr(torch, dtype)), [task.batch(b) for b in batches])
    full = exact.losses(x, [exact.batch(b) for b in batches])
    assert half == pytest.approx(full, abs=2e-2)
    spacing = {"bfloat16": 2**-8, "float16": 2**-11}[dtype]
    assert any(loss / spacing != round(loss / spacing) for loss in half)


def test_parameters_the_loss_does_not_reach_are_found() -> None:
    # Trap: they random-walk under g·z.
    used, unused = nn.Linear(2, 1), nn.Linear(2, 1)
    reached = reached_parameters(used(torch.ones(1, 2)).sum())
    assert reached == {id(p) for p in used.parameters()}
    assert not reached & {id(p) for p in unused.parameters()}


class Mixture(nn.Module):
    """Two experts, of which a prompt takes the one that its first token names."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
        self.unused = nn.Linear(1, 1)
        self.calls = 0

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        self.calls += 1
        return SimpleNamespace(logits=self.experts[int(input_ids[0, 0])](torch.ones(1, 1)))


@pytest.mark.parametrize(("firsts", "experts"), [([0] * 99, 1), ([0, 0, 1] + [0] * 96, 2)])
def test_experts_that_a_later_prompt_takes_are_reached(firsts: list[int], experts: int) -> None:
    model = Mixture()
    found = language_task.reached(model, [np.array([first, 7]) for first in firsts])
    assert found == {id(p) for expert in model.experts[:experts] for p in expert.parameters()}
    assert model.calls == 64
    model.unused.requires_grad_(False)
    model.calls = 0
    language_task.reached(model, [np.array([0]), np.array([1]), np.array([0])])
    assert model.calls == 2  # all that is trained was reached


def test_long_prompts_lose_their_beginning_never_the_question(
    language: Callable[..., Experiment], tiny_opt: Path
) -> None:
    from transformers import AutoTokenizer

    _, prepared, _ = build(language(**{"task.max_length": 8}))
    tokenizer = AutoTokenizer.from_pretrained(tiny_opt)
    ids, offsets = (prepared.arrays[f"train_prompt_{part}"] for part in ("ids", "offsets"))
    rows = np.split(ids, offsets[1:-1])
    assert max(map(len, rows)) == 8
    assert all(tokenizer.decode(row).endswith(" It was") for row in rows)
    assert any("truncated on the left" in note for note in prepared.notes)


def test_export_is_a_hugging_face_folder(
    language: Callable[..., Experiment], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    task, _, x = build(language())
    moved = x + 0.01
    task.export(moved, tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tmp_path / "model")
    named = dict(model.named_parameters())
    for name, tensor in views(moved, task.layout).items():
        assert torch.equal(named[name], tensor)


# bad input


def bad_data(folder: Path, content: str, name: str = "train.tsv") -> Path:
    (folder / name).write_text(content)
    (folder / "dev.tsv").write_text("a\t1\n")
    return folder


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("review\tsentiment\nfine\t1\n", r"unknown label 'sentiment'.*if this row is a header"),
        ("a film\tmaybe\n", r"row 1: unknown label 'maybe' in column label; allowed: 0, 1"),
        ("sentence\tscore\nfine\t1\n", r"no column label; it has sentence, score"),
        ("label\tbody\n1\tfine\n", r"no column text or sentence; it has label, body"),
        ("fine\n", r"the first row has 1 columns and names none of label, sentence, text"),
        ("", r"is empty"),
        ("text\tlabel\n", r"has no rows below its header"),
    ],
)
def test_bad_rows(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read("sst2", str(bad_data(tmp_path, content)), 0)


def test_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file or folder"):
        read("sst2", str(tmp_path / "missing"), 0)
    with pytest.raises(ValueError, match=r"no \.tsv, \.csv"):
        read("sst2", str(tmp_path), 0)
    (tmp_path / "train.tsv").write_text("a\t1\n")
    (tmp_path / "test.tsv").write_text("a\t1\n")
    with pytest.raises(ValueError, match="too few rows"):
        read("sst2", str(tmp_path), 0)
    (tmp_path / "train.csv").write_text("a,1\n")
    with pytest.raises(ValueError, match=r"train is there more than once .train.csv, train.tsv"):
        read("sst2", str(tmp_path), 0)
    (tmp_path / "train.csv").unlink()
    (tmp_path / "train.tsv").rename(tmp_path / "first.tsv")
    with pytest.raises(ValueError, match=r"no file is named for a split .* found first, test"):
        read("sst2", str(tmp_path), 0)
    (tmp_path / "latin.tsv").write_bytes(b"caf\xe9\t1\n")
    with pytest.raises(ValueError, match=r"latin.tsv cannot be read as UTF-8"):
        read("sst2", str(tmp_path / "latin.tsv"), 0)
    pd.DataFrame({"text": ["a", None], "label": [0, 1]}).to_parquet(tmp_path / "null.parquet")
    with pytest.raises(ValueError, match=r"row 2: column text is empty"):
        read("sst2", str(tmp_path / "null.parquet"), 0)


def test_bad_models(language: Callable[..., Experiment], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        build(language(**{"task.model": str(tmp_path / "missing")}))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"not a causal language model .*config.json"):
        build(language(**{"task.model": str(tmp_path)}))


def copy_of(folder: Path, to: Path) -> Path:
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_a_model_that_is_not_causal(
    language: Callable[..., Experiment], tiny_opt: Path, tmp_path: Path
) -> None:
    from transformers import BertConfig, BertForMaskedLM

    copy_of(tiny_opt, tmp_path)
    config = BertConfig(
        vocab_size=400, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="its architecture is BertForMaskedLM"):
        build(language(**{"task.model": str(tmp_path)}))


def test_a_model_whose_weights_are_incomplete_or_torn(
    language: Callable[..., Experiment], tiny_opt: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    file = copy_of(tiny_opt, tmp_path) / "model.safetensors"
    tensors = load_file(file)
    lost = next(name for name in tensors if "fc1.weight" in name)
    del tensors[lost]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"its weights lack or do not fit .*fc1.weight"):
        build(language(**{"task.model": str(tmp_path)}))
    file.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="not a causal language model that can be loaded"):
        build(language(**{"task.model": str(tmp_path)}))


def test_prompts_longer_than_the_model_reads(
    language: Callable[..., Experiment], tmp_path: Path
) -> None:
    long = tmp_path / "long.tsv"
    long.write_text("".join(f"{'very ' * 80}good\t{i % 2}\n" for i in range(10)))
    with pytest.raises(ValueError, match="at most 64; lower max_length"):
        build(language(**{"task.data": str(long)}))


def test_answers_must_be_single_tokens(language: Callable[..., Experiment]) -> None:
    with pytest.raises(ValueError, match="no single, distinct token for each answer: ' world'"):
        build(language(**{"task.name": "ag_news", "task.data": str(_ag_news())}))


def _ag_news() -> Path:
    import tempfile

    folder = Path(tempfile.mkdtemp())
    for name in ("train", "test"):
        (folder / f"{name}.csv").write_text('"1","a","b"\n"2","c","d"\n"3","e","f"\n"4","g","h"\n')
    return folder


def test_no_pickle_and_no_remote_code(
    language: Callable[..., Experiment], tiny_opt: Path, tmp_path: Path
) -> None:
    for file in tiny_opt.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="not a causal language model"):
        build(language(**{"task.model": str(tmp_path)}))
    config = json.loads((tiny_opt / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "c.C", "AutoModelForCausalLM": "c.M"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "c.py").write_text("raise SystemExit('remote code ran')")
    with pytest.raises(ValueError, match="not a causal language model"):
        build(language(**{"task.model": str(tmp_path)}))


# the real files


def real(shared: Path, task: str, size: str = "1m") -> tuple[LanguageTask, Prepared, torch.Tensor]:
    model, data = shared / "models" / f"opt-imdb-{size}", shared / "data" / task
    fields = {"task.name": task, "task.model": str(model), "task.data": str(data)}
    return build(Experiment().changed(**fields))


# As plain transformers gives, one prompt at a time: 64.91 % and 56.77 %.
@pytest.mark.parametrize(("size", "correct"), [("1m", 566), ("4m", 495)])
def test_real_sst2_zero_shot(shared: Path, size: str, correct: int) -> None:
    task, prepared, x = real(shared, "sst2", size)
    assert len(prepared.labels) == 6920
    scores = [task.score(x, b) for b in range(task.eval_batches)]
    assert sum(len(s.terms) for s in scores) == 872
    assert sum(s.points["accuracy"].sum() for s in scores) == correct


def test_real_ag_news_has_four_classes(shared: Path) -> None:
    task, prepared, x = real(shared, "ag_news")
    assert len(prepared.labels) == 6080
    assert len(set(prepared.spec["answers"])) == 4
    score = task.score(x, 0)
    assert np.isfinite(score.losses).all()
    assert len(score.terms) == 64
