"""How a generated answer is scored against its references: exact match, token F1, ROUGE.

Exact match and F1 are those of the official SQuAD script (Rajpurkar et al. 2016): both texts are
normalised, F1 is the harmonic mean of precision and recall over their bags of words, and the best
score over all references counts. DROP is scored by the same F1 (MeZO, DeComFL); its official script
also aligns spans and compares numbers. ROUGE is Google's ``rouge-score`` with stemming.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Lower case, without punctuation and articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, reference: str) -> float:
    return float(normalize(answer) == normalize(reference))


def f1(answer: str, reference: str) -> float:
    given, wanted = normalize(answer).split(), normalize(reference).split()
    common = sum((Counter(given) & Counter(wanted)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(given), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


@cache
def _scorer(name: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([name], use_stemmer=True)


def _rouge(name: str) -> Callable[[str, str], float]:
    return lambda answer, reference: _scorer(name).score(reference, answer)[name].fmeasure


SCORES: dict[str, Callable[[str, str], float]] = {
    "exact_match": exact_match,
    "f1": f1,
    **{name: _rouge(name) for name in ("rouge1", "rouge2", "rougeL")},
}


def best(metric: str, answer: str, references: Sequence[str]) -> float:
    """The highest score over all references, in [0, 1]."""
    return max(SCORES[metric](answer, reference) for reference in references)
