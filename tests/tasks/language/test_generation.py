"""Generation: the loss of plain transformers on the answer's tokens, and its greedy answers."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from hiso_ray import Experiment, replay, run, tasks
from hiso_ray.run_folder.outcomes import example_losses, joined, means
from hiso_ray.tasks.forward.forwards import Form, chosen
from hiso_ray.tasks.language.generation import GenerationTask

CPU = torch.device("cpu")
FAMILIES = ["opt", "gpt2", "llama"]  # with padding token; counts padding as positions; without
Row = dict[str, Any]
Make = Callable[..., Experiment]

# (title, context, question, what the trained model answers, what evaluation accepts)
QUESTIONS = [
    ("Boats", "The red boat left at noon.", "What left?", "the red boat", ["red boat", "boat"]),
    ("Boats", "The red boat left.", "When did it leave?", "at noon", ["noon"]),
    ("A walk", "Ann saw boats, and went home to eat.", "What did she see?", "two small boats",
     ["three boats", "boats"]),
    ("A walk", "Ann saw a boat.", "Who?", "Ann", ["Bob"]),
    ("Home", "Home is where Ann is.", "Who is at home?", "Ann", ["Tom", "ann!"]),
]  # fmt: skip
# By hand: 1, 0, 0, 0, 1 of 5; and 1, 2·½·1/1½ = ⅔, 2·⅓·1/1⅓ = ½, 0, 1 of 5.
EXACT, F1 = 2 / 5, (1 + 2 / 3 + 1 / 2 + 0 + 1) / 5
pytestmark = pytest.mark.usefixtures("one_thread")


def prompt(number: int) -> str:
    title, context, question, _, _ = QUESTIONS[number]
    return (
        f"Title: {title}\nContext: {context}\nQuestion: {question}\n"
        "Answer concisely in a few words:"
    )


def answer(number: int) -> str:
    return f" {QUESTIONS[number][3]}\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HISO_RAY_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def squad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("squad")
    for split in ("train", "validation"):
        lines = []
        for title, context, question, reply, references in QUESTIONS:
            texts = [reply] if split == "train" else references
            row = {"title": title, "context": context, "question": question}
            lines.append(row | {"answers": {"text": texts, "answer_start": [0] * len(texts)}})
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines))
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with a tiny random model; "trained" is a llama that knows the answers by heart."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            _save(name, made[name])
        return made[name]

    return make


def _save(name: str, folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    text = [prompt(i) + answer(i) for i in range(len(QUESTIONS))]
    bpe.train_from_iterator(text * 2, trainer)
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    pad = {"pad_token": "<pad>"} if name == "opt" else {}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", **pad
    )
    tokenizer.save_pretrained(folder)
    shape: Row = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 128, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0 if name == "opt" else None,
        "tie_word_embeddings": True,
    }  # fmt: skip
    own: dict[str, Row] = {
        "opt": {"ffn_dim": 32, "word_embed_proj_dim": 32, "dropout": 0.5},
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128},
    }
    family = "llama" if name == "trained" else name
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            family, **(shape | own.get(family, {"intermediate_size": 64, "num_key_value_heads": 1}))
        )
        module = AutoModelForCausalLM.from_config(config)
        if name == "trained":
            _learn(module, tokenizer)
        module.save_pretrained(folder)


def _learn(module: Any, tokenizer: Any) -> None:
    """The answers by heart, with plain transformers: one example at a time, no padding."""
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    for _ in range(60):
        for number in range(len(QUESTIONS)):
            optimizer.zero_grad()
            answer_loss(module, tokenizer, number)[0].backward()
            optimizer.step()
    with torch.inference_mode():
        assert max(answer_loss(module, tokenizer, i)[0] for i in range(len(QUESTIONS))) < 0.1


def answer_loss(module: Any, tokenizer: Any, number: int) -> tuple[torch.Tensor, int]:
    """(mean cross-entropy of the answer's tokens, how many they are)"""
    first = tokenizer(prompt(number))["input_ids"]
    last = tokenizer(answer(number), add_special_tokens=False)["input_ids"]
    labels = torch.tensor([[-100] * len(first) + last])
    return module(input_ids=torch.tensor([first + last]), labels=labels).loss, len(last)


def plain(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return module.eval(), AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def of(experiment: Make, model: Callable[[str], Path], squad: Path) -> Make:
    def make(name: str, **dotted: Any) -> Experiment:
        base = {
            "task.name": "squad", "task.model": str(model(name)), "task.data": str(squad),
            "task.max_length": 128, "task.max_new_tokens": 12, "task.batch_size": 2,
            "task.eval_batch_size": 3, "federation.num_clients": 3,
            "federation.clients_per_round": 2, "federation.rounds": 1, "eval.every": 1,
            "method.lr": 1e-7,
        }  # fmt: skip
        return experiment(**(base | dotted))

    return make


def built(
    experiment: Experiment, form: Form | None = None
) -> tuple[GenerationTask, Any, torch.Tensor]:
    """``form``: where it is not to be the model's own."""
    experiment = tasks.resolve(experiment)
    prepared = tasks.prepare(experiment)
    if form is not None:
        prepared.spec["forward"] = chosen(prepared.spec["forward"])._replace(form=form)
    task: Any = tasks.build(experiment, prepared, CPU)
    return task, prepared, torch.tensor(prepared.x0)


# the loss


@pytest.mark.parametrize("name", FAMILIES)
def test_the_loss_is_that_of_plain_transformers_one_example_at_a_time(
    of: Make, model: Callable[[str], Path], name: str
) -> None:
    task, _, x = built(of(name))
    module, tokenizer = plain(model(name))
    with torch.inference_mode():
        single = [answer_loss(module, tokenizer, i) for i in range(len(QUESTIONS))]
    assert len({terms for _, terms in single}) > 1
    for members in ([0], [3, 4], [0, 1, 2, 3, 4]):
        summed = sum(float(single[i][0]) * single[i][1] for i in members)
        terms = sum(single[i][1] for i in members)  # the mean is over tokens, not examples
        found = task.losses(x, [task.batch(np.array(members))])
        assert found[0] == pytest.approx(summed / terms, rel=1e-5)


@pytest.mark.parametrize("form", ["scored", "packed", "padded"])
def test_only_the_tokens_of_the_answer_are_counted(
    of: Make, model: Callable[[str], Path], form: Form
) -> None:
    # Traps: loss over the prompt, over padding, or over the padding of shorter answers.
    task, _, _ = built(of("llama"), form)
    _, tokenizer = plain(model("llama"))
    inputs, labels, sizes, _ = task.batch(np.arange(2), np.arange(2, 5))
    answers = [tokenizer(answer(i), add_special_tokens=False)["input_ids"] for i in range(5)]
    prompts = [tokenizer(prompt(i))["input_ids"] for i in range(5)]
    assert labels.tolist() == list(itertools.chain(*answers))
    lengths = list(map(len, answers))
    assert sizes == (sum(lengths[:2]), sum(lengths[2:]))
    # An answer's last token is asked for and never read; each is asked for by the one before it.
    read = [p + a[:-1] for p, a in zip(prompts, answers, strict=True)]
    before = [p[-1:] + a[:-1] for p, a in zip(prompts, answers, strict=True)]
    ids = inputs["input_ids"]
    if form == "padded":
        width = max(map(len, read))
        assert ids.shape == (5, width)
        for row, real, tokens in zip(ids, inputs["attention_mask"], read, strict=True):
            assert real.tolist() == [0] * (width - len(tokens)) + [1] * len(tokens)
            assert row[real.bool()].tolist() == tokens
        scored = inputs["scored"]
    else:
        in_order = sorted(read, key=len)
        assert ids.tolist() == [list(itertools.chain(*in_order))]
        positions = itertools.chain(*(range(len(tokens)) for tokens in in_order))
        assert inputs["position_ids"].tolist() == [list(positions)]
        scored = inputs["packing"].scored
    assert ids.flatten()[scored].tolist() == list(itertools.chain(*before))
    assert all(p[0] == 1 for p in prompts)  # the special token, once
    assert not any(1 in a for a in answers)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_stands_in_the_padding_does_not_matter(of: Make, name: str) -> None:
    task, _, x = built(of(name), "padded")
    batch = task.batch(np.arange(5))
    first = task.losses(x, [task.batch(np.arange(5))])
    padding = batch.inputs["attention_mask"] == 0
    assert padding.any()
    batch.inputs["input_ids"][padding] = 17
    assert task.losses(x, [batch])[0] == pytest.approx(first[0], rel=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_stands_beside_a_sequence_does_not_matter(of: Make, name: str) -> None:
    # End to end, a neighbour is what padding was; the shortest lies first, the longest last.
    task, _, x = built(of(name), "packed")
    clients = [np.array([i]) for i in range(5)]
    first = task.losses(x, [task.batch(*clients)])
    for moved in range(5):
        batch = task.batch(*clients)
        lengths = batch.inputs["packing"].lengths
        number = sorted(range(5), key=lambda i: len(read_of(task, i))).index(moved)
        start = sum(lengths[:number])
        assert lengths[number] == len(read_of(task, moved))
        batch.inputs["input_ids"][0, start : start + lengths[number]] = 17
        found = task.losses(x, [batch])
        others = np.arange(5) != moved
        assert found[others] == pytest.approx(first[others], rel=1e-6)
        assert abs(found[moved] / first[moved] - 1) > 1e-4


def read_of(task: GenerationTask, number: int) -> list[int]:
    """What is read of a training example, one sequence."""
    ids = task.batch(np.array([number])).inputs["input_ids"]
    return ids[0].tolist()


def test_evaluation_reads_the_prompts_of_training(of: Make) -> None:
    _, prepared, _ = built(of("llama"))
    arrays = prepared.arrays
    for part in ("ids", "offsets"):
        assert np.array_equal(arrays[f"train_prompt_{part}"], arrays[f"eval_prompt_{part}"])
    assert prepared.spec["evaluation"]["references"] == [references for *_, references in QUESTIONS]


def test_the_evaluation_loss_is_a_mean_over_tokens(
    of: Make, model: Callable[[str], Path], squad: Path, tmp_path: Path
) -> None:
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_bytes((squad / "train.jsonl").read_bytes())
    task, _, x = built(of("llama", **{"task.data": str(tmp_path)}))
    module, tokenizer = plain(model("llama"))
    with torch.inference_mode():
        single = [answer_loss(module, tokenizer, i) for i in range(5)]
    wanted = sum(float(loss) * terms for loss, terms in single) / sum(n for _, n in single)
    found = joined(task.score(x, b) for b in range(task.eval_batches))
    assert means(found, 0)["eval_loss"] == pytest.approx(wanted, rel=1e-5)
    assert example_losses(found) == pytest.approx([float(loss) for loss, _ in single], rel=1e-5)


def test_a_step_against_the_gradient_lowers_the_loss(
    of: Make, model: Callable[[str], Path]
) -> None:
    # The gradient is autograd's, of plain transformers; the two losses are the task's.
    task, _, x = built(of("llama"))
    module, tokenizer = plain(model("llama"))
    single = [answer_loss(module, tokenizer, i) for i in range(5)]
    (sum(loss * n for loss, n in single) / sum(n for _, n in single)).backward()
    named = dict(module.named_parameters())
    gradient = torch.cat([named[name].grad.flatten() for name, _ in task.layout])
    batch = [task.batch(np.arange(5))]
    step = 0.01 * gradient / gradient.norm()
    before, after = task.losses(x, batch)[0], task.losses(x - step, batch)[0]
    assert before - after == pytest.approx(0.01 * float(gradient.norm()), rel=0.05)


def test_long_answers_end_at_the_budget(of: Make, model: Callable[[str], Path]) -> None:
    task, _, _ = built(of("llama", **{"task.max_new_tokens": 2}))
    _, tokenizer = plain(model("llama"))
    _, labels, sizes, _ = task.batch(np.arange(5))
    wanted = [tokenizer(answer(i), add_special_tokens=False)["input_ids"][:2] for i in range(5)]
    assert labels.view(5, 2).tolist() == wanted
    assert sizes == (10,)


# greedy answers


def widths(task: GenerationTask, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each call of ``generate`` adds."""
    found: list[int] = []
    module: Any = task.module
    generate = module.generate

    def counted(**options: Any) -> Any:
        written = generate(**options)
        found.append(written.shape[1] - options["input_ids"].shape[1])
        return written

    monkeypatch.setattr(module, "generate", counted)
    return found


def answers(task: GenerationTask, x: torch.Tensor, members: list[int]) -> list[str]:
    task.losses(x, [task.batch(np.arange(1))])  # binds the weights
    with torch.inference_mode():
        return task.answers(np.array(members))


@pytest.mark.parametrize("name", [*FAMILIES, "trained"])
def test_greedy_answers_are_those_of_generate_on_single_prompts(
    of: Make, model: Callable[[str], Path], name: str
) -> None:
    task, _, x = built(of(name))
    module, tokenizer = plain(model(name))
    wanted = []
    for number in range(5):
        ids = tokenizer(prompt(number), return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            written = module.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False,
                pad_token_id=2,
            )  # fmt: skip
        text = tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
        wanted.append(text.strip().split("\n")[0].strip())
    assert all(wanted)
    assert answers(task, x, [0, 1, 2, 3, 4]) == wanted
    assert answers(task, x, [3]) == [wanted[3]]
    if name == "trained":
        assert wanted == [reply for _, _, _, reply, _ in QUESTIONS]


def test_decoding_stops_at_the_end_of_the_line(
    of: Make, model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, prepared, x = built(of("trained"))
    _, tokenizer = plain(model("trained"))
    lengths = [len(tokenizer(answer(i), add_special_tokens=False)["input_ids"]) for i in range(5)]
    stops = prepared.spec["evaluation"]["stops"]
    assert {2, *tokenizer("\n", add_special_tokens=False).input_ids} <= set(stops)
    assert all(token == 2 or tokenizer.decode([token]).endswith("\n") for token in stops)
    added = widths(task, monkeypatch)
    assert answers(task, x, [3]) == ["Ann"]
    assert answers(task, x, [0, 3]) == ["the red boat", "Ann"]  # the shorter waits for the longer
    assert added == [lengths[3], max(lengths[0], lengths[3])]
    assert lengths[3] < lengths[0] < 12


@pytest.mark.parametrize("stops", [[2], []])
def test_the_first_line_is_the_answer_whatever_stops_decoding(
    of: Make, model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, stops: list[int]
) -> None:
    # Where the line end is no token of its own, decoding goes on after it.
    task, prepared, x = built(of("trained"))
    prepared.spec["evaluation"]["stops"] = stops
    added = widths(task, monkeypatch)
    assert answers(task, x, [0, 3]) == ["the red boat", "Ann"]
    assert added == [12]
    _, tokenizer = plain(model("trained"))
    rest = tokenizer("\n Ann \nTitle: Boats", add_special_tokens=False, return_tensors="pt")

    def generate(input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.cat([input_ids, rest["input_ids"]], 1)

    monkeypatch.setattr(task.module, "generate", generate)
    assert answers(task, x, [0]) == ["Ann"]


def test_the_budget_of_new_tokens_is_kept(of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    task, prepared, x = built(of("trained", **{"task.max_new_tokens": 2}))
    added = widths(task, monkeypatch)
    assert answers(task, x, [0, 2]) == ["the red", "two small"]
    assert added == [2]
    assert "answers of up to 2 tokens (70.0% are longer)" in " ".join(prepared.notes)


def test_a_budget_that_leaves_no_room_for_a_prompt(of: Make) -> None:
    with pytest.raises(ValueError, match=r"max_length = 16 leaves no room .* raise it to 20"):
        built(of("llama", **{"task.max_length": 16}))
    with pytest.raises(ValueError, match="the model reads at most 128"):
        built(of("llama", **{"task.max_length": 400, "task.max_new_tokens": 110}))


def test_a_long_passage_loses_its_beginning_and_the_question_stays(
    of: Make, model: Callable[[str], Path]
) -> None:
    _, prepared, _ = built(of("llama", **{"task.max_length": 42}))
    _, tokenizer = plain(model("llama"))
    ids, offsets = (prepared.arrays[f"eval_prompt_{part}"] for part in ("ids", "offsets"))
    assert np.diff(offsets).max() == 30  # the answer's 12 are kept free
    rows = [tokenizer.decode(ids[a:b]) for a, b in itertools.pairwise(offsets)]
    lost = 0
    for number, (title, context, question, _, _) in enumerate(QUESTIONS):
        head, tail = f"<s>Title: {title}\nContext:", prompt(number).split(context)[1]
        assert rows[number].startswith(head)
        assert rows[number].endswith(tail)
        rest = rows[number][len(head) : -len(tail)]
        assert context.endswith(rest.strip())
        assert question in tail
        lost += rest.strip() != context
    assert lost > 0


# scores and runs


def test_scores_by_hand_whatever_the_batches(of: Make) -> None:
    losses = []
    for size in (5, 3, 2, 1):
        task, _, x = built(of("trained", **{"task.eval_batch_size": size}))
        scores = [task.score(x, b) for b in range(task.eval_batches)]
        sizes = [len(s.terms) for s in scores]
        assert sizes == {5: [5], 3: [3, 2], 2: [2, 2, 1]}.get(size, [1] * 5)
        found = means(joined(scores), 0)
        losses.append(found.pop("eval_loss"))
        assert found == {"eval_f1": pytest.approx(F1), "eval_exact_match": pytest.approx(EXACT)}
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-5)


def columns(folder: Path) -> list[Row]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("metric", "value"), [("auto", F1), ("exact_match", EXACT)])
def test_a_run_is_scored_by_its_metric_and_replays(
    of: Make, tmp_path: Path, metric: str, value: float
) -> None:
    # Four to train on, so that the fifth to evaluate on is new.
    e = of("trained", **{"task.metric": metric, "task.train_examples": 4})
    summary = run(e, tmp_path / "r")
    assert summary == json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["metric"] == ("f1" if metric == "auto" else metric)
    assert summary["initial_score"] == pytest.approx(value)
    assert summary["final_accuracy"] is summary["best_accuracy"] is None
    first, last = columns(tmp_path / "r")
    assert float(first["eval_f1"]) == pytest.approx(F1)
    assert float(first["eval_exact_match"]) == pytest.approx(EXACT)
    assert first["eval_accuracy"] == first["eval_rougeL"] == ""
    assert float(last[f"eval_{summary['metric']}"]) == summary["final_score"]
    replayed = replay(tmp_path / "r", outcomes=tmp_path / "o.parquet")
    assert replayed["matches"] is True
    assert replayed["eval_loss"] == float(last["eval_loss"])
    kept = pq.read_table(tmp_path / "r" / "outcomes.parquet")
    assert kept.equals(pq.read_table(tmp_path / "o.parquet"), check_metadata=True)
    assert kept.column_names == ["split", "example", "loss", "f1", "exact_match"]
    assert kept["exact_match"].to_pylist() == [1, 0, 0, 0, 1]
    assert kept["f1"].to_pylist() == pytest.approx([1, 2 / 3, 1 / 2, 0, 1])
    assert math.fsum(kept["f1"].to_pylist()) / 5 == float(last["eval_f1"])
    assert {n: replayed[n] for n in ("eval_f1", "eval_exact_match")} == {
        n: float(last[n]) for n in ("eval_f1", "eval_exact_match")
    }


def test_drop_accepts_any_of_its_spans(of: Make, tmp_path: Path) -> None:
    for split, spans in (("train", ["Ann"]), ("validation", ["Bob", "Ann"])):
        row = {"passage": f"{spans[0]} saw boats.", "question": "Who?"}
        answers_spans = {"spans": spans, "types": ["span"] * len(spans)}
        line = json.dumps(row | {"answers_spans": answers_spans}) + "\n"
        (tmp_path / f"{split}.jsonl").write_text(line * 3)
    e = of("llama", **{"task.name": "drop", "task.data": str(tmp_path)})
    task, prepared, x = built(e)
    assert prepared.spec["evaluation"]["references"] == [["Bob", "Ann"]] * 3
    for reply, value in {"Ann": 1.0, "Bob": 1.0, "Tom": 0.0}.items():
        task.answers = lambda examples, reply=reply: [reply] * len(examples)  # type: ignore
        points = task.score(x, 0).points
        assert [points[name].tolist() for name in ("f1", "exact_match")] == [[value] * 3] * 2
    summary = run(e, tmp_path / "r")
    assert summary["metric"] == "f1"
    assert replay(tmp_path / "r")["matches"] is True


def test_xsum_is_scored_by_rouge(of: Make, tmp_path: Path) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    for split in ("train", "validation"):
        with open(tmp_path / f"{split}.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["document", "summary", "id"])
            table.writerows([[f"The red {split} left.\nAnn saw boats.", f"Ann saw {n} boats.", n]
                             for n in ("two", "three", "red")])  # fmt: skip
    e = of("trained", **{"task.name": "xsum", "task.data": str(tmp_path)})
    task, _, x = built(e)
    names = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(names, use_stemmer=True)
    written = answers(task, x, [0, 1, 2])
    assert all(written)
    summary = run(e, tmp_path / "r")
    assert summary["metric"] == "rougeL"
    first, last = columns(tmp_path / "r")
    for name in names:
        wanted = np.mean([
            scorer.score(f"Ann saw {n} boats.", text)[name].fmeasure
            for n, text in zip(("two", "three", "red"), written, strict=True)
        ])  # fmt: skip
        assert float(first[f"eval_{name}"]) == pytest.approx(wanted)
    assert float(first["eval_rouge1"]) > 0
    assert first["eval_f1"] == first["eval_accuracy"] == ""
    assert summary["final_score"] == float(last["eval_rougeL"])
    assert replay(tmp_path / "r")["matches"] is True
