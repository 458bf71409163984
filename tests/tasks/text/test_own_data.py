"""The examples of docs/tasks.md as they are written, on real sentences in a user's columns."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from hiso_ray import replay, resume
from hiso_ray.cli import main

DOCS = Path(__file__).resolve().parents[3] / "docs" / "tasks.md"
SECTION = DOCS.read_text(encoding="utf-8").split("\n## Your own data\n")[1].split("\n## ")[0]
EXAMPLES = [part.split("```")[0] for part in SECTION.split("```yaml\n")[1:]]
SMALL = [
    "--federation.num_clients", "6", "--federation.clients_per_round", "2",
    "--federation.rounds", "2", "--method.num_perturbations", "2", "--task.batch_size", "2",
    "--task.eval_examples", "8", "--resources.executor", "serial", "--eval.every", "1",
]  # fmt: skip
TOPICS = ("World", "Sports", "Business", "Technology")
pytestmark = pytest.mark.usefixtures("one_thread")


def news(shared: Path) -> Iterator[tuple[str, str, str]]:
    """Topic, headline and story of some articles."""
    with open(shared / "data" / "ag_news" / "test.csv", newline="", encoding="utf-8") as file:
        for number, headline, story in islice(csv.reader(file), 80):
            yield TOPICS[int(number) - 1], headline, story


def write_files(shared: Path, folder: Path) -> None:
    """The files that the examples name, in ``folder``."""
    (folder / "reviews").mkdir()
    for ours, theirs in (("train", "train"), ("held-out", "dev")):
        lines = (shared / "data" / "sst2" / f"{theirs}.tsv").read_text(encoding="utf-8")
        rows = [line.rsplit("\t", 1) for line in lines.splitlines()[:80]]
        named = [{"review": text, "sentiment": ("neg", "pos")[int(y)]} for text, y in rows]
        _jsonl(folder / "reviews" / f"{ours}.jsonl", named)
    with open(folder / "news.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["headline", "story"])
        table.writerows([headline, story] for _, headline, story in news(shared))
    _jsonl(folder / "instructions.jsonl", [
        {"instruction": f"Name the topic{dot}", "input": story, "output": topic}
        for i, (topic, _, story) in enumerate(news(shared)) for dot in (".", ":")[i % 2]
    ])  # fmt: skip


def _jsonl(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize(
    ("number", "metric", "answer"),
    [
        (0, "accuracy", "' good'"),
        (1, "rougeL", "'\\n'"),
        (2, "rougeL", "'</s>'"),
    ],
    ids=["classes", "texts", "instructions"],
)
def test_an_example_runs_as_written(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], number: int, metric: str, answer: str,
) -> None:  # fmt: skip
    write_files(shared, tmp_path)
    (tmp_path / "own.yaml").write_text(EXAMPLES[number], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    model = ["--task.model", str(shared / "models" / "opt-imdb-1m")]
    assert main(["run", "--config", "own.yaml", *model, *SMALL, "--dry-run"]) == 0
    assert answer in capsys.readouterr().out
    assert main(["run", "--config", "own.yaml", *model, *SMALL, "--out", "r"]) == 0
    monkeypatch.chdir("/")  # where the data are is known from anywhere
    done = resume(tmp_path / "r", changes={"federation.rounds": 3})
    assert (done["metric"], done["rounds"]) == (metric, 3)
    replayed = replay(tmp_path / "r", export=tmp_path / "model")
    assert replayed["matches"] is True
    assert (tmp_path / "model" / "tokenizer.json").exists()


def test_every_example_is_run() -> None:
    assert len(EXAMPLES) == 3
