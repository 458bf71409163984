"""Hidden states below the lowest trained layer, kept: the same losses, and the same bits whatever
the budget; the layers below run once for each example, or for each batch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hiso_ray import Experiment, replay, run, tasks
from hiso_ray.execution.memory import actor_bytes, actor_gpu_bytes
from hiso_ray.tasks.forward import forwards
from hiso_ray.tasks.forward.forwards import Choice
from hiso_ray.tasks.forward.frozen_layers import KeptStates

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "vocab_size": 400, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128,
    "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0, "initializer_range": 0.3,
    "tie_word_embeddings": True,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "opt": SMALL | {"ffn_dim": 32, "word_embed_proj_dim": 8, "init_std": 0.3},
    "llama": SMALL,
    "gemma3_text": SMALL | {  # windows below and above the cut, shorter than most prompts
        "head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "qwen3": SMALL | {"head_dim": 8},
    "gpt2": SMALL | {"n_embd": 16, "n_layer": 4, "n_head": 2, "n_positions": 128},
}  # fmt: skip
UPPER = dict.fromkeys(FAMILIES, "*layers.[23].*,model.norm*") | {
    "opt": "*layers.[23].*,*decoder.final_layer_norm*",
    "gpt2": "*.h.[23].*,*.ln_f.*",
}
LORA = {
    "task.lora.r": 2,
    "task.lora.target_modules": "layers.2.self_attn.q_proj,layers.3.self_attn.v_proj",
}
ONCE = {"task.frozen_layers": "once"}
PER_BATCH = {"task.frozen_layers": "per_batch"}
HOW = [ONCE, PER_BATCH]
CASES = [
    *((name, "patterns") for name in FAMILIES),
    *((name, "lora") for name in FAMILIES if name != "gpt2"),  # it has no linear layers
]
EXAMPLES = np.array([7, 3, 0, 12, 5, 3])  # of unlike lengths, one of them twice
pytestmark = pytest.mark.usefixtures("one_thread")

Make = Callable[..., Experiment]


@pytest.fixture(scope="module")
def family(tiny_opt: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        from transformers import AutoConfig, AutoModelForCausalLM

        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            for file in tiny_opt.glob("tokenizer*"):
                (made[name] / file.name).write_bytes(file.read_bytes())
            with torch.random.fork_rng():
                torch.manual_seed(0)
                config = AutoConfig.for_model(name, **FAMILIES[name])
                AutoModelForCausalLM.from_config(config).save_pretrained(made[name])
        return made[name]

    return make


@pytest.fixture
def of(language: Make, family: Callable[[str], Path]) -> Make:
    def make(name: str = "llama", subset: str = "patterns", **dotted: Any) -> Experiment:
        chosen = {"task.trainable": UPPER[name]} if subset == "patterns" else LORA
        short = {
            "task.model": str(family(name)), "task.max_length": 60, "federation.rounds": 2,
            "eval.every": 2,
        }  # fmt: skip
        return language(**(short | chosen | dotted))

    return make


def built(experiment: Experiment) -> tuple[Any, Any, torch.Tensor]:
    experiment = tasks.resolve(experiment)
    prepared = tasks.prepare(experiment)
    x = torch.tensor(prepared.x0)
    x += 0.1 * torch.randn(len(x), generator=torch.Generator().manual_seed(1))
    return tasks.build(experiment, prepared, CPU), prepared, x


def layers(task: Any) -> Any:
    return task.module.get_submodule(task._spec["frozen_layers"].layers)


class Runs:
    """The sequences that the lowest layer's attention has been run on, by their lengths."""

    def __init__(self, task: Any) -> None:
        self.lengths: list[tuple[int, ...]] = []
        attention = next(m for n, m in layers(task)[0].named_children() if "attn" in n)
        attention.register_forward_pre_hook(self._see, with_kwargs=True)

    def _see(self, _: Any, args: Any, kwargs: Any) -> None:
        self.lengths.append(kwargs["packing"].lengths)


def tokens(task: Any, split: str, examples: np.ndarray) -> int:
    return sum(len(row) for row in task.rows(f"{split}_prompt", examples))


