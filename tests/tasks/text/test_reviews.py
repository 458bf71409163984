"""The grammar's reviews and the embedded model that was pretrained on others like them."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from transformers import AutoModelForCausalLM, AutoTokenizer

from hiso_ray.tasks.text.reviews import (
    FORMS,
    SIZES,
    TOPICS,
    Form,
    Pen,
    clause,
    contrast,
    distractor,
    hearsay,
    plain,
    reviews,
    split_of,
)

ROOT = Path(__file__).resolve().parents[3]
MODEL = ROOT / "hiso_ray" / "models" / "opt-reviews"
split = cache(reviews)


@pytest.fixture(scope="module")
def pretraining() -> ModuleType:
    path = ROOT / "scripts" / "pretrain_reviews.py"
    spec = importlib.util.spec_from_file_location("pretrain_reviews", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn(form: Form, positive: bool, topic: str = "film", count: int = 3000) -> set[str]:
    pen = Pen(99)
    return {form(pen, TOPICS[topic], positive) for _ in range(count)}


# the data


def test_rows_columns_balance_and_uniqueness() -> None:
    for name, size in SIZES.items():
        rows = split(name)
        assert len(rows) == size == len({row["text"] for row in rows})
        assert Counter(row["label"] for row in rows) == {"0": size // 2, "1": size // 2}
        assert {row["topic"] for row in rows} == set(TOPICS)
        for row in rows:
            assert list(row) == ["text", "label", "topic", "author"]
            assert row["text"] == row["text"].lower()
            assert split_of(row["text"]) == name


def test_no_text_is_in_two_splits(pretraining: ModuleType) -> None:
    train, validation = ({row["text"] for row in split(name)} for name in SIZES)
    assert not train & validation
    for document in pretraining.corpus(5000):
        text = document[: document.index(".") + 1]
        assert split_of(text) == "corpus"
        assert text not in train
        assert text not in validation


def test_authors_have_favourite_topics_and_are_mild_or_harsh() -> None:
    topics: dict[str, Counter[str]] = {}
    praise: dict[str, list[int]] = {}
    for row in split("train"):
        topics.setdefault(row["author"], Counter())[row["topic"]] += 1
        praise.setdefault(row["author"], []).append(int(row["label"]))
    assert len(topics) == 48
    top_two = [sum(n for _, n in c.most_common(2)) / c.total() for c in topics.values()]
    assert np.mean(top_two) > 0.7  # 2/7 without habits
    shares = sorted(float(np.mean(labels)) for labels in praise.values())
    assert shares[5] < 0.4 < 0.6 < shares[-5]


def test_the_same_rows_in_another_process_whatever_its_hash_seed() -> None:
    code = (
        "import hashlib; from hiso_ray.tasks.text.reviews import reviews; "
        "print(hashlib.sha256(repr(reviews('validation')).encode()).hexdigest())"
    )
    ours = hashlib.sha256(repr(split("validation")).encode()).hexdigest()
    theirs = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert theirs.stdout.strip() == ours


# the grammar, against labels a reader gave


def test_clauses_by_hand() -> None:
    def clauses(positive: bool) -> set[str]:
        pen = Pen(98)
        return {clause(pen, TOPICS["film"], "plot", positive) for _ in range(2000)}

    liked = {"the plot is clever", "the plot is not dull", "the plot is a joy"}
    liked |= {"nobody calls the plot flat", "the plot is far from slow"}
    disliked = {"the plot is dull", "the plot is never clever", "the plot is a mess"}
    disliked |= {"nothing about the plot is funny", "the plot is not fresh"}
    assert liked <= clauses(True)
    assert disliked <= clauses(False)
    assert not clauses(True) & clauses(False)


@pytest.mark.parametrize(
    ("form", "positive", "text"),
    [
        (plain, True, "the plot is never dull."),
        (plain, False, "the film is a mess."),
        (hearsay, True, "the critic said the plot is dull, he is wrong."),
        (hearsay, False, "my sister said the plot is not slow, she is wrong."),
        (hearsay, False, "my brother said the acting is slow, he is right."),
    ],
)
def test_forms_by_hand(form: Form, positive: bool, text: str) -> None:
    assert text in drawn(form, positive, count=15_000)
    assert text not in drawn(form, not positive)


def test_the_deciding_clause_of_a_contrast() -> None:
    pen = Pen(98)
    sides = {
        p: {clause(pen, TOPICS["hotel"], "pool", p) for _ in range(2000)} for p in (False, True)
    }
    found = 0
    for positive in (False, True):
        for text in drawn(contrast, positive, "hotel"):
            text = text.rstrip(".")
            if text.startswith("although "):
                yields, decides = text.removeprefix("although ").split(", ")
            elif ", even though " in text:
                decides, yields = text.split(", even though ")
            else:
                yields, decides = text.replace(", yet overall ", " but ").split(" but ")
            if " pool" in decides:
                assert decides in sides[positive]
                found += 1
            if " pool" in yields:
                assert yields in sides[not positive]
    assert found > 100


def test_asides_do_not_decide() -> None:
    for positive in (False, True):
        texts = drawn(distractor, positive)
        for aside in ("the seat was awful", "the seat was lovely", "my friend hated it"):
            assert any(aside in text for text in texts)


def test_a_word_may_change_sides_with_the_topic() -> None:
    assert "the hotel is quiet." in drawn(plain, True, "hotel")
    assert "the concert is quiet." in drawn(plain, False, "concert")


def test_last_mood_ignores_the_sentence(pretraining: ModuleType) -> None:
    last_mood = pretraining.last_mood
    assert last_mood(TOPICS["film"], "the plot is a joy but the ending is never clever.")
    assert not last_mood(TOPICS["film"], "nobody calls the film dull.")
    for form in FORMS:
        for text in drawn(form, True, count=200):
            last_mood(TOPICS["film"], text)  # every review has such a word


@pytest.mark.parametrize(("words", "below"), [(1, 0.60), (2, 0.78)])
def test_words_and_pairs_of_words_are_not_enough(words: int, below: float) -> None:
    bag = CountVectorizer(ngram_range=(1, words), token_pattern=r"\S+")
    train, validation = split("train"), split("validation")
    features = bag.fit_transform([row["text"] for row in train])
    regression = LogisticRegression(C=0.3, max_iter=1000)
    regression.fit(features, [row["label"] for row in train])
    accuracy = regression.score(
        bag.transform([row["text"] for row in validation]), [row["label"] for row in validation]
    )
    assert accuracy < below


# the model


def test_the_model_is_small_and_holds_no_pickle() -> None:
    files = list(MODEL.iterdir())
    assert sum(file.stat().st_size for file in files) <= 2_000_000
    assert {file.suffix for file in files} == {".json", ".safetensors"}


def test_the_answers_are_single_distinct_tokens_and_text_survives_the_tokenizer() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    bad, good = (tokenizer(a, add_special_tokens=False)["input_ids"] for a in (" bad", " good"))
    assert len(bad) == len(good) == 1
    assert bad != good
    assert tokenizer("the plot")["input_ids"][0] == tokenizer.bos_token_id
    for text in ("the plot is never dull. It was", "Café № 7 – 100 %"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
    lengths = [
        len(i) for i in tokenizer([row["text"] + " It was" for row in split("train")]).input_ids
    ]
    assert max(lengths) <= 32


@torch.inference_mode()
def test_zero_shot_is_above_chance_and_far_from_what_the_model_knows() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    rows = split("validation")
    positive = np.array([row["label"] == "1" for row in rows])

    def accuracy(ending: str, *answers: str) -> float:
        texts = [row["text"] + ending for row in rows]
        inputs = tokenizer(texts, padding=True, return_tensors="pt")
        logits = model(**inputs, logits_to_keep=1).logits[:, -1]
        no, yes = (tokenizer(a, add_special_tokens=False).input_ids[0] for a in answers)
        return float(np.mean((logits[:, yes] > logits[:, no]).numpy() == positive))

    assert 0.62 < accuracy(" It was", " bad", " good") < 0.70  # 66.3 % where it was made
    assert accuracy("", " Avoid", " Recommended") > 0.97
