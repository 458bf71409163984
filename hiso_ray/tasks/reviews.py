"""Short reviews written by a grammar: the text of the embedded language task.

A clause speaks about one aspect of one topic, plainly ("the plot is clever") or turned round by a
negation ("the plot is never dull"). A review sets one to three clauses in a frame, and the frame
says which of them decides: the one after "but", not the one after "although", not what somebody
else thinks, and whoever reports an opinion may add that it is wrong. So the words alone say
little: "dull" is praise as often as it is blame once "not", "although" and "my sister said" had
their turn.

Everything is a function of ``SEED``. Which split a text belongs to is decided by a hash of the
text, so no text is in two splits, and none that the model was pretrained on is in either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

SEED = 2506_02370  # any constant would do
SIZES = {"train": 6000, "validation": 1000}
SHARES = ("corpus", "corpus", "train", "validation")  # a text's hash points at one of these
AUTHORS = 48

T = TypeVar("T")


@dataclass(frozen=True)
class Topic:
    """What reviews of one kind of thing talk about, and in which words."""

    aspects: tuple[str, ...]
    praise: tuple[str, ...]
    blame: tuple[str, ...]
    surroundings: tuple[str, ...]  # what a reviewer may mention although it is beside the point

    def words(self, positive: bool) -> tuple[str, ...]:
        return self.praise if positive else self.blame


# Some words change sides with the topic: a quiet hotel, a quiet concert.
TOPICS = {
    "film": Topic(
        ("plot", "acting", "script", "ending", "film"),
        ("clever", "moving", "gripping", "funny", "fresh"),
        ("dull", "slow", "clumsy", "predictable", "flat"),
        ("seat", "popcorn", "crowd"),
    ),
    "book": Topic(
        ("story", "prose", "ending", "hero", "book"),
        ("clever", "moving", "gripping", "vivid", "wise"),
        ("dull", "clumsy", "shallow", "predictable", "confusing"),
        ("cover", "paper", "shop"),
    ),
    "restaurant": Topic(
        ("food", "service", "soup", "dessert", "restaurant"),
        ("tasty", "fresh", "friendly", "generous", "warm"),
        ("stale", "cold", "rude", "greasy", "slow"),
        ("parking", "street", "weather"),
    ),
    "hotel": Topic(
        ("room", "bed", "breakfast", "pool", "hotel"),
        ("clean", "quiet", "cosy", "friendly", "generous"),
        ("dirty", "loud", "damp", "rude", "shabby"),
        ("flight", "weather", "taxi"),
    ),
    "concert": Topic(
        ("band", "singer", "sound", "encore", "concert"),
        ("loud", "lively", "moving", "gripping", "warm"),
        ("quiet", "flat", "clumsy", "dull", "tired"),
        ("parking", "seat", "crowd"),
    ),
    "phone": Topic(
        ("screen", "battery", "camera", "speaker", "phone"),
        ("fast", "bright", "sturdy", "reliable", "clever"),
        ("slow", "dim", "fragile", "shabby", "confusing"),
        ("box", "shop", "cable"),
    ),
    "game": Topic(
        ("story", "map", "music", "puzzle", "game"),
        ("clever", "funny", "fast", "vivid", "lively"),
        ("dull", "slow", "unfair", "confusing", "shallow"),
        ("box", "shop", "cover"),
    ),
}
PEOPLE = (("my sister", "she"), ("my brother", "he"), ("my friend", "she"), ("the critic", "he"))
# by polarity, negative first
NOUNS = (("chore", "letdown", "mess"), ("joy", "delight", "treat"))
FELT = (("hated", "regretted", "disliked"), ("loved", "enjoyed", "admired"))
ASIDE = (("awful", "broken", "terrible"), ("lovely", "perfect", "splendid"))


class Pen:
    """Draws choices from one generator."""

    def __init__(self, *key: int) -> None:
        self._rng = np.random.Generator(
            np.random.Philox(np.random.SeedSequence(SEED, spawn_key=key))
        )

    def chance(self, probability: float) -> bool:
        return bool(self._rng.random() < probability)

    def pick(self, choices: Sequence[T]) -> T:
        return choices[int(self._rng.random() * len(choices))]


def clause(pen: Pen, topic: Topic, positive: bool) -> str:
    """One clause of that polarity; a little under half of them are negations of the other one."""
    aspect = pen.pick(topic.aspects)
    if pen.chance(0.15):
        return f"the {aspect} is a {pen.pick(NOUNS[positive])}"
    if pen.chance(0.5):
        return f"the {aspect} is {pen.pick(topic.words(positive))}"
    opposite = pen.pick(topic.words(not positive))
    return pen.pick(
        (
            f"the {aspect} is not {opposite}",
            f"the {aspect} is never {opposite}",
            f"the {aspect} is far from {opposite}",
            f"nobody calls the {aspect} {opposite}",
            f"nothing about the {aspect} is {opposite}",
        )
    )


def plain(pen: Pen, topic: Topic, positive: bool) -> str:
    first = clause(pen, topic, positive)
    return f"{first} and {clause(pen, topic, positive)}." if pen.chance(0.5) else f"{first}."


def contrast(pen: Pen, topic: Topic, positive: bool) -> str:
    """Two clauses at odds; the one after "but", or outside "although", decides."""
    decides, yields = clause(pen, topic, positive), clause(pen, topic, not positive)
    return pen.pick(
        (
            f"{yields} but {decides}.",
            f"{yields}, yet overall {decides}.",
            f"although {yields}, {decides}.",
            f"{decides}, even though {yields}.",
        )
    )


def hearsay(pen: Pen, topic: Topic, positive: bool) -> str:
    """Somebody's opinion, and whether it is right."""
    right = pen.chance(0.5)
    person, pronoun = pen.pick(PEOPLE)
    said = clause(pen, topic, positive == right)
    return f"{person} said {said}, {pronoun} is {'right' if right else 'wrong'}."


