"""Short reviews written by a grammar: the text of the embedded language task.

A clause speaks about one aspect of a topic, plainly ("the plot is clever") or turned round by a
negation ("the plot is never dull"). A review sets one or two clauses in a frame, and the frame
says which of them decides: the one after "but", not the one after "although", not what is said
about something else; whoever reports an opinion adds whether it is right. So single words say
next to nothing: "dull" is praise as often as blame.

Everything is a function of ``SEED``. A hash of the text decides which split it may be in, so no
text is in two splits, and none that the model was pretrained on is in either of the task's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

SEED = 2506_02370  # any constant would do
SIZES = {"train": 6000, "validation": 1000}
SPLITS = ("corpus", "train", "validation")
SHARES = ("corpus", "corpus", "train", "validation")  # a text's hash points at one of these
AUTHORS = 48

T = TypeVar("T")


@dataclass(frozen=True)
class Topic:
    """What reviews of one kind of thing talk about, and in which words."""

    aspects: tuple[str, ...]
    blame: tuple[str, ...]
    praise: tuple[str, ...]
    surroundings: tuple[str, ...]  # mentioned at times, and beside the point

    def words(self, positive: bool) -> tuple[str, ...]:
        return self.praise if positive else self.blame


# "quiet" and "loud" change sides between a hotel and a concert.
TOPICS = {
    "film": Topic(
        ("plot", "acting", "script", "ending", "film"),
        ("dull", "slow", "clumsy", "predictable", "flat"),
        ("clever", "moving", "gripping", "funny", "fresh"),
        ("seat", "popcorn", "crowd"),
    ),
    "book": Topic(
        ("story", "prose", "ending", "hero", "book"),
        ("dull", "clumsy", "shallow", "predictable", "confusing"),
        ("clever", "moving", "gripping", "vivid", "wise"),
        ("cover", "paper", "shop"),
    ),
    "restaurant": Topic(
        ("food", "soup", "bread", "dessert", "sauce"),
        ("stale", "cold", "bland", "greasy", "sour"),
        ("tasty", "fresh", "warm", "spicy", "rich"),
        ("parking", "street", "weather"),
    ),
    "hotel": Topic(
        ("room", "bath", "lobby", "pool", "hotel"),
        ("dirty", "loud", "damp", "shabby", "cramped"),
        ("clean", "quiet", "cosy", "modern", "warm"),
        ("flight", "weather", "taxi"),
    ),
    "concert": Topic(
        ("band", "singer", "sound", "encore", "concert"),
        ("quiet", "flat", "clumsy", "dull", "tired"),
        ("loud", "lively", "moving", "gripping", "warm"),
        ("parking", "seat", "crowd"),
    ),
    "phone": Topic(
        ("screen", "battery", "camera", "speaker", "phone"),
        ("slow", "faulty", "fragile", "shabby", "weak"),
        ("fast", "sturdy", "modern", "reliable", "handy"),
        ("box", "shop", "cable"),
    ),
    "game": Topic(
        ("story", "map", "music", "puzzle", "game"),
        ("dull", "slow", "unfair", "confusing", "shallow"),
        ("clever", "funny", "fast", "vivid", "lively"),
        ("box", "shop", "cover"),
    ),
}
# by polarity, negative first
NOUNS = (("chore", "letdown", "mess"), ("joy", "delight", "treat"))
FELT = (("hated", "regretted", "disliked"), ("loved", "enjoyed", "admired"))
ASIDE = (("awful", "broken", "terrible"), ("lovely", "perfect", "splendid"))
PEOPLE = (("my sister", "she"), ("my brother", "he"), ("my friend", "she"), ("the critic", "he"))


class Pen:
    """Draws choices from the stream of one key."""

    def __init__(self, *key: int) -> None:
        seeds = np.random.SeedSequence(SEED, spawn_key=key)
        self._rng = np.random.Generator(np.random.Philox(seeds))

    def chance(self, probability: float) -> bool:
        return bool(self._rng.random() < probability)

    def pick(self, choices: Sequence[T]) -> T:
        return choices[int(self._rng.random() * len(choices))]

    def two(self, choices: Sequence[T]) -> tuple[T, T]:
        first = self.pick(choices)
        return first, self.pick([c for c in choices if c != first])


def clause(pen: Pen, topic: Topic, aspect: str, positive: bool) -> str:
    """One clause of that polarity; a little under half of them negate the other one."""
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
    """One clause, or two that agree."""
    one, two = (clause(pen, topic, aspect, positive) for aspect in pen.two(topic.aspects))
    return f"{one}." if pen.chance(0.5) else f"{one} and {two}."


def contrast(pen: Pen, topic: Topic, positive: bool) -> str:
    """Two clauses at odds; the one after "but", or outside "although", decides."""
    aspect, other = pen.two(topic.aspects)
    decides = clause(pen, topic, aspect, positive)
    yields = clause(pen, topic, other, not positive)
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
    said = clause(pen, topic, pen.pick(topic.aspects), positive == right)
    return f"{person} said {said}, {pronoun} is {'right' if right else 'wrong'}."


def distractor(pen: Pen, topic: Topic, positive: bool) -> str:
    """A feeling about something else, or somebody else's: either sign, whatever the label."""
    mood = pen.chance(0.5)
    aside = pen.pick(
        (
            f"the {pen.pick(topic.surroundings)} was {pen.pick(ASIDE[mood])}",
            f"{pen.pick(PEOPLE)[0]} {pen.pick(FELT[mood])} it",
            f"the last one was {pen.pick(topic.words(mood))}",
        )
    )
    own = clause(pen, topic, pen.pick(topic.aspects), positive)
    return f"{aside}, {own}." if pen.chance(0.6) else f"{own}, {aside}."


