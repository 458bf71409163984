"""Truncation from the left of the context, and the cache of token ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiso_ray import Experiment, tasks
from hiso_ray.tasks.text.tokens import Tokens, continuations, tokenize

TEXT = "Read alpha beta gamma delta then answer now"
CONTEXT = (5, 27)  # alpha beta gamma delta


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HISO_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def words(template: str | None = "<s> $A", extra: str = "") -> Any:
    """One token per word; by default a first token that the tokenizer adds itself."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["<s>", "</s>", "<unk>", *f"{TEXT} {extra}".split()]
    level = models.WordLevel({word: i for i, word in enumerate(vocabulary)}, "<unk>")
    tokenizer = Tokenizer(level)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if template is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[("<s>", 0), ("</s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def read(tokenizer: Any, found: Tokens, row: int = 0) -> str:
    ids = found.ids[found.offsets[row] : found.offsets[row + 1]]
    return " ".join(tokenizer.convert_ids_to_tokens(ids.tolist()))


class Counting:
    """A tokenizer that counts its calls."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.calls = tokenizer, 0
        self.backend_tokenizer = tokenizer.backend_tokenizer

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        return self.tokenizer(*args, **options)


# truncation


@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        (10, "<s> Read alpha beta gamma delta then answer now"),
        (9, "<s> Read alpha beta gamma delta then answer now"),
        (8, "<s> Read beta gamma delta then answer now"),
        (6, "<s> Read delta then answer now"),
        (5, "<s> Read then answer now"),
        (4, "<s> then answer now"),  # the context is used up: the rest loses its beginning
        (2, "<s> now"),
    ],
)
def test_a_long_prompt_loses_the_beginning_of_its_context(limit: int, kept: str) -> None:
    tokenizer = words()
    found = tokenize([TEXT], [CONTEXT], tokenizer, limit)
    assert read(tokenizer, found) == kept
    assert found.lengths().tolist() == [min(9, limit)]
    assert found.cut.tolist() == [limit < 9]


@pytest.mark.parametrize(
    ("template", "kept"),
    [
        (None, "Read delta then answer now"),
        ("<s> $A </s>", "<s> Read then answer now"),  # the answer follows, not the end
    ],
)
def test_special_tokens_are_counted_and_kept(template: str | None, kept: str) -> None:
    tokenizer = words(template)
    assert read(tokenizer, tokenize([TEXT], [CONTEXT], tokenizer, len(kept.split()))) == kept


def byte_pairs(trim: bool) -> Any:
    """Spaces belong to the word after them, line ends to the stop before them (Llama 3, Qwen)."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    pieces = Regex(r" ?\p{L}+| ?[^\s\p{L}]+[\r\n]*|\s")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pieces, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.post_processor = processors.ByteLevel(trim_offsets=trim)
    trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(["Text: one two three.\nTrue or not?\n"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe)


@pytest.mark.parametrize("trim", [True, False])
def test_tokens_that_reach_over_the_edges_of_the_context(trim: bool) -> None:
    # Trap: the space before the context is its first word's, the line end after it the last one's.
    tokenizer = byte_pairs(trim)
    text = "Text: one two three.\nTrue or not?\n"
    whole = [tokenizer.decode([t]) for t in tokenizer(text)["input_ids"]]
    assert whole == ["Text", ":", " one", " two", " three", ".\n", "True", " or", " not", "?\n"]
    for limit, kept in (
        (9, "Text: two three.\nTrue or not?\n"),
        (8, "Text: three.\nTrue or not?\n"),
        (7, "Text:.\nTrue or not?\n"),
        (6, ":.\nTrue or not?\n"),
    ):
        found = tokenize([text], [(6, 20)], tokenizer, limit)
        assert tokenizer.decode(found.ids) == kept


def test_answers_get_no_special_tokens_and_lose_their_end() -> None:
    tokenizer = words("<s> $A </s>")
    found = tokenize([TEXT, "now"], None, tokenizer, 3)
    assert [read(tokenizer, found, row) for row in (0, 1)] == ["Read alpha beta", "now"]
    assert found.cut.tolist() == [True, False]


def test_sequences_lie_end_to_end() -> None:
    # More than one call of the tokenizer: each text keeps its own context.
    tokenizer = words()
    texts = ["alpha now", "now", *["alpha beta now"] * 1000, TEXT]
    contexts = [(0, 5), (0, 0), *[(6, 10)] * 1000, CONTEXT]
    found = tokenize(texts, contexts, tokenizer, 3)
    assert found.ids.dtype == np.int32
    assert found.offsets.dtype == np.int64
    assert found.offsets[:4].tolist() == [0, 3, 5, 8]
    assert found.lengths().tolist() == [3, 2, *[3] * 1000, 3]
    assert found.offsets[-1] == len(found.ids)
    rows = [read(tokenizer, found, row) for row in range(len(texts))]
    wanted = ["<s> alpha now", "<s> now", *["<s> alpha now"] * 1000, "<s> answer now"]
    assert rows == wanted
    assert found.cut.tolist() == [False, False, *[True] * 1000, True]


def test_the_share_truncated_is_told(language: Callable[..., Experiment], tmp_path: Path) -> None:
    for name in ("train", "dev"):
        short, long = "a bad film\t0\n", f"a {'very ' * 30}good film\t1\n"
        (tmp_path / f"{name}.tsv").write_text(short * 3 + long)
    e = language(**{"task.data": str(tmp_path), "task.max_length": 20})
    notes = " ".join(tasks.prepare(tasks.resolve(e)).notes)
    assert "4 training and 4 evaluation prompts, answers ' bad', ' good'" in notes
    assert "25.0% longer than 20 tokens, their text truncated on the left" in notes


# the cache


def test_a_second_call_reads_the_cache(cache: Path) -> None:
    tokenizer = Counting(words())
    first = tokenize([TEXT], [CONTEXT], tokenizer, 6)
    assert tokenizer.calls == 1
    second = tokenize([TEXT], [CONTEXT], tokenizer, 6)
    assert tokenizer.calls == 1
    for name, array in vars(first).items():
        assert np.array_equal(getattr(second, name), array)
        assert getattr(second, name).dtype == array.dtype
    assert [file.suffix for file in cache.iterdir()] == [".safetensors"]


def test_whatever_decides_the_tokens_is_in_the_key(cache: Path) -> None:
    plain, other, added = words(), words(extra="more"), words("<s> $A </s>")
    calls: list[Any] = [
        ([TEXT], [CONTEXT], plain, 6),
        ([f"{TEXT} now"], [CONTEXT], plain, 6),
        ([TEXT], [(5, 10)], plain, 6),
        ([TEXT], None, plain, 6),
        ([TEXT], [CONTEXT], plain, 7),
        ([TEXT], [CONTEXT], other, 6),
        ([TEXT], [CONTEXT], added, 6),
    ]
    for count, arguments in enumerate(calls, start=1):
        tokenize(*arguments)
        assert len(list(cache.iterdir())) == count
    for arguments in calls:
        tokenize(*arguments)
    assert len(list(cache.iterdir())) == len(calls)


@pytest.mark.parametrize("damage", ["torn", "empty", "foreign"])
def test_a_damaged_file_is_made_anew(cache: Path, damage: str) -> None:
    from safetensors.numpy import save_file

    tokenizer = Counting(words())
    wanted = tokenize([TEXT], [CONTEXT], tokenizer, 6)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    if damage == "foreign":
        save_file({"ids": np.zeros(3, np.int32)}, file)
    else:
        file.write_bytes(whole[: len(whole) - 7] if damage == "torn" else b"")
    found = tokenize([TEXT], [CONTEXT], tokenizer, 6)
    assert tokenizer.calls == 2
    assert np.array_equal(found.ids, wanted.ids)
    assert file.read_bytes() == whole


@pytest.mark.parametrize("place", ["cache", "cache/tokens"])
def test_a_folder_that_cannot_be_made_does_not_stop_a_run(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("a file")
    assert tokenize([TEXT], [CONTEXT], words(), 6).lengths().tolist() == [6]
    assert (tmp_path / place).read_text() == "a file"


def test_a_full_or_read_only_disk_does_not_stop_a_run(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Trap: safetensors reports them as an error of its own, which is no OSError.
    from safetensors import SafetensorError

    def full(tensors: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    assert tokenize([TEXT], [CONTEXT], words(), 6).lengths().tolist() == [6]
    assert list(cache.iterdir()) == []


def test_without_a_setting_the_cache_is_in_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HISO_RAY_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    tokenize([TEXT], [CONTEXT], words(), 6)
    assert len(list((tmp_path / "home/.cache/hiso_ray/tokens").iterdir())) == 1


# what goes on with a text


def pieces(scheme: str) -> Any:
    """A tokenizer of whole words, with a space (▁) before every text unless ``scheme`` is never."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "▁", "x", "▁x", "▁bad", "▁good", "bad", "good", "▁very", "\n", "▁\n", "▁▁"]
    level = models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>")
    tokenizer = Tokenizer(level)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Metaspace(prepend_scheme=scheme),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.mark.parametrize("scheme", ["never", "always", "first"])
@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (" bad", ["▁bad"]),
        (" very good", ["▁very", "▁good"]),
    ],
)
def test_no_space_is_put_before_what_goes_on_with_a_text(
    scheme: str, text: str, tokens: list[str]
) -> None:
    tokenizer = pieces(scheme)
    (ids,) = continuations([text], tokenizer)
    assert tokenizer.convert_ids_to_tokens(ids) == tokens
    found = tokenize([text], None, tokenizer, 8)
    assert found.ids.tolist() == ids


def test_answers_are_single_tokens_where_a_space_is_put_before_every_text() -> None:
    from hiso_ray.tasks.language.classification import answer_tokens
    from hiso_ray.tasks.text.benchmark_row import Classification
    from hiso_ray.tasks.text.benchmarks import BENCHMARKS

    benchmark = BENCHMARKS["sst2"]
    assert isinstance(benchmark, Classification)
    tokenizer = pieces("always")
    found = answer_tokens(benchmark, tokenizer, "m")
    assert tokenizer.convert_ids_to_tokens(found) == ["▁bad", "▁good"]
