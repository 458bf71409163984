"""Exact match, F1 and ROUGE against values worked out by hand; means over uneven batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hiso_ray import Experiment, tasks
from hiso_ray.messages import Score
from hiso_ray.run_folder.outcomes import joined, means
from hiso_ray.tasks.text.scores import SCORES, best, exact_match, f1, normalize


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Red, red boat!", "red red boat"),
        ("  an\tapple \n a day ", "apple day"),
        ("U.S.A.", "usa"),  # punctuation goes before articles are looked for
        ("vitamin A", "vitamin"),
        ("banana theatre", "banana theatre"),  # an article is a word of its own
        ("a.n. other", "other"),
        ("co-operate", "cooperate"),
        ("Él – niño", "él – niño"),  # only ASCII punctuation goes
        ("the", ""),
    ],
)
def test_texts_are_normalised_as_by_the_squad_script(text: str, normal: str) -> None:
    assert normalize(text) == normal


@pytest.mark.parametrize(
    ("answer", "reference", "hit"),
    [
        ("the Red Boat.", "red boat", 1),
        ("red boats", "red boat", 0),
        ("boat red", "red boat", 0),
        ("", "red boat", 0),
        ("the", "a", 1),
    ],
)
def test_exact_match(answer: str, reference: str, hit: int) -> None:
    assert exact_match(answer, reference) == hit


@pytest.mark.parametrize(
    ("answer", "reference", "value"),
    [
        ("The red boat!", "a red boat", 1),
        ("boat red", "red boat", 1),  # bags of words
        ("red boat", "old red boat", 4 / 5),  # precision 1, recall 2/3
        ("one old red boat", "red", 2 / 5),  # precision 1/4, recall 1
        ("red red boat", "red boat boat", 2 / 3),  # red and boat once each: 2/3 and 2/3
        ("red red red", "red", 1 / 2),  # a repeated word counts once: 1/3 and 1
        ("green", "red boat", 0),
        ("", "red boat", 0),
        ("the", "a", 0),  # nothing left: no common word, as in the official script
    ],
)
def test_f1(answer: str, reference: str, value: float) -> None:
    assert f1(answer, reference) == pytest.approx(value, abs=1e-12)


def test_of_several_references_the_best_counts() -> None:
    references = ["three boats", "boats", "a green car"]
    assert best("f1", "two small boats", references) == pytest.approx(1 / 2)  # 1/3 and 1
    assert best("f1", "two small boats", references[:1]) == pytest.approx(2 / 5)  # 1/3 and 1/2
    assert best("exact_match", "Boats.", references) == 1
    assert best("exact_match", "Boats.", references[::2]) == 0
    assert best("rouge1", "two small boats", references) == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("answer", "reference", "one", "two", "longest"),
    [
        # 5 of 6 words; the cat, on the, the mat of 5 pairs; the cat on the mat in order
        ("The cat lay on the mat.", "the cat sat on the mat", 5 / 6, 3 / 5, 5 / 6),
        # every word; "the gunman" of 3 pairs; 2 of 4 in order
        ("the gunman killed police", "police killed the gunman", 1, 1 / 3, 1 / 2),
        # precision 1, recall 2/6; 1 and 1/5; 1 and 2/6
        ("the cat", "the cat sat on the mat", 1 / 2, 1 / 3, 1 / 2),
        # stems are compared
        ("cats", "cat", 1, 0, 1),
        ("dogs", "cat", 0, 0, 0),
        ("", "cat", 0, 0, 0),
    ],
)
def test_rouge(answer: str, reference: str, one: float, two: float, longest: float) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    names = ["rouge1", "rouge2", "rougeL"]
    package = RougeScorer(names, use_stemmer=True).score(reference, answer)
    for name, value in zip(names, (one, two, longest), strict=True):
        assert SCORES[name](answer, reference) == pytest.approx(value, abs=1e-12)
        assert SCORES[name](answer, reference) == package[name].fmeasure


# means


def test_scores_are_means_over_examples_and_the_loss_over_its_terms() -> None:
    # Trap: a mean of batches would say accuracy 0.875, F1 0.625 and loss 2.125.
    whole = score([1, 1, 1, 1, 1, 1, 2, 2], [2, 2, 3, 1], [1, 1, 0, 1], [0.5, 0, 0, 0.5])
    short = score([3], [1], [1], [1])
    assert means(joined([whole, short]), 0) == {
        "eval_loss": pytest.approx(13 / 9),
        "eval_accuracy": pytest.approx(4 / 5),
        "eval_f1": pytest.approx(2 / 5),
    }


def score(losses: list[float], terms: list[int], hits: list[float], f1: list[float]) -> Score:
    def floats(values: list[float]) -> np.ndarray:
        return np.array(values, np.float32)

    points = {"accuracy": floats(hits), "f1": floats(f1)}
    return Score(floats(losses), np.array(terms, np.int32), points)


def test_accuracy_is_correct_over_total_whatever_the_batches(
    language: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HISO_RAY_CACHE", str(tmp_path))
    found = []
    for size in (40, 7, 1):
        e = tasks.resolve(language(**{"task.eval_batch_size": size}))
        prepared = tasks.prepare(e)
        task, x = tasks.build(e, prepared, torch.device("cpu")), torch.tensor(prepared.x0)
        scores = [task.score(x, b) for b in range(task.eval_batches)]
        assert sum(len(score.terms) for score in scores) == 40
        found.append(means(joined(scores), 0))
    correct = found[0]["eval_accuracy"] * 40
    assert correct == round(correct)
    for other in found[1:]:
        assert other["eval_accuracy"] == found[0]["eval_accuracy"]
        assert other["eval_loss"] == pytest.approx(found[0]["eval_loss"], rel=1e-6)
