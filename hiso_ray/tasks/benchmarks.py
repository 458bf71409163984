"""The language tasks as data: adding a task is adding a row to ``BENCHMARKS``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Benchmark:
    """A prompt classification task.

    Attributes:
        data, config: the Hugging Face dataset this task is by default, and its configuration.
        splits: names of the training and the evaluation split; the first that exists is taken.
        columns: column names of a local file without a header, in order.
        fields: how each field of the prompt is made of columns; the first alternative whose
            columns all exist is taken.
        labels: for each possible label column, its values in class order.
        prompt: what stands before the answer; the model is scored on the next token.
        verbalizers: the answer of each class, in class order. The first set whose answers are
            single, distinct tokens under the model's tokenizer is taken.
    """

    data: str
    config: str | None
    splits: tuple[tuple[str, ...], tuple[str, ...]]
    columns: tuple[str, ...]
    fields: dict[str, tuple[str, ...]]
    labels: dict[str, tuple[str, ...]]
    prompt: str
    verbalizers: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]


BENCHMARKS = {
    # Socher et al. 2013; prompt and verbalizers as in MeZO (arXiv 2305.17333) and DeComFL.
    "sst2": Benchmark(
        data="nyu-mll/glue",
        config="sst2",
        splits=(("train",), ("validation", "dev")),
        columns=("text", "label"),
        fields={"text": ("{text}", "{sentence}")},
        labels={"label": ("0", "1")},
        prompt="{text} It was",
        verbalizers=((" bad", " good"),),
        names=("negative", "positive"),
    ),
    # Zhang et al. 2015; the hub counts classes from 0, the original CSV files from 1.
    "ag_news": Benchmark(
        data="fancyzhx/ag_news",
        config=None,
        splits=(("train",), ("test",)),
        columns=("class", "title", "description"),
        fields={"text": ("{text}", "{title} {description}", "{Title} {Description}")},
        labels={
            "label": ("0", "1", "2", "3"),
            "class": ("1", "2", "3", "4"),
            "Class Index": ("1", "2", "3", "4"),
        },
        prompt="{text} This is about",
        verbalizers=(
            (" world", " sports", " business", " technology"),
            (" world", " game", " money", " tech"),
        ),
        names=("World", "Sports", "Business", "Sci/Tech"),
    ),
}
