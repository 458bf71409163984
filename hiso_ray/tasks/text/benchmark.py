"""What a language task says of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What every language task says of itself.

    Attributes:
        data, config: the Hugging Face dataset this task is by default, and its configuration.
        splits: names of the training and the evaluation split; the first that exists is taken. A
            file's whole name is a name too.
        divided: whether a source with one split only is divided.
        columns: column names of a local file without a header, in order.
        fields: how each field of the prompt is made of columns; the first alternative whose
            columns all exist is taken ("!l" lower-cases). White space around it is dropped. With
            "" as the last one, the field may be missing or empty.
        may_be_empty: fields that may be empty where their columns are there.
        prompt: what stands before the answer.
        without_context: the prompt of an example whose context is empty, if it is another.
        context: the field that loses its beginning when a prompt is too long.
        train_examples, eval_examples: how many of the first rows are taken; None is all.
        max_length: longest sequence, the answer included [tokens].
        metrics: what evaluation measures; the first is what the task goes by.
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
        verbalizers: the answer of each class, in class order. The first set whose answers are
            single, distinct tokens under the model's tokenizer is taken.
        names: names of the classes.
    """

    labels: dict[str, tuple[str, ...]]
    verbalizers: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Generation(Benchmark):
    """The model is trained on the tokens of the first reference, and scored on what it writes.

    Attributes:
        references: where the references are, as a column or "column.key" of a nested one; the
            first that exists is taken.
        answer: how a reference is written after the prompt. "{end}" is the model's end-of-text
            token; without it an answer ends with its first line.
        max_new_tokens: budget of greedy decoding, and longest answer trained on [tokens].
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
