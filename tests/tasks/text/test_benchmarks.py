"""Every row of the task table: prompt, classes and answers against what is written out by hand."""

from __future__ import annotations

import csv
import json
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hiso_ray import Experiment, tasks
from hiso_ray.config import TaskConfig
from hiso_ray.tasks.language.classification import answer_tokens
from hiso_ray.tasks.text import benchmarks, examples
from hiso_ray.tasks.text.benchmark_row import Classification, Generation
from hiso_ray.tasks.text.benchmarks import BENCHMARKS
from hiso_ray.tasks.text.prompts import Examples

DOCS = Path(__file__).resolve().parents[3] / "docs" / "tasks.md"
Row = dict[str, Any]

# One row of each dataset in the hub's columns, and the whole prompt it must become.
PROMPTS: dict[str, tuple[Row, str]] = {
    "reviews": (
        {"text": "The plot is never dull, although the crowd was loud.", "topic": "film"},
        "The plot is never dull, although the crowd was loud. It was",
    ),
    "sst2": (
        {"sentence": "a gorgeous , witty , seductive movie . ", "idx": 6},
        "a gorgeous , witty , seductive movie . It was",
    ),
    "qqp": (
        {
            "question1": "How do I learn to cook?",
            "question2": "What is the best way to learn {cooking}?",
            "idx": 0,
        },
        "Question 1: How do I learn to cook?\n"
        "Question 2: What is the best way to learn {cooking}?\n"
        "Do these two questions ask the same thing? Yes or No?\n",
    ),
    "rte": (
        {
            "premise": "The museum was built in 1901, and closed in 1994.",
            "hypothesis": "The museum is open.",
            "idx": 0,
        },
        "The museum was built in 1901, and closed in 1994.\n"
        'Does this mean that "The museum is open." is true? Yes or No?\n',
    ),
    "cb": (
        {
            "premise": "A: Do they like it? B: I don't think that they like it.",
            "hypothesis": "they like it",
            "idx": 0,
        },
        "Suppose A: Do they like it? B: I don't think that they like it. "
        'Can we infer that "they like it"? Yes, No, or Maybe?\n',
    ),
    "boolq": (
        {
            "question": "is the moon larger than mars",
            "passage": "The Moon -- The Moon is smaller than Mars.",
            "idx": 0,
        },
        "The Moon -- The Moon is smaller than Mars.\n"
        "Question: is the moon larger than mars\n"
        "Is that correct? Yes or No?\n",
    ),
    "wic": (
        {
            "word": "bank",
            "sentence1": "They sat on the bank of the river.",
            "sentence2": "The bank was closed.",
            "start1": 16, "start2": 4, "end1": 20, "end2": 8, "idx": 0,
        },
        'Does the word "bank" have the same meaning in these two sentences? Yes, No?\n'
        "They sat on the bank of the river.\n"
        "The bank was closed.\n",
    ),
    "wsc": (
        {
            "text": "Mark told Pete a story. His brother laughed.",
            "span1_index": 0, "span2_index": 5, "span1_text": "Mark", "span2_text": "His",
            "idx": 0,
        },
        "Mark told Pete a story. His brother laughed.\n"
        'In the previous sentence, does the pronoun "his" refer to Mark? Yes or No?\n',
    ),
    "multirc": (
        {
            "paragraph": "Ann went to Oslo. She flew.",
            "question": "How did Ann travel?",
            "answer": "By plane",
            "idx": {"paragraph": 0, "question": 0, "answer": 0},
        },
        "Ann went to Oslo. She flew.\n"
        "Question: How did Ann travel?\n"
        'I found this answer "By plane". Is that correct? Yes or No?\n',
    ),
    "ag_news": (
        {"text": 'Oil falls "again". Prices fell on Monday.'},
        'Oil falls "again". Prices fell on Monday. This is about',
    ),
    "squad": (
        {
            "id": "1",
            "title": "Oslo",
            "context": "Oslo was founded in 1040, by Harald.",
            "question": "Who founded Oslo?",
            "answers": {"text": ["Harald", "by Harald"], "answer_start": [29, 26]},
        },
        "Title: Oslo\n"
        "Context: Oslo was founded in 1040, by Harald.\n"
        "Question: Who founded Oslo?\n"
        "Answer concisely in a few words:",
    ),
    "drop": (
        {
            "section_id": "nfl_1",
            "query_id": "1",
            "passage": "The Bears led 7-3 and won 21-10.",
            "question": "How many points did the Bears win by?",
            "answers_spans": {"spans": ["11", "eleven"], "types": ["number", "span"]},
        },
        "Passage: The Bears led 7-3 and won 21-10.\n"
        "Question: How many points did the Bears win by?\n"
        "Answer:",
    ),
    "xsum": (
        {
            "document": "The bridge was closed on Monday.\nRepairs take a week.",
            "summary": "A bridge is closed for a week.",
            "id": "1",
        },
        "Document: The bridge was closed on Monday.\nRepairs take a week.\n"
        "Summarize this in one sentence:",
    ),
    "instructions": (
        {
            "instruction": "Who founded Oslo?",
            "context": "Oslo was founded in 1040, by Harald.",
            "response": "Harald did.\nHe was a king.",
            "category": "closed_qa",
        },
        "Below is an instruction that describes a task, paired with an input that provides further "
        "context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nWho founded Oslo?\n\n"
        "### Input:\nOslo was founded in 1040, by Harald.\n\n"
        "### Response:",
    ),
}  # fmt: skip
# The answer of each class, 0 first, and of generation tasks what stands after the prompt.
ANSWERS: dict[str, list[str]] = {
    "reviews": [" bad", " good"],
    "sst2": [" bad", " good"],
    "qqp": ["No", "Yes"],  # 1: duplicate
    "rte": ["Yes", "No"],  # 0: entailment
    "cb": ["Yes", "No", "Maybe"],  # 0: entailment, 1: contradiction, 2: neutral
    "boolq": ["No", "Yes"],
    "wic": ["No", "Yes"],
    "wsc": ["No", "Yes"],
    "multirc": ["No", "Yes"],
    "ag_news": [" world", " sports", " business", " technology"],
    "squad": [" Harald\n"],
    "drop": [" 11\n"],
    "xsum": [" A bridge is closed for a week.\n"],
    "instructions": ["Harald did.\nHe was a king.</s>"],
}
REFERENCES = {
    "squad": ["Harald", "by Harald"],
    "drop": ["11", "eleven"],
    "xsum": ["A bridge is closed for a week."],
    "instructions": ["Harald did.\nHe was a king."],
}
CLASSES = [name for name, row in BENCHMARKS.items() if isinstance(row, Classification)]