Form = Callable[[Pen, Topic, bool], str]
FORMS: tuple[Form, ...] = (plain, contrast, hearsay, distractor)


@dataclass(frozen=True)
class Author:
    """Writes mostly about two topics, has a favourite form, and praises often or seldom."""

    name: str
    topics: tuple[str, str]
    form: Form
    praises: float

    def review(self, pen: Pen, forms: tuple[Form, ...]) -> dict[str, str]:
        topic = pen.pick(self.topics) if pen.chance(0.8) else pen.pick(tuple(TOPICS))
        form = self.form if pen.chance(0.4) else pen.pick(forms)
        positive = pen.chance(self.praises)
        text = form(pen, TOPICS[topic], positive)
        return {"text": text, "label": str(int(positive)), "topic": topic, "author": self.name}


def _authors() -> list[Author]:
    pen, names = Pen(0), tuple(TOPICS)
    return [
        Author(f"author-{i:02}", pen.two(names), pen.pick(FORMS), praises=(0.7, 0.3)[i % 2])
        for i in range(AUTHORS)
    ]


def split_of(text: str) -> str:
    """The one split that this text may occur in."""
    return SHARES[hashlib.blake2b(text.encode()).digest()[0] % len(SHARES)]


def drafts(split: str, forms: tuple[Form, ...] = FORMS) -> Iterator[dict[str, str]]:
    """Rows of one split (:func:`split_of`) without end, some of them more than once.

    Args:
        forms: what an author picks from when it is not the favourite; a form may be repeated.
    """
    pen, authors = Pen(1, SPLITS.index(split)), _authors()
    while True:
        row = pen.pick(authors).review(pen, forms)
        if split_of(row["text"]) == split:
            yield row


def reviews(split: str) -> list[dict[str, str]]:
    """The rows of "train" or "validation": text, label ("0" or "1"), topic and author.

    No text occurs twice, and half of the rows are positive.
    """
    rows: list[dict[str, str]] = []
    seen: set[str] = set()
    room = dict.fromkeys(("0", "1"), SIZES[split] // 2)
    source = drafts(split)
    while any(room.values()):
        row = next(source)
        if row["text"] not in seen and room[row["label"]]:
            rows.append(row)
            seen.add(row["text"])
            room[row["label"]] -= 1
    return rows
