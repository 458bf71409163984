"""Shared ground of the tests: small experiments, a tiny real language model, one Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hiso_ray import Experiment, run

# `datasets` counts loads on a server, of local files too; without a network that takes seconds.
os.environ["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported: kernels run on the CPU

SHARED = Path(__file__).resolve().parents[2] / "shared"
WORDS = {"0": ["dull", "weak", "bad", "boring"], "1": ["warm", "good", "bright", "funny"]}


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real SST-2 and AG News files and small pretrained OPTs, where they are beside the clone."""
    if not SHARED.is_dir():
        pytest.skip("needs the real data and models of ../shared, which is absent")
    return SHARED


@pytest.fixture(autouse=True)
def token_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens are kept for the length of the tests, not in the home directory."""
    monkeypatch.setenv("HISO_RAY_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny matrices; threads that wait for a core taken by another process cost minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take nine tenths of a small run; a test that looks at them asks for ``pictures``."""
    if "pictures" not in request.fixturenames:
        _draw_nothing(monkeypatch)


def _draw_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("hiso_ray.analysis.curves.convergence", lambda *_: None)
    patch.setattr("hiso_ray.analysis.skew.who_holds_what", lambda *_: None)


@pytest.fixture
def pictures() -> None:
    """Runs draw what they always draw."""


@pytest.fixture
def experiment() -> Callable[..., Experiment]:
    """Digits, 12 clients, 3 a round, serial; dotted fields override."""

    def make(**dotted: Any) -> Experiment:
        small = {
            "federation.num_clients": 12,
            "federation.clients_per_round": 3,
            "federation.rounds": 6,
            "method.num_perturbations": 2,
            "task.name": "digits",
            "task.model": "mlp-8",
            "method.lr": 0.02,
            "resources.executor": "serial",
            "eval.every": 3,
        }
        return Experiment().changed(**(small | dotted))

    return make


@pytest.fixture(scope="session")
def sentences() -> list[tuple[str, str]]:
    rows = []
    for number in range(120):
        label = str(number % 2)
        word = WORDS[label][number // 2 % 4]
        rows.append((f"a {'very ' * (number % 5)}{word} film , number {number}", label))
    return rows


@pytest.fixture(scope="session")
def text_data(tmp_path_factory: pytest.TempPathFactory, sentences: list[tuple[str, str]]) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name, rows in (("train", sentences[:80]), ("dev", sentences[80:])):
        lines = "".join(f"{text}\t{label}\n" for text, label in rows)
        (folder / f"{name}.tsv").write_text(lines)
    return folder


@pytest.fixture(scope="session")
def make_opt(
    tmp_path_factory: pytest.TempPathFactory, sentences: list[tuple[str, str]]
) -> Callable[[int], Path]:
    """A folder with a random OPT of the given hidden size and a tokenizer trained on the spot."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

    def make(hidden: int) -> Path:
        folder = tmp_path_factory.mktemp(f"opt{hidden}")
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        text = [f"{t} It was {'good' if label == '1' else 'bad'}" for t, label in sentences]
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<pad>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        bpe.train_from_iterator(text, trainer)
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=bpe, pad_token="<pad>", eos_token="</s>", bos_token="</s>"
        )
        tokenizer.save_pretrained(folder)
        config = OPTConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            word_embed_proj_dim=hidden,
            ffn_dim=2 * hidden,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
            dropout=0.5,  # must play no part: evaluation mode always
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=1,
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            OPTForCausalLM(config).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_opt(make_opt: Callable[[int], Path]) -> Path:
    return make_opt(16)


@pytest.fixture
def language(
    experiment: Callable[..., Experiment], tiny_opt: Path, text_data: Path
) -> Callable[..., Experiment]:
    """SST-2 style classification of the generated sentences with the tiny OPT."""

    def make(**dotted: Any) -> Experiment:
        base = {
            "task.name": "sst2",
            "task.model": str(tiny_opt),
            "task.data": str(text_data),
            "task.batch_size": 4,
            "method.lr": 1e-3,
        }
        return experiment(**(base | dotted))

    return make


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local cluster of 4 CPUs and 2 emulated GPUs for every test that needs Ray."""
    from hiso_ray.execution.cluster import session  # decides where Ray's servers listen

    session.ray.init(
        address="local",
        num_cpus=4,
        num_gpus=2,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    yield
    session.ray.shutdown()


@pytest.fixture(scope="session")
def swept() -> Callable[..., Path]:
    """Runs a ready sweep in tiny, its trials one after the other in this process and without
    pictures: on Ray and with Matplotlib it takes ten times as long, and gives the same tables."""
    from hiso_ray.sweeps import folder, run_sweep
    from hiso_ray.sweeps.ready import READY

    def make(name: str, out: Path, **changes: Any) -> Path:
        sweep = READY[name].smoked().changed({"resources.executor": "serial", **changes})
        with pytest.MonkeyPatch.context() as patch:
            _draw_nothing(patch)
            for trial in sweep.trials():
                run(trial.experiment, folder.run_folder(out, trial))
        folder.write_plan(out, sweep)
        run_sweep(sweep, out, resume=True)
        return out

    return make