def labelled(name: str) -> list[Row]:
    """The row once for each class, or once."""
    row, _ = PROMPTS[name]
    if name not in CLASSES:
        return [row]
    return [row | {"label": label} for label in range(len(ANSWERS[name]))]


def write(folder: Path, kind: str, rows: Sequence[Row], splits: Sequence[str]) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(exist_ok=True)
    for split in splits:
        file = folder / f"{split}.{kind}"
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(list(rows)), file)
        elif kind == "jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            quoted = {"csv": {}, "tsv": {"delimiter": "\t", "quoting": csv.QUOTE_NONE}}[kind]
            with open(file, "w", newline="") as lines:
                table = csv.DictWriter(lines, list(rows[0]), quotechar='"', **quoted)
                table.writeheader()
                table.writerows(rows)
    return str(folder)


def read(name: str, folder: Path, kind: str, rows: Sequence[Row], **fields: Any) -> Examples:
    """The training examples of a folder with these rows as both splits."""
    splits = ("train", "test") if name == "ag_news" else ("train", "validation")
    config = TaskConfig(name=name, data=write(folder, kind, rows, splits), **fields)
    return examples.read(BENCHMARKS[name], config, 0)[0]


def tokenizer(text: str) -> Any:
    """Every word of the text is one token, with and without the space before it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator([text] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe)


def test_every_task_is_tested() -> None:
    assert list(PROMPTS) == list(ANSWERS) == list(BENCHMARKS)
    assert {n for n, row in BENCHMARKS.items() if isinstance(row, Generation)} == set(REFERENCES)


# prompts, classes, answers


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_from_the_columns_of_the_hub(tmp_path: Path, name: str, kind: str) -> None:
    found = read(name, tmp_path, kind, labelled(name))
    assert set(found.prompts) == {PROMPTS[name][1]}
    if name in CLASSES:
        assert found.labels.tolist() == list(range(len(ANSWERS[name])))
        assert found.references == []
    else:
        assert found.labels.tolist() == [0]
        assert found.references == [REFERENCES[name]]


@pytest.mark.parametrize("name", ["reviews", "qqp", "rte", "wsc", "ag_news", "xsum"])
def test_prompts_from_csv(tmp_path: Path, name: str) -> None:
    found = read(name, tmp_path, "csv", labelled(name))
    assert set(found.prompts) == {PROMPTS[name][1]}
    assert found.references == ([REFERENCES[name]] if name in REFERENCES else [])
    assert found.labels.tolist() == list(range(len(ANSWERS[name])))


def test_prompts_are_written_out_in_the_docs() -> None:
    docs = DOCS.read_text(encoding="utf-8")
    for name, (_, prompt) in PROMPTS.items():
        section = re.split(r"\n### \w+\n", docs.split(f"\n### {name}\n")[1])[0]
        assert f"```text\n{prompt}" in section, name
        for answer in ANSWERS[name]:
            assert repr(answer) in section, (name, answer)


def test_the_row_in_the_docs_is_a_row_of_the_code() -> None:
    row = DOCS.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    assert textwrap.indent(row, "    ") in Path(benchmarks.__file__).read_text(encoding="utf-8")


def test_the_tables_of_the_docs_are_those_of_the_code() -> None:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    for name, row in BENCHMARKS.items():
        table, files = [line for line in lines if line.startswith(f"| `{name}` |")]
        sizes = f"{row.train_examples or 'all'} / {row.eval_examples or 'all'}"
        what = row.names if isinstance(row, Classification) else row.metrics
        given = f"`{row.data}`{f', {row.config}' if row.config else ''}"
        wanted = [f"`{name}`", given, ", ".join(what), sizes, str(row.max_length)]
        assert [cell.strip() for cell in table.strip("|").split("|")] == wanted
        assert files.endswith(f"| {', '.join(row.columns) or 'no'} |")


@pytest.mark.parametrize("name", PROMPTS)
def test_the_context_is_what_may_be_cut(tmp_path: Path, name: str) -> None:
    row, prompt = PROMPTS[name]
    found = read(name, tmp_path, "jsonl", labelled(name))
    begin, end = found.contexts[0]
    column = {
        "sst2": "sentence", "qqp": "question1", "rte": "premise", "cb": "premise",
        "boolq": "passage", "wic": "sentence1", "multirc": "paragraph", "squad": "context",
        "drop": "passage", "xsum": "document", "instructions": "context",
    }.get(name, "text")  # fmt: skip
    assert prompt[begin:end] == row[column].strip()


@pytest.mark.parametrize("name", CLASSES)
def test_answers_by_class(name: str) -> None:
    row = BENCHMARKS[name]
    assert isinstance(row, Classification)
    own = tokenizer("It bad good\nYes\nNo\nMaybe\nyes\nno\na world sports business technology")
    found = answer_tokens(row, own, "a model")
    assert [own.decode([token]) for token in found] == ANSWERS[name]
    assert len(row.names) == len(found)


@pytest.mark.parametrize(
    ("text", "qqp", "rte", "cb"),
    [
        ("a Yes No Maybe", [" No", " Yes"], [" Yes", " No"], [" Yes", " No", " Maybe"]),
        ("yes\nno\na yes no maybe", ["no", "yes"], ["yes", "no"], [" yes", " no", " maybe"]),
    ],
)
def test_another_spelling_keeps_the_order_of_the_classes(
    text: str, qqp: list[str], rte: list[str], cb: list[str]
) -> None:
    own = tokenizer(text)
    for name, answers in (("qqp", qqp), ("rte", rte), ("cb", cb)):
        row = BENCHMARKS[name]
        assert isinstance(row, Classification)
        assert [own.decode([t]) for t in answer_tokens(row, own, "a model")] == answers


def test_ag_news_falls_back_to_shorter_words() -> None:
    own = tokenizer("a world sports business game money tech")  # no " technology"
    row = BENCHMARKS["ag_news"]
    assert isinstance(row, Classification)
    found = [own.decode([token]) for token in answer_tokens(row, own, "a model")]
    assert found == [" world", " game", " money", " tech"]


def test_answers_trained_on_stand_as_they_are_written() -> None:
    for name, references in REFERENCES.items():
        row = BENCHMARKS[name]
        assert isinstance(row, Generation)
        assert [row.answer.format(reference=references[0], end="</s>")] == ANSWERS[name]


# other layouts of the same datasets


@pytest.mark.parametrize(
    ("name", "changes", "labels"),
    [
        ("cb", [{"label": w} for w in ("entailment", "contradiction", "neutral")], [0, 1, 2]),
        ("rte", [{"label": w} for w in ("not_entailment", "entailment")], [1, 0]),
        ("boolq", [{"label": w} for w in (True, False)], [1, 0]),
        ("boolq", [{"answer": w} for w in (True, False)], [1, 0]),  # the dataset's own name for it
        ("wic", [{"label": w, "version": 1.1} for w in (True, False)], [1, 0]),
        ("multirc", [{"label": w} for w in (1, 0)], [1, 0]),
        ("qqp", [{"is_duplicate": w} for w in ("1", "0")], [1, 0]),
    ],
)
def test_labels_in_the_words_of_the_official_files(
    tmp_path: Path, name: str, changes: list[Row], labels: list[int]
) -> None:
    row, prompt = PROMPTS[name]
    found = read(name, tmp_path, "jsonl", [row | change for change in changes])
    assert found.labels.tolist() == labels
    assert set(found.prompts) == {prompt}


def test_wsc_with_nested_spans(tmp_path: Path) -> None:
    row, prompt = PROMPTS["wsc"]
    target = {name: row[name] for name in row if name.startswith("span")}
    rows = [{"text": row["text"], "target": target, "label": label} for label in (True, False)]
    found = read("wsc", tmp_path, "jsonl", rows)
    assert found.prompts == [prompt, prompt]
    assert found.labels.tolist() == [1, 0]


def test_rte_with_the_columns_of_glue(tmp_path: Path) -> None:
    row, prompt = PROMPTS["rte"]
    other = {"sentence1": row["premise"], "sentence2": row["hypothesis"], "label": 1}
    assert read("rte", tmp_path, "tsv", [other]).prompts == [prompt]


def test_qqp_as_glue_wrote_it(tmp_path: Path) -> None:
    row, prompt = PROMPTS["qqp"]
    first = {"id": 1, "qid1": 2, "qid2": 3}
    rows = [first | {c: row[c] for c in ("question1", "question2")} | {"is_duplicate": 1}]
    found = read("qqp", tmp_path, "tsv", rows)
    assert (found.prompts, found.labels.tolist()) == ([prompt], [1])


@pytest.mark.parametrize("empty", [{"input": ""}, {"input": " "}, {"input": None}, {}])
@pytest.mark.parametrize("kind", ["alpaca", "natural instructions"])
def test_an_instruction_without_an_input(tmp_path: Path, empty: Row, kind: str) -> None:
    names = {"instruction": "definition", "input": "inputs", "output": "targets"}
    rows: list[Row] = [{"instruction": "Count.", "output": "One."} | empty]
    rows *= 2
    if kind == "alpaca" and empty:  # others have one
        rows[1] = rows[0] | {"input": "To two."}
    if kind == "natural instructions":
        rows = [{names[column]: value for column, value in row.items()} for row in rows]
    found = read("instructions", tmp_path, "jsonl", rows)
    assert found.prompts[0] == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nCount.\n\n### Response:"
    )
    assert found.contexts[0] == (0, 0)
    assert ("### Input:\nTo two.\n" in found.prompts[1]) == (kind == "alpaca" and bool(empty))
    assert found.references == [["One."]] * 2


@pytest.mark.parametrize("name", ["squad", "drop"])
@pytest.mark.parametrize(
    ("column", "value", "references"),
    [
        ("answers", [" Harald ", "him"], ["Harald", "him"]),
        ("answer", "Harald", ["Harald"]),
    ],
)
def test_references_in_a_plain_column(
    tmp_path: Path, name: str, column: str, value: Any, references: list[str]
) -> None:
    row = {k: v for k, v in PROMPTS[name][0].items() if not k.startswith("answers")}
    found = read(name, tmp_path, "jsonl", [row | {column: value}])
    assert found.references == [references]


# where rows come from, and how many


@pytest.mark.parametrize("name", [name for name in PROMPTS if name != "reviews"])
def test_by_default_the_hub_is_asked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Dataset

    asked: list[tuple[str, str | None]] = []

    def load_dataset(path: str, config: str | None) -> dict[str, Any]:
        asked.append((path, config))
        table = Dataset.from_list(labelled(name))
        return {"train": table, "validation": table, "test": table}

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    e = tasks.resolve(Experiment().changed(**{"task.name": name}))
    train, _, _ = examples.read(BENCHMARKS[name], e.task, 0)
    assert train.prompts[0] == PROMPTS[name][1]
    examples.read(BENCHMARKS[name], e.task.model_copy(update={"data": "some/copy"}), 0)
    wanted = {
        "sst2": ("nyu-mll/glue", "sst2"),
        "qqp": ("nyu-mll/glue", "qqp"),
        "wsc": ("aps/super_glue", "wsc.fixed"),
        "ag_news": ("fancyzhx/ag_news", None),
        "squad": ("rajpurkar/squad", None),
        "drop": ("ucinlp/drop", None),
        "xsum": ("EdinburghNLP/xsum", None),
        "instructions": ("databricks/databricks-dolly-15k", None),
    }.get(name, ("aps/super_glue", name))
    assert asked == [wanted, ("some/copy", None)]


def test_a_hub_that_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: Any) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    config = TaskConfig(name="squad", data="rajpurkar/squad")
    with pytest.raises(ValueError, match=r"rajpurkar/squad: not a local path, and the hub did not "
                       r"give it \(ConnectionError: no route\); a local folder"):  # fmt: skip
        examples.read(BENCHMARKS["squad"], config, 0)


def sizes(name: str, data: str, **fields: Any) -> tuple[int, int]:
    config = TaskConfig(name=name, data=data, **fields)
    train, held, _ = examples.read(BENCHMARKS[name], config, 0)
    assert len(train.labels) == len(train.contexts) == len(train)
    return len(train), len(held)


def test_sizes_follow_the_paper_and_can_be_overridden(tmp_path: Path) -> None:
    for name in ("xsum", "rte"):
        row = labelled(name)[0]
        column = "document" if name == "xsum" else "premise"
        rows = [row | {column: f"text {i}"} for i in range(1100)]
        folder = tmp_path / name
        write(folder, "jsonl", rows, ["train"])
        write(folder, "jsonl", rows[:120], ["validation"])
    xsum, rte = str(tmp_path / "xsum"), str(tmp_path / "rte")
    assert sizes("xsum", xsum) == (1000, 100)
    assert sizes("rte", rte) == (1100, 120)
    for name, data in (("xsum", xsum), ("rte", rte)):
        assert sizes(name, data, train_examples=7, eval_examples=3) == (7, 3)
        assert sizes(name, data, train_examples=1100, eval_examples=120) == (1100, 120)
        with pytest.raises(ValueError, match=r"task.train_examples = 5000: .* has 1100"):
            sizes(name, data, train_examples=5000)
    train, _, _ = examples.read(BENCHMARKS["xsum"], TaskConfig(name="xsum", data=xsum), 0)
    assert train.prompts[-1].startswith("Document: text 999\n")  # the first rows, in order


def test_rows_beyond_the_limit_are_not_read(tmp_path: Path) -> None:
    # Trap: XSum has 204,045 articles, of which 1000 are wanted.
    rows = [{"document": "a", "summary": "b"}, {"document": "a", "summary": None}]
    assert len(read("xsum", tmp_path, "jsonl", rows, train_examples=1, eval_examples=1)) == 1


def test_every_paper_size_is_stated() -> None:
    for name, row in BENCHMARKS.items():
        wanted = (1000, 100) if name in REFERENCES else (None, None)
        wanted = (None, 100) if name == "instructions" else wanted
        assert (row.train_examples, row.eval_examples) == wanted, name


def test_the_embedded_reviews_need_no_file() -> None:
    assert sizes("reviews", "generated") == (6000, 1000)
    config = TaskConfig(name="reviews", data="generated", train_examples=50)
    train, _, _ = examples.read(BENCHMARKS["reviews"], config, 0, "topic")
    assert all(prompt.endswith(" It was") for prompt in train.prompts)
    assert set(train.labels.tolist()) == {0, 1}
    assert len(train.groups) == 50


# bad input


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("cb", {"label": 3}, r"row 1: unknown label 3 in column label; allowed: 0, entailment, 1"),
        ("cb", {"label": "maybe"}, r"unknown label 'maybe' .* contradiction, 2, neutral"),
        ("sst2", {"label": -1}, r"unknown label -1 in column label; allowed: 0, 1"),  # hub's test
        ("boolq", {"label": "yes"}, r"unknown label 'yes' .* allowed: 0, false, 1, true"),
        ("qqp", {"question2": ...}, r"no column question2; it has question1, idx, label"),
        ("rte", {"premise": ...}, r"no column premise or sentence1; it has hypothesis, idx, label"),
        ("wsc", {"span1_text": ...}, r"no column span1_text or target; it has text, span1_index"),
        ("wic", {"label": ...}, r"no column label; it has word, sentence1"),
        ("multirc", {"answer": None}, r"row 1: column answer is empty \(null"),
        ("squad", {"context": ...}, r"no column context; it has id, title, question, answers"),
        ("squad", {"answers": ...}, r"row 1: no reference answer in answers.text or answers or "
         r"answer; it has id, title, context, question"),
        ("squad", {"answers": {"text": [], "answer_start": []}}, r"row 1: no reference answer"),
        ("drop", {"answers_spans": {"types": ["number"]}}, r"no reference answer in answers_spans"),
        ("xsum", {"summary": ...}, r"no reference answer in summary; it has document, id"),
        ("xsum", {"summary": None}, r"row 1: no reference answer in summary"),
        ("xsum", {"summary": " "}, r"row 1: no reference answer in summary"),
    ],
)  # fmt: skip
def test_bad_rows(tmp_path: Path, name: str, change: Row, words: str) -> None:
    row = labelled(name)[0] | change
    row = {column: value for column, value in row.items() if value is not ...}
    with pytest.raises(ValueError, match=words):
        read(name, tmp_path, "jsonl", [row])


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"span1_text": "Mark"}, r"row 1: column target\[span2_text\] is empty"),
        ({"span1_text": None, "span2_text": "His"}, r"row 1: column target\[span1_text\] is empty"),
        (None, r"row 1: column target.* is empty"),
        ("Mark", r"row 1: column target\[span1_text\] is empty"),
    ],
)
def test_bad_nested_columns(tmp_path: Path, target: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read("wsc", tmp_path, "jsonl", [{"text": "a", "label": 0, "target": target}])


def test_files_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("Oslo,A city.,Where?,Norway\n")
    (tmp_path / "validation.csv").write_text("Oslo,A city.,Where?,Norway\n")
    with pytest.raises(ValueError, match="a file without a header will not do for this task"):
        sizes("squad", str(tmp_path))
    (tmp_path / "train.csv").write_text("a,b,0\n")
    with pytest.raises(ValueError, match=r"4 columns and names none of .* without a header must "
                       r"have the columns premise, hypothesis, label"):  # fmt: skip
        sizes("rte", str(tmp_path))
    (tmp_path / "validation.csv").write_text("c,d,entailment\ne,f,not_entailment\n")
    assert sizes("rte", str(tmp_path)) == (1, 2)


def test_verbalizers_must_be_single_distinct_tokens() -> None:
    row = BENCHMARKS["cb"]
    assert isinstance(row, Classification)
    own = tokenizer("Yes\nNo\nyes\nno")
    words = (
        r"task.model = a model: .* no single, distinct token for each answer: "
        r"'Yes' → \[\d+\], 'No' → \[\d+\], 'Maybe' → \[\d+, "
    )
    with pytest.raises(ValueError, match=words) as error:
        answer_tokens(row, own, "a model")
    assert "' maybe' →" in str(error.value)  # every spelling that was tried

    class Same:
        """Knows one word; every other is the unknown token."""

        unk_token_id = 3

        def __call__(self, text: str | list[str], **_: Any) -> dict[str, Any]:
            if isinstance(text, list):
                return {"input_ids": [self(one)["input_ids"] for one in text]}
            return {"input_ids": [7 if text.strip().lower() in self.known else 3]}

        known: tuple[str, ...] = ("yes", "no", "maybe")

    with pytest.raises(ValueError, match=r"'Yes' → \[7\], 'No' → \[7\]"):
        answer_tokens(row, Same(), "a model")
    Same.known = ("yes",)
    with pytest.raises(ValueError, match=r"'Yes' → \[7\], 'No' → \[3\]"):
        answer_tokens(BENCHMARKS["rte"], Same(), "a model")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("xsum", {"task.metric": "accuracy"},
         "task.metric = accuracy: xsum is scored by rougeL, rouge1, rouge2"),
        ("squad", {"task.metric": "rougeL"}, "squad is scored by f1, exact_match"),
        ("cb", {"task.metric": "f1"}, "cb is scored by accuracy"),
        ("cb", {"task.max_new_tokens": 5}, "cb is answered by one token; leave it out"),
    ],
)  # fmt: skip
def test_options_that_a_task_does_not_have(name: str, fields: Row, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tasks.resolve(Experiment().changed(**({"task.name": name} | fields)))
