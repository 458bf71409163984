"""Packed = padded = one by one: logits, losses and derivatives in every form of a forward pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from random_models import MODELS, PADDED, random_model, rows
from torch import Tensor, nn

from hiso_ray import run
from hiso_ray.method.perturbed import Unperturbed
from hiso_ray.run_folder.metrics_reader import read_rows
from hiso_ray.tasks.forward.forwards import Form, choose, chosen

FORMS: tuple[Form, ...] = get_args(Form)
KINDS = ("classification", "generation")
SUBSETS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"task.lora.r": 2},
    "lora on the head": {"task.lora.r": 2, "task.lora.target_modules": "q_proj,lm_head"},
    "patterns": {"task.trainable": "*layers.1.*,*norm*"},
    "mask": {"task.sparse_fraction": 0.1},
}
pytestmark = pytest.mark.usefixtures("one_thread")

Random = Callable[..., Any]


def groups(task: Any) -> list[np.ndarray]:
    """All training examples, dealt to clients with one, two, three, ... of them."""
    examples = np.arange(len(task._arrays["train_prompt_offsets"]) - 1)
    return np.split(examples, [1, 3, 6, 10, 15, 21])


@torch.inference_mode()
def singly(task: Any, x: Tensor, examples: np.ndarray) -> Tensor:
    """Logits after one sequence at a time, as its module computes them: of a task in the form
    ``alone``, whose module nothing was done to."""
    assert task.forward.form == "alone"
    task.losses(x, [task.batch(examples[:1])])  # binds the weights
    found = []
    for i in examples:
        ids = task.rows("train_prompt", [i])[0]
        count = 1
        if "train_answer_ids" in task._arrays:
            answer = task.rows("train_answer", [i])[0]
            ids, count = np.concatenate([ids, answer[:-1]]), len(answer)
        logits = task.module(input_ids=torch.tensor(ids[None]).long(), use_cache=False).logits
        found.append(logits[0, -count:])
    rows = task._spec.get("answers", slice(None))
    return torch.cat(found)[:, rows].float()


@torch.inference_mode()
def together(task: Any, x: Tensor) -> Tensor:
    """Logits of all training examples in one forward pass."""
    batch = task.batch(*groups(task))
    task.losses(x, [batch])
    return task.logits(batch.inputs).float()


def spread(logits: Tensor) -> float:
    return float((logits - logits.mean(-1, keepdim=True)).abs().max())


def losses_of(logits: Tensor, task: Any) -> np.ndarray:
    """Each client's mean over its own terms."""
    batch = task.batch(*groups(task))
    terms = nn.functional.cross_entropy(logits.double(), batch.labels, reduction="none")
    return np.array([float(own.mean()) for own in terms.split(list(batch.sizes))])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_every_form_gives_what_single_sequences_give(
    random_task: Random, name: str, kind: str
) -> None:
    whole, _, x = random_task(name, kind, "alone")
    wanted = singly(whole, x, np.concatenate(groups(whole)))
    assert spread(wanted) > 0.1  # else nothing would show
    for form in FORMS[name == "gpt2" :]:  # whose decoder brings its output into its input's shape
        task, _, _ = random_task(name, kind, form)
        found = together(task, x)
        assert float((found - wanted).abs().max()) < 2e-5 * spread(wanted), form
        losses = task.losses(x, [task.batch(*groups(task))])
        assert losses == pytest.approx(losses_of(wanted, task), rel=2e-5), form


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["opt", "llama", "gemma3, window last", "gemma2", "phi"])
def test_half_precision_differs_by_its_rounding(random_task: Random, name: str, kind: str) -> None:
    exact, _, x = random_task(name, kind, "alone")
    x = x.bfloat16()
    everyone = np.concatenate(groups(exact))
    wanted = singly(exact, x.float(), everyone)
    bfloat16 = {"task.dtype": "bfloat16"}
    rounding = float((singly(random_task(name, kind, "alone", **bfloat16)[0], x, everyone)
                      - wanted).abs().max())  # fmt: skip
    assert 0 < rounding < 0.1 * spread(wanted)
    for form in FORMS:
        found = together(random_task(name, kind, form, **bfloat16)[0], x)
        assert float((found - wanted).abs().max()) < 2 * rounding, form


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "subset"),
    [
        *((n, s) for n in ("llama", "llama, untied", "gemma3, window last") for s in SUBSETS),
        ("gemma2", "full"),
        ("gemma2", "lora on the head"),
    ],
)
def test_trained_subsets_and_derivatives(
    random_task: Random, name: str, subset: str, kind: str
) -> None:
    whole, _, x = random_task(name, kind, "alone", **SUBSETS[subset])
    wanted = singly(whole, x, np.concatenate(groups(whole)))
    z = torch.randn(len(x), generator=torch.Generator().manual_seed(3))
    client = groups(whole)[4]
    slopes, _ = whole.slopes(x, z, [whole.batch(*groups(whole))])
    gradient = whole.gradient(x, whole.batch(client))[1]
    product = whole.hessian_vector(x, z, whole.batch(client))
    for form in ("scored", "packed", "padded"):
        task, _, _ = random_task(name, kind, form, **SUBSETS[subset])
        batch = task.batch(*groups(task))
        losses = task.losses(x, [batch])
        assert losses == pytest.approx(losses_of(wanted, task), rel=2e-5), form
        found = task.slopes(x, z, [batch])
        assert found[1] == pytest.approx(losses, rel=2e-6), form
        assert found[0] == pytest.approx(slopes, abs=1e-4 * np.abs(slopes).max()), form
        assert close(task.gradient(x, task.batch(client))[1], gradient, 1e-4), form
        assert close(task.hessian_vector(x, z, task.batch(client)), product, 1e-3), form