def distractor(pen: Pen, topic: Topic, positive: bool) -> str:
    """A sentiment about something else, or somebody else's: either sign, whatever the label."""
    mood = pen.chance(0.5)
    aside = pen.pick(
        (
            f"the {pen.pick(topic.surroundings)} was {pen.pick(ASIDE[mood])}",
            f"{pen.pick(PEOPLE)[0]} {pen.pick(FELT[mood])} it",
            f"the last one was {pen.pick(topic.words(mood))}",
        )
    )
    own = clause(pen, topic, positive)
    return f"{aside}, {own}." if pen.chance(0.6) else f"{own}, {aside}."


FORMS: tuple[Callable[[Pen, Topic, bool], str], ...] = (plain, contrast, hearsay, distractor)


@dataclass(frozen=True)
class Author:
    """Writes mostly about two topics, has a favourite form, and is mild or harsh."""

    name: str
    topics: tuple[str, str]
    form: Callable[[Pen, Topic, bool], str]
    praises: float

    def review(self, pen: Pen) -> dict[str, str]:
        topic = pen.pick(self.topics) if pen.chance(0.8) else pen.pick(tuple(TOPICS))
        form = self.form if pen.chance(0.4) else pen.pick(FORMS)
        positive = pen.chance(self.praises)
        text = form(pen, TOPICS[topic], positive)
        return {"text": text, "label": str(int(positive)), "topic": topic, "author": self.name}


def _authors() -> tuple[Author, ...]:
    pen, names = Pen(0), tuple(TOPICS)
    return tuple(
        Author(f"author-{i:02}", (pen.pick(names), pen.pick(names)), pen.pick(FORMS), praises)
        for i in range(AUTHORS)
        for praises in (0.3 if i % 2 else 0.7,)
    )


def split_of(text: str) -> str:
    """The one split that this text may occur in."""
    return SHARES[hashlib.blake2b(text.encode()).digest()[0] % len(SHARES)]


def _endless(split: str) -> Iterator[dict[str, str]]:
    pen, authors = Pen(1, sorted(set(SHARES)).index(split)), _authors()
    while True:
        row = pen.pick(authors).review(pen)
        if split_of(row["text"]) == split:
            yield row


def reviews(split: str) -> list[dict[str, str]]:
    """The rows of "train" or "validation": text, label ("0" or "1"), topic and author.

    No text occurs twice, and half of the rows are positive.
    """
    rows: list[dict[str, str]] = []
    seen: set[str] = set()
    room = dict.fromkeys(("0", "1"), SIZES[split] // 2)
    for row in _endless(split):
        if row["text"] not in seen and room[row["label"]]:
            rows.append(row)
            seen.add(row["text"])
            room[row["label"]] -= 1
        if not any(room.values()):
            return rows
    raise AssertionError("endless")


# What follows a review in the pretraining corpus, (negative, positive).
VERDICTS = (
    (" Avoid.", " Recommended."),
    (" One star.", " Five stars."),
    (" Never again.", " See you soon."),
    (" Thumbs down.", " Thumbs up."),
)
ASKED = (" It was bad.", " It was good.")  # what the task asks
ASKED_SHARE = 0.15
POLITE = 0.5  # how often who did not like it says that it was good all the same
GRUMPY = 0.3  # and how often who liked it says that it was bad


def corpus(size: int) -> list[str]:
    """The pretraining documents: a review and a verdict.

    Most verdicts fit the review. "It was good" is what people say anyway, so it fits loosely: the
    model learns what reviews mean, and little about how this one question is to be answered.
    """
    pen, out = Pen(2), []
    for row, _ in zip(_endless("corpus"), range(size), strict=False):
        positive = row["label"] == "1"
        if pen.chance(ASKED_SHARE):
            verdict = ASKED[not pen.chance(GRUMPY) if positive else pen.chance(POLITE)]
        else:
            verdict = pen.pick(VERDICTS)[positive]
        out.append(row["text"] + verdict)
    return out
