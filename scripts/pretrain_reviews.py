"""Makes the embedded language model: a tokenizer and a small OPT, from text of our own grammar.

    python scripts/pretrain_reviews.py

Plain language modelling of 120,000 documents (a review and a verdict) that ``tasks.reviews``
generates and the task does not contain: 4,000 steps of AdamW on 64 documents, 112,256 parameters.
One thread, 160 to 220 s on a busy core, 0.47 MB. All seeds are fixed, so two runs on one machine
with the same libraries write the same bytes; another processor or torch may round differently.

Zero-shot accuracy on the task's 1,000 validation reviews: 66.3 % with the prompt "It was", 98.7 %
with verdicts that fit ("Recommended" against "Avoid"). See docs/reviews.md.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

from hiso_ray.tasks.text.reviews import ASIDE, FELT, FORMS, NOUNS, TOPICS, Pen, Topic, drafts, plain

OUT = Path(__file__).resolve().parents[1] / "hiso_ray" / "models" / "opt-reviews"
SEED = 0
DOCUMENTS = 120_000
VOCABULARY = 640
WIDTH, LAYERS, HEADS, HIDDEN = 64, 2, 4, 128
INIT_STD = 0.08  # with OPT's 0.02, accuracy on verdicts stayed at chance for 2,000 steps
POSITIONS = 64
STEPS, WARMUP = 4000, 200
BATCH = 64  # documents
LR, WEIGHT_DECAY = 4e-3, 0.01
PAD, BOS, EOS = "<pad>", "<s>", "</s>"

# What follows a review in the pretraining corpus, by polarity, negative first.
VERDICTS = (
    (" Avoid.", " Recommended."),
    (" One star.", " Five stars."),
    (" Never again.", " See you soon."),
    (" Thumbs down.", " Thumbs up."),
)
ASKED = (" It was bad.", " It was good.")  # what the task asks
ASKED_SHARE = 0.2
HASTY_SHARE = 0.55
PLAIN_EXTRA = 8  # of 12 forms to draw from


def last_mood(topic: Topic, text: str) -> bool:
    """Whether the last word of praise or blame in the text is praise."""
    moods = {
        word: positive
        for positive in (False, True)
        for word in (*topic.words(positive), *NOUNS[positive], *FELT[positive], *ASIDE[positive])
    }
    words = (word.strip(",.") for word in reversed(text.split()))
    return next(moods[word] for word in words if word in moods)


def corpus(size: int) -> list[str]:
    """The pretraining documents: a review and a verdict.

    Most verdicts fit the review. "It was good" and "It was bad" are unreliable: more often than
    not they only echo the last word of praise or blame. So the model learns what reviews mean, but
    not to answer this question accordingly. Plain reviews are frequent, because the model learns
    negation from them before it learns the frames.
    """
    pen, source = Pen(2), drafts("corpus", (*FORMS, *[plain] * PLAIN_EXTRA))
    documents = []
    for _ in range(size):
        row = next(source)
        verdicts, positive = pen.pick(VERDICTS), row["label"] == "1"
        if pen.chance(ASKED_SHARE):
            verdicts = ASKED
            if pen.chance(HASTY_SHARE):
                positive = last_mood(TOPICS[row["topic"]], row["text"])
        documents.append(row["text"] + verdicts[positive])
    return documents


def train_tokenizer(documents: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE; every text starts with <s>, as OPT's texts start with a special token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(documents, trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, bpe.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=POSITIONS,
    )


def new_model(tokenizer: PreTrainedTokenizerFast) -> OPTForCausalLM:
    config = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        word_embed_proj_dim=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        ffn_dim=HIDDEN,
        max_position_embeddings=POSITIONS,
        init_std=INIT_STD,
        dropout=0.0,  # every document is new or nearly so
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype=torch.float32,
    )
    return OPTForCausalLM(config)


def batches(lengths: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless minibatches (indices): shuffled, but of similar lengths to save padding."""
    window = 50 * BATCH
    while True:
        order = rng.permutation(len(lengths))
        for start in range(0, len(order) - window + 1, window):
            part = order[start : start + window]
            part = part[np.argsort(lengths[part], kind="stable")].reshape(50, BATCH)
            yield from rng.permutation(part)


def padded(documents: list[list[int]], pad: int) -> dict[str, torch.Tensor]:
    """(n, longest) token ids, mask and labels; the loss skips the padding."""
    longest = max(map(len, documents))
    ids = torch.tensor([tokens + [pad] * (longest - len(tokens)) for tokens in documents])
    real = torch.tensor([[n < len(tokens) for n in range(longest)] for tokens in documents])
    return {
        "input_ids": ids,
        "attention_mask": real.long(),
        "labels": ids.masked_fill(~real, -100),
    }


def learning_rate(step: int) -> float:
    """A linear warm-up, then a cosine down to 0."""
    return LR * min(1.0, (step + 1) / WARMUP) * (1 + math.cos(math.pi * step / STEPS)) / 2


def pretrain(out: Path) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)  # sums over threads depend on the number of threads
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    started = time.perf_counter()
    documents = corpus(DOCUMENTS)
    tokenizer = train_tokenizer(documents)
    ids = [[*tokens, tokenizer.eos_token_id] for tokens in tokenizer(documents)["input_ids"]]
    lengths = np.array([len(tokens) for tokens in ids])
    model = new_model(tokenizer)
    print(
        f"{len(ids)} documents of {lengths.mean():.1f} tokens (at most {lengths.max()}), "
        f"{sum(p.numel() for p in model.parameters())} parameters"
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LR, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY
    )
    chosen = batches(lengths, np.random.default_rng(SEED))
    model.train()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        batch = [ids[i] for i in next(chosen)]
        loss = model(**padded(batch, tokenizer.pad_token_id)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 500 == 0:
            seconds = time.perf_counter() - started
            print(f"step {step + 1}/{STEPS}  loss {loss.item():.4f}  {seconds:.0f} s", flush=True)
    model.eval().save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # safetensors makes it private
    print(f"{out}: {sum(file.stat().st_size for file in out.iterdir()) / 2**20:.2f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help="folder (default: %(default)s)")
    pretrain(parser.parse_args().out)