def close(found: Tensor, wanted: Tensor, relative: float) -> bool:
    return float((found - wanted).norm()) < relative * float(wanted.norm())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["opt", "llama, untied", "gemma3, full last", "phi", "gpt2"])
def test_weights_that_exist_one_layer_at_a_time_give_the_same_bits(
    random_task: Random, name: str, kind: str
) -> None:
    for form in FORMS[name == "gpt2" : 3]:
        task, _, x = random_task(name, kind, form)
        half, _, _ = random_task(name, kind, form, **{"task.dtype": "bfloat16"})
        batches = [half.batch(*groups(half)), half.batch(np.array([3]), np.array([5, 6]))]
        found = half.losses(Unperturbed(x), batches)  # makes slices: another dtype than x
        assert half._layers is not None
        assert np.array_equal(found, half.losses(x.bfloat16(), batches)), form
        assert found == pytest.approx(task.losses(x, batches), abs=0.2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_one_token_and_nothing_else(random_task: Random, form: Form, kind: str) -> None:
    task, _, x = random_task("gemma3, window last", kind, form)
    whole, _, _ = random_task("gemma3, window last", kind, "alone")
    lengths = np.diff(task._arrays["train_prompt_offsets"])
    short = np.flatnonzero(lengths == 1)
    for examples in (short[:1], short[1:]):
        batch = task.batch(examples)
        if kind == "classification" and form != "alone":
            assert batch.inputs["input_ids"].shape == (1, 1)
        logits = singly(whole, x, examples)
        wanted = nn.functional.cross_entropy(logits, batch.labels)
        assert task.losses(x, [batch])[0] == pytest.approx(float(wanted), rel=2e-5)


# how a form is chosen


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", PADDED)
def test_what_mixes_otherwise_runs_padded_and_says_so_once(
    random_task: Random, name: str, dtype: str
) -> None:
    # With LoRA the model is read, and forms are compared, in the dtype of the forward passes.
    linear = {"bloom": "query_key_value", "mamba": "in_proj"}.get(name, "q_proj")
    lora = {"task.lora.r": 2, "task.lora.target_modules": linear, "task.dtype": dtype}
    task, prepared, x = random_task(name, **lora)
    assert task.forward.form == "padded"
    said = [note for note in prepared.notes if note.startswith("sequences are padded")]
    assert len(said) == 1
    assert chosen(prepared.spec["forward"]).why in said[0]
    if dtype == "float32":
        whole, _, _ = random_task(name, form="alone", **lora)
        wanted = singly(whole, x, np.concatenate(groups(whole)))
        assert float((together(task, x) - wanted).abs().max()) < 2e-4 * spread(wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_neighbour_that_is_seen_a_little_is_seen_too_much(dtype: torch.dtype) -> None:
    # Of half precision's rounding a weak convolution is a small part; that a sequence's logits
    # change with its neighbours' tokens is exact.
    kind, config = PADDED["lfm2"]
    model = random_model(kind, config)
    for name, parameter in model.named_parameters():
        if "conv.conv" in name:
            parameter *= 0.05
    model.to(dtype)
    assert choose(model, rows([9, 4, 20, 20]), torch.tensor([5, 9])).form == "padded"


def test_an_attention_that_cannot_be_exchanged_runs_padded_and_says_so_once(
    language: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import OPTForCausalLM

    run(language(), tmp_path / "packed")
    monkeypatch.setattr(OPTForCausalLM, "_supports_attention_backend", False)
    notes: list[str] = []
    run(language(), tmp_path / "padded", on_note=notes.append)
    why = "sequences are padded: end to end, this model fails (UserError: OPTForCausalLM has"
    assert sum(why in note for note in notes) == 1
    packed, padded = (read_rows(tmp_path / how / "metrics.csv") for how in ("packed", "padded"))
    for column in ("train_loss", "eval_loss"):
        found, wanted = (
            [row[column] for row in table if row[column] is not None] for table in (padded, packed)
        )
        assert found == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("name", ["llama", "lfm2", "gpt2"])
def test_choosing_leaves_the_model_as_it_was(name: str) -> None:
    model = random_model(*(MODELS | PADDED)[name])
    ids = torch.arange(5, 25).view(2, 10)
    with torch.inference_mode():
        before = model(input_ids=ids).logits
        names = list(dict(model.named_modules(remove_duplicate=False)))
        choose(model, rows([9, 4, 20]), torch.tensor([5, 9]))
        assert torch.equal(model(input_ids=ids).logits, before)
    assert list(dict(model.named_modules(remove_duplicate=False))) == names
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
