"""The description of a language task."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The fields that every language task has.

    Attributes:
        data, config: the default Hugging Face dataset, and its configuration.
        splits: possible names of the training and the evaluation split; the first that exists is
            used. A file's whole name may be one.
        divided: whether a source with only one split is divided.
        columns: column names of a local file without a header, in order.
        fields: templates that make each prompt field from columns; the first alternative whose
            columns all exist is used ("!l" lower-cases). Surrounding white space is removed. If
            the last alternative is "", the field may be missing or empty.
        may_be_empty: fields that may be empty even if their columns exist.
        prompt: the text before the answer.
        without_context: the prompt of an example whose context is empty, if different.
        context: the field that is truncated on the left when a prompt is too long.
        train_examples, eval_examples: how many of the first rows are used; None means all.
        max_length: longest sequence, the answer included [tokens].
        metrics: what evaluation measures; the first is the default of ``task.metric``.
    """

    data: str
    config: str | None = None
    splits: tuple[tuple[str, ...], tuple[str, ...]] = (
        ("train",),
        ("validation", "valid", "dev", "val"),
    )
    divided: bool = True
    columns: tuple[str, ...] = ()
    fields: dict[str, tuple[str, ...]]
    may_be_empty: tuple[str, ...] = ()
    prompt: str
    without_context: str | None = None
    context: str
    train_examples: int | None = None
    eval_examples: int | None = None
    max_length: int = 2048
    metrics: tuple[str, ...] = ("accuracy",)


@dataclass(frozen=True, kw_only=True)
class Classification(Benchmark):
    """The model is scored on the one token after the prompt, among the classes' answers.

    Attributes:
        labels: for each possible label column, the spellings of its classes, in class order;
            "|" separates spellings of the same class.
        verbalizers: sets of answers, one per class in class order. The first set whose answers are
            single, distinct tokens under the model's tokenizer is used.
        names: names of the classes.
    """

    labels: dict[str, tuple[str, ...]]
    verbalizers: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Generation(Benchmark):
    """The model is trained on the tokens of the first reference, and scored on what it generates.

    Attributes:
        references: possible columns of the references, or "column.key" of a nested one; the first
            that exists is used.
        answer: template of a reference after the prompt. "{end}" is the model's end-of-text token;
            without it an answer ends with its first line.
        max_new_tokens: limit of greedy decoding, and of the answers trained on [tokens].
    """

    references: tuple[str, ...]
    answer: str = " {reference}\n"
    max_new_tokens: int
    train_examples: int | None = 1000
    eval_examples: int | None = 100
    metrics: tuple[str, ...] = ("f1", "exact_match")

    @property
    def one_line(self) -> bool:
        return "{end}" not in self.answer