# the same results


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(("name", "subset"), CASES)
def test_losses_and_scores_are_those_of_whole_forward_passes(
    of: Make, name: str, subset: str, how: dict[str, str]
) -> None:
    whole, _, x = built(of(name, subset))
    task, prepared, _ = built(of(name, subset, **how))
    assert prepared.spec["forward"].form == ("packed" if name == "gpt2" else "scored")
    assert prepared.spec["frozen_layers"].depth == 2
    groups = EXAMPLES[:2], EXAMPLES[2:]
    wanted = whole.losses(x, [whole.batch(*groups)])
    assert task.losses(x, [task.batch(*groups)]) == pytest.approx(wanted, rel=1e-5)
    score = task.score(x, 0)
    assert score.losses == pytest.approx(whole.score(x, 0).losses, rel=1e-5)
    # and the states that are kept are what the scores come from
    for states in task._kept._kept.values():
        states.zero_()
    assert abs(task.score(x, 0).losses - score.losses).max() > 1e-2


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("subset", ["patterns", "lora"])
def test_derivatives_are_those_of_whole_forward_passes(
    of: Make, subset: str, how: dict[str, str]
) -> None:
    whole, _, x = built(of("llama", subset))
    task, _, _ = built(of("llama", subset, **how))
    z = torch.randn(len(x), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():  # states that were first asked for where no graph may keep them
        task.batch(EXAMPLES)
    one, other = task.batch(EXAMPLES), whole.batch(EXAMPLES)
    (loss, slope), (wanted_loss, wanted) = task.gradient(x, one), whole.gradient(x, other)
    assert loss == pytest.approx(wanted_loss, rel=1e-5)
    assert torch.allclose(slope, wanted, rtol=1e-4, atol=1e-5)
    assert wanted.abs().max() > 1e-3
    found, expected = (t.slopes(x, z, [b]) for t, b in ((task, one), (whole, other)))
    assert np.concatenate(found) == pytest.approx(np.concatenate(expected), rel=1e-4)
    curved = [t.hessian_vector(x, z, b) for t, b in ((task, one), (whole, other))]
    assert torch.allclose(*curved, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("how", HOW)
def test_generation_has_the_same_losses_and_answers(
    of: Make, tmp_path: Path, how: dict[str, str]
) -> None:
    folder = tmp_path / "squad"
    folder.mkdir()
    for split in ("train", "validation"):
        rows = []
        for number in range(8):
            texts = [f"film {number}{' good' * (number % 3)}"]
            row = {"title": "A", "context": "a film " + "bad " * (number % 5), "question": "What?"}
            rows.append(json.dumps(row | {"answers": {"text": texts, "answer_start": [0]}}))
        (folder / f"{split}.jsonl").write_text("\n".join(rows))
    squad = {
        "task.name": "squad", "task.data": str(folder), "task.max_length": 128,
        "task.max_new_tokens": 6, "federation.num_clients": 3,
    }  # fmt: skip
    whole, _, x = built(of(**squad))
    task, prepared, _ = built(of(**squad, **how))
    groups = np.array([3, 1]), np.array([6, 2, 5])
    wanted = whole.losses(x, [whole.batch(*groups)])
    assert task.losses(x, [task.batch(*groups)]) == pytest.approx(wanted, rel=1e-5)
    score, expected = task.score(x, 0), whole.score(x, 0)
    assert score.losses == pytest.approx(expected.losses, rel=1e-5)
    assert all((score.points[name] == values).all() for name, values in expected.points.items())
    assert task.answers(np.arange(8)) == whole.answers(np.arange(8))
    task.batch(np.arange(8))
    everything = sum(4 * states.numel() for states in task._kept._kept.values())
    examples = 16 if how is ONCE else 8  # training batches do not come again
    needs = f"all {examples} examples need {everything / 2**20:,.4g} MiB"
    assert needs in " ".join(prepared.notes)


# the same bits


@pytest.fixture
def digest(of: Make, tmp_path: Path) -> Callable[..., str]:
    made = 0

    def make(name: str = "llama", **dotted: Any) -> str:
        nonlocal made
        made += 1
        return run(of(name, **(ONCE | dotted)), tmp_path / str(made))["model_sha256"]

    return make


HALF = {"resources.frozen_states_mb": 0.01}  # not for all examples of either split


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_has_the_same_bits_with_any_budget(
    of: Make, digest: Callable[..., str], dtype: str, how: dict[str, str]
) -> None:
    own = {"task.dtype": dtype, "federation.local_steps": 2, "task.eval_batch_size": 1, **how}
    task, _, _ = built(of(**own, **HALF))
    for split, count in (("train", 80), ("eval", 40)):
        for one in range(count):
            task.inputs(split, np.array([one]), task.rows(f"{split}_prompt", [one]),
                        np.ones(1, np.int64))  # fmt: skip
    assert 0 < len(task._kept._kept) < (120 if how is ONCE else 40)
    budgets = [{}, HALF, {"resources.frozen_states_mb": 0}]
    assert len({digest(**own, **budget) for budget in budgets}) == 1
    assert digest(**own, seed=1) != digest(**own)


@pytest.mark.parametrize("how", HOW)
def test_layer_by_layer_probes_have_the_same_bits(
    digest: Callable[..., str], how: dict[str, str]
) -> None:
    layer = {"resources.probe_weights": "layer"}
    for name in ("llama", "opt"):
        assert digest(name, **how, **layer) == digest(name, **how)


@pytest.mark.parametrize("how", HOW)
def test_a_run_replays_and_goes_on_with_another_budget(
    of: Make, tmp_path: Path, how: dict[str, str]
) -> None:
    run(of(subset="lora", **how), tmp_path / "r")
    assert replay(tmp_path / "r", export=tmp_path / "model")["matches"] is True
    e = of(**how)
    assert e.digest() == e.changed(**HALF).digest()
    assert len({e.digest(), of().digest(), of(**ONCE).digest(), of(**PER_BATCH).digest()}) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("name", "how"), [("opt", ONCE), ("gemma3_text", PER_BATCH)])
def test_two_actors_give_the_serial_digest(
    digest: Callable[..., str], ray_cluster: Any, name: str, how: dict[str, str]
) -> None:
    two = how | {"resources.executor": "ray", "resources.max_actors": 2}
    assert len({digest(name, **how), digest(name, **two), digest(name, **two, **HALF)}) == 1


# what is computed


@pytest.mark.parametrize("name", FAMILIES)
def test_the_layers_below_run_once_for_each_example_and_by_it_alone(of: Make, name: str) -> None:
    task, _, x = built(of(name, **ONCE))
    runs = Runs(task)
    for weights in (x, x + 0.1):
        for _ in range(2):
            batches = [task.batch(EXAMPLES), task.batch(EXAMPLES[:2], EXAMPLES[4:])]
            task.losses(weights, batches)
            task.losses(weights + 0.1, batches)
    task.gradient(x, batches[0])
    different = np.unique(EXAMPLES)
    lengths = sorted(len(row) for row in task.rows("train_prompt", different))
    assert sorted(runs.lengths) == [(length,) for length in lengths]
    task.score(x, 0)
    assert len(runs.lengths) == len(different) + 40
    task.score(x + 0.1, 0)
    assert len(runs.lengths) == len(different) + 40


def test_the_layers_below_run_once_for_each_batch(of: Make) -> None:
    task, _, x = built(of(**PER_BATCH, **{"task.eval_batch_size": 25}))
    runs = Runs(task)
    batches = [task.batch(EXAMPLES), task.batch(EXAMPLES[:2], EXAMPLES[4:])]
    for weights in (x, x + 0.1):
        task.losses(weights, batches)
    task.gradient(x, batches[0])
    assert [len(lengths) for lengths in runs.lengths] == [6, 4]
    task.batch(EXAMPLES)  # of another round
    assert len(runs.lengths) == 3
    for weights in (x, x + 0.1):
        for batch in range(2):
            task.score(weights, batch)
    assert [len(lengths) for lengths in runs.lengths[3:]] == [25, 15]


def test_what_does_not_fit_is_computed_for_each_batch(of: Make) -> None:
    task, _, x = built(of(**ONCE))
    runs, some = Runs(task), np.arange(6)
    task.keep_states(4 * 16 * tokens(task, "train", some[:3]))
    for _ in range(3):
        task.losses(x, [task.batch(some[:3])])
    assert len(runs.lengths) == 3
    for _ in range(3):
        batch = task.batch(some)
        for weights in (x, x + 0.1):
            task.losses(weights, [batch])
    assert len(runs.lengths) == 3 + 3 * 3
    task.keep_states(0)
    for _ in range(2):
        task.batch(some)
    assert len(runs.lengths) == 3 + 3 * 3 + 2 * 6


def test_without_it_the_layers_below_run_with_every_batch(of: Make) -> None:
    # What the counts above would be if nothing was kept.
    task, _, x = built(of())
    ran: list[Any] = []
    task.module.model.layers[0].self_attn.register_forward_pre_hook(lambda *_: ran.append(1))
    batch = task.batch(EXAMPLES)
    for weights in (x, x + 0.1):
        task.losses(weights, [batch])
    assert len(ran) == 2


# what is said


def test_a_run_says_what_is_kept(of: Make) -> None:
    task, prepared, _ = built(of(**ONCE, **HALF))
    need = sum(tokens(task, split, np.arange(n)) for split, n in (("train", 80), ("eval", 40)))
    words = (
        "layers 0–1 of 4 are frozen: their states are computed once, and kept, up to 0.01 MiB per "
        "actor; "
        f"all 120 examples need {need * 16 * 4 / 2**20:.4g} MiB"
    )
    assert [note for note in prepared.notes if "frozen" in note] == [words]
    assert not any("states" in note for note in built(of())[1].notes)


def test_an_actors_memory_counts_the_budget(of: Make) -> None:
    e, budget = of(**ONCE, **{"resources.frozen_states_mb": 3.5}), int(3.5 * 2**20)
    without = e.changed(**{"task.frozen_layers": "recompute"})
    for need in (actor_bytes, actor_gpu_bytes):
        assert need(e, 1000, 1000) - need(without, 1000, 1000) == budget


@pytest.mark.parametrize(
    ("dotted", "words"),
    [
        ({"task.trainable": "all"}, "embeddings are trained"),
        ({"task.trainable": "*layers.3.*,*embed_tokens*"}, r"embeddings are trained \(tied"),
        ({"task.trainable": "*norm*"}, "lowest layer is trained, so none is frozen"),
        ({"task.trainable": "*layers.2.*,*layers.0.mlp.up*"}, "lowest layer is trained"),
        ({"task.trainable": "all", "task.lora.r": 2}, "lowest layer is trained"),
        ({"task.trainable": "all", "task.sparse_fraction": 0.1}, "embeddings are trained"),
    ],
)
def test_nothing_frozen_below_is_refused(of: Make, dotted: dict[str, Any], words: str) -> None:
    built(of(**dotted))  # it is no mistake otherwise
    for how in HOW:
        asked = rf"task.frozen_layers = {how['task.frozen_layers']}: "
        with pytest.raises(ValueError, match=rf"{asked}.*{words}.*; use recompute"):
            built(of(**dotted, **how))


def test_the_head_alone_leaves_the_last_layer_to_run(of: Make) -> None:
    task, prepared, x = built(of(**ONCE, **{"task.trainable": "model.norm.weight"}))
    whole, _, _ = built(of(**{"task.trainable": "model.norm.weight"}))
    assert prepared.spec["frozen_layers"].depth == 3
    losses = [t.losses(x, [t.batch(EXAMPLES)]) for t in (task, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_model_that_runs_padded_is_refused(of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    padded = Choice("padded", why="its mixing is no attention")
    monkeypatch.setattr(forwards, "choose", lambda *_: padded)
    with pytest.raises(ValueError, match=r"once: .* padded sequences only \(its mixing.*recompute"):
        built(of(**ONCE))


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [
        (
            lambda states: [tokens.roll(1, 1) for tokens in states],
            r"its logits are off by [\d.]+ of [\d.]+",
        ),
        (lambda states: states[0], "Error"),
    ],
)
def test_a_model_that_needs_more_than_these_states_is_refused(
    of: Make, monkeypatch: pytest.MonkeyPatch, spoilt: Any, words: str
) -> None:
    right = KeptStates.states
    monkeypatch.setattr(KeptStates, "states", lambda *given: spoilt(right(*given)))
    with pytest.raises(ValueError, match=rf"handed on, this model fails \(.*{words}.*recompute"):
        built(of(**ONCE))


def test_other_tasks_have_no_such_layers(experiment: Make) -> None:
    with pytest.raises(ValueError, match=r"task.frozen_layers: digits does not read it"):
        tasks.resolve(experiment(**ONCE))
