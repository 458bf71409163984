"""Sequences end to end: where they lie, and that each attends to itself alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from random_models import MODELS, PADDED, random_model
from torch import Tensor

from hiso_ray.tasks.forward import attention
from hiso_ray.tasks.forward.attention import attend
from hiso_ray.tasks.forward.packing import Packing, Run, packed

CPU = torch.device("cpu")
LENGTHS = (1, 1, 2, 5, 5, 9)
pytestmark = pytest.mark.usefixtures("one_thread")


def test_where_everything_lies_by_hand() -> None:
    given = [np.array(row) for row in ([10, 11, 12], [20], [30, 31], [40, 41])]
    found = packed(given, np.array([2, 1, 1, 2]), CPU)
    assert found["input_ids"].tolist() == [[20, 30, 31, 40, 41, 10, 11, 12]]
    assert found["position_ids"].tolist() == [[0, 0, 1, 0, 1, 0, 1, 2]]
    packing = found["packing"]
    assert packing.lengths == (1, 2, 2, 3)
    assert packing.scored.tolist() == [6, 7, 0, 2, 3, 4]  # in the order of what was given
    assert not packing.ends
    assert packing.runs == (Run(0, 1, 1), Run(1, 2, 2), Run(5, 1, 3))
    assert packing.starts.tolist() == [0, 1, 3, 5, 8]
    tokens, places = packing.places
    assert tokens.tolist() == [[0, 0, 0], [1, 2, 2], [3, 4, 4], [5, 6, 7]]
    assert places.tolist() == [0, 3, 4, 6, 7, 9, 10, 11]
    last = packed(given, np.ones(4, np.int64), CPU)["packing"]
    assert last.ends
    assert last.scored.tolist() == [7, 0, 2, 4]
    assert packed(given, None, CPU)["packing"].scored is None


@pytest.mark.parametrize("length", [1, 7])
def test_one_sequence(length: int) -> None:
    found = packed([np.arange(length)], np.array([1]), CPU)
    assert found["input_ids"].tolist() == found["position_ids"].tolist() == [list(range(length))]
    assert found["packing"].runs == (Run(0, 1, length),)
    assert found["packing"].scored.tolist() == [length - 1]


# attention against its formula, in double precision


def by_hand(
    query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None, cap: float | None
) -> Tensor:
    """Causal attention of (heads, tokens, size), score by score."""
    groups = query.shape[0] // key.shape[0]
    out = torch.zeros_like(query)
    for head in range(query.shape[0]):
        k, v = key[head // groups], value[head // groups]
        for i in range(query.shape[1]):
            first = 0 if window is None else max(0, i - window + 1)
            scores = k[first : i + 1] @ query[head, i] * scale
            scores = scores if cap is None else cap * torch.tanh(scores / cap)
            out[head, i] = scores.softmax(0) @ v[first : i + 1]
    return out


CASES: list[dict[str, Any]] = [
    {"scaling": scaling, "sliding_window": window, "softcap": cap}
    for scaling, window, cap in [
        (None, None, None),
        (0.3, None, None),
        (None, 1, None),
        (0.3, 3, None),
        (None, 9, None),  # as long as the longest, or longer: hides nothing
        (None, 100, None),
        (None, None, 0.5),
        (0.3, 3, 0.5),
    ]
]


def heads(count: int, kv: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (
        torch.randn(1, n, sum(LENGTHS), 4, generator=generator, dtype=torch.float64)
        for n in (count, kv, kv)
    )
    return 2 * q, 2 * k, v


def wanted_of(q: Tensor, k: Tensor, v: Tensor, case: dict[str, Any]) -> Tensor:
    """(1, tokens, heads, size), one sequence after the other."""
    scale = q.shape[-1] ** -0.5 if case["scaling"] is None else case["scaling"]
    parts = zip(*(tensor[0].split(LENGTHS, 1) for tensor in (q, k, v)), strict=True)
    found = [by_hand(*part, scale, case["sliding_window"], case["softcap"]) for part in parts]
    return torch.cat(found, 1).transpose(0, 1)[None]


@pytest.mark.parametrize(("count", "kv"), [(2, 2), (4, 2), (3, 1)])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_each_sequence_attends_to_itself(case: dict[str, Any], count: int, kv: int) -> None:
    q, k, v = heads(count, kv)
    wanted = wanted_of(q, k, v, case)
    # capped scores have a float32 softmax, as in the families' own code
    near = {"rtol": 0, "atol": 1e-12 if case["softcap"] is None else 1e-5}
    here = Packing(LENGTHS, CPU)
    found, weights = attend(None, q, k, v, None, packing=here, **case)  # type: ignore[arg-type]
    assert weights is None
    assert torch.allclose(found, wanted, **near)
    last, _ = attend(None, q, k, v, None, packing=here.asked_by_last(), **case)  # type: ignore[arg-type]
    ends = here.starts[1:].long() - 1
    assert torch.allclose(last[:, ends], wanted[:, ends], **near)
    others = torch.ones(sum(LENGTHS), dtype=torch.bool)
    others[ends] = False
    assert (last[:, others] == 0).all()
    if case["softcap"] is None:  # what GPUs without a kernel do
        padded = attention._padded_inside(q, k, v, here, case["scaling"], case["sliding_window"])
        assert torch.allclose(padded, wanted, **near)


@pytest.mark.parametrize("how", ["apart", "padded"])
@pytest.mark.parametrize("window", [None, 3])
def test_a_neighbour_changes_not_one_bit(how: str, window: int | None) -> None:
    here = Packing(LENGTHS, CPU)
    q, k, v = (tensor.float() for tensor in heads(4, 2))

    def attended() -> Tensor:
        if how == "padded":
            return attention._padded_inside(q, k, v, here, None, window)
        return attend(None, q, k, v, None, packing=here, sliding_window=window)[0]  # type: ignore[arg-type]

    first = attended()
    for i, (start, end) in enumerate(zip(here.starts[:-1], here.starts[1:], strict=True)):
        before = [tensor.clone() for tensor in (q, k, v)]
        for tensor in (q, k, v):
            tensor[:, :, start:end] += 100.0 + i
        found = attended()
        assert torch.equal(found[:, :start], first[:, :start])
        assert torch.equal(found[:, end:], first[:, end:])
        assert not torch.equal(found[:, start:end], first[:, start:end])
        for tensor, kept in zip((q, k, v), before, strict=True):
            tensor.copy_(kept)


@pytest.mark.parametrize("window", [None, 2])
def test_attention_has_derivatives(window: int | None) -> None:
    # Forward mode, backward, and backward twice, with torch's plain kernel.
    from torch.nn.attention import SDPBackend, sdpa_kernel

    here = Packing((1, 3, 3), CPU)
    q, k, v = (tensor[:, :, :7, :2] for tensor in heads(2, 1))

    def loss(q: Tensor, k: Tensor, v: Tensor, last: bool = False) -> Tensor:
        where = here.asked_by_last() if last else here
        options = {"packing": where, "sliding_window": window}
        return attend(None, q, k, v, None, **options)[0].pow(3)  # type: ignore[arg-type]

    leaves = [tensor.clone().requires_grad_() for tensor in (q, k, v)]
    with sdpa_kernel(SDPBackend.MATH):
        for last in (False, True):
            of: Callable[..., Any] = lambda *t, last=last: loss(*t, last)  # noqa: E731
            assert torch.autograd.gradcheck(of, leaves, check_forward_ad=True)
            assert torch.autograd.gradgradcheck(of, leaves)


# a model's attention exchanged


def test_a_model_gets_it_and_says_which_it_had() -> None:
    model = random_model(*MODELS["llama"])
    attention.install(model)
    assert model.config._attn_implementation == attention.NAME
    given = [np.array([5, 6, 7]), np.array([8])]
    alone = packed(given[:1], None, CPU)
    both = packed(given, None, CPU)
    with torch.inference_mode():
        first = model(**alone, use_cache=False).logits[0]
        assert torch.allclose(model(**both, use_cache=False).logits[0, 1:], first, atol=1e-5)


def test_an_attention_that_cannot_be_exchanged_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="BloomForCausalLM has an attention of its own"):
        attention.install(random_model(*PADDED["bloom"]))
    model = random_model(*MODELS["llama"])
    monkeypatch.setattr(type(model), "_supports_attention_backend", False)
    with pytest.raises(ValueError, match="LlamaForCausalLM has an attention of its own"):
        attention.install(model)
    assert model.config._attn_implementation != attention.NAME
