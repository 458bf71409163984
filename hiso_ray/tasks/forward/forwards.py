"""What a language model's forward pass computes for a batch, and what it skips.

Four forms, from the leanest to the one that every model supports:

``scored``  sequences end to end; the last layer, except its keys and values, for scored tokens only
``packed``  sequences end to end
``padded``  sequences side by side, padded on the left; the head for scored tokens only
``alone``   one sequence after the other, with all its logits

A model's form is chosen once, when the run is prepared, by comparing logits with those of single,
unpadded prompts (:func:`choose`). It is stored with the task, because it affects the last bits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hiso_ray.tasks.forward import attention, head, last_layer, packing
from hiso_ray.tasks.forward.last_layer import LastLayer

Form = Literal["scored", "packed", "padded", "alone"]
# Relative to the logits' spread. Rounding is far below it; attention across sequences far above.
TOLERANCE = {torch.float32: 2e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
LONGEST = 256  # tokens of a prompt that is used to compare forms


class Choice(NamedTuple):
    """A form and the names of its last layer; goes into the task's specification.

    Attributes:
        why: why leaner forms failed, for the user; empty for the leanest two.
    """

    form: Form
    last: LastLayer | None = None
    why: str = ""


def chosen(spec: Sequence[Any]) -> Choice:
    """A choice, read back from JSON."""
    form, last, why = spec
    return Choice(form, None if last is None else LastLayer(*last), why)


class Forward:
    """A causal language model's forward passes in one form.

    Args:
        module: a transformers model; it is changed in place, parameters keep their names.
        rows: (answers,) int64 rows of the vocabulary whose logits are computed; None for all.
    """

    def __init__(
        self, module: Any, choice: Choice, device: torch.device, rows: Tensor | None
    ) -> None:
        self.module, self.form, self.device = module, choice.form, device
        self._rows = rows if self.form == "alone" else None
        # by default some models count padding in positions
        self._takes_positions = "position_ids" in inspect.signature(module.forward).parameters
        with ExitStack() as undo:
            if self.is_packed:
                self._usual = module.config._attn_implementation
                undo.callback(module.set_attn_implementation, self._usual)
                attention.install(module)
            if self.form == "scored":
                assert choice.last is not None
                for hook in last_layer.trim(module, choice.last):
                    undo.callback(hook.remove)
            if rows is not None and self.form != "alone":
                undo.callback(head.keep_rows(module, rows))
            self._undo = undo.pop_all()

    @property
    def is_packed(self) -> bool:
        return self.form in ("scored", "packed")

    def close(self) -> None:
        """Restores the module."""
        self._undo.close()

    @contextmanager
    def side_by_side(self) -> Iterator[None]:
        """Context in which the module takes padded inputs, whatever its form."""
        if not self.is_packed:
            yield
            return
        self.module.set_attn_implementation(self._usual)
        try:
            yield
        finally:
            attention.install(self.module)

    def inputs(self, rows: Sequence[np.ndarray], scored: np.ndarray) -> dict[str, Any]:
        """Turns sequences of any lengths into inputs of :meth:`hidden`.

        Args:
            scored: (sequences,) how many of each sequence's last tokens are scored.
        """
        if self.is_packed:
            return packing.packed(rows, scored, self.device)
        if self.form == "alone":
            return {"rows": [self.padded([row]) for row in rows], "scored": scored}
        inputs = self.padded(rows)
        longest = inputs["input_ids"].shape[1]
        places = packing.counted(longest - scored, scored)
        row = np.repeat(np.arange(len(rows)), scored)
        return inputs | {"scored": torch.from_numpy(row * longest + places).to(self.device)}

    def padded(self, rows: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """(sequences, longest) token ids, mask and positions, padded on the left, as transformers
        takes them."""
        longest = max(len(row) for row in rows)
        ids = np.zeros((len(rows), longest), np.int64)
        real = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, longest - len(row) :] = row
            real[i, longest - len(row) :] = 1
        inputs = {
            "input_ids": torch.from_numpy(ids).to(self.device),
            "attention_mask": torch.from_numpy(real).to(self.device),
        }
        if self._takes_positions:
            positions = np.maximum(real.cumsum(1) - 1, 0)
            inputs["position_ids"] = torch.from_numpy(positions).to(self.device)
        return inputs

    def hidden(self, inputs: dict[str, Any]) -> Tensor:
        """(terms, size) outputs of the decoder at the scored tokens, contiguous; for the form
        ``alone``, (terms, rows) logits."""
        if self.form == "alone":
            pairs = zip(inputs["rows"], inputs["scored"], strict=True)
            return torch.cat([self._alone(given, int(count)) for given, count in pairs])
        given = {name: v for name, v in inputs.items() if name not in ("scored", "states")}
        out = self.module.get_decoder()(**given, use_cache=False).last_hidden_state
        if self.form == "scored":
            return out[0]
        scored = inputs["packing"].scored if self.is_packed else inputs["scored"]
        return out.flatten(0, 1).index_select(0, scored)

    def _alone(self, given: dict[str, Tensor], scored: int) -> Tensor:
        """(scored, rows) logits of the last tokens of one sequence."""
        logits = self.module(**given, use_cache=False).logits[0]
        logits = logits[len(logits) - scored :]
        return logits if self._rows is None else logits.index_select(1, self._rows)

    def logits(self, hidden: Tensor) -> Tensor:
        """(terms, rows) in any dtype, from some or all rows of :meth:`hidden`."""
        return hidden if self.form == "alone" else head.logits(self.module, hidden)


@torch.inference_mode()
def choose(module: Any, prompts: Sequence[np.ndarray], rows: Tensor | None) -> Choice:
    """The leanest form whose logits equal the model's own on single prompts.

    Args:
        module: with its weights, on a CPU; it is restored afterwards.
        prompts: token ids; a few of different lengths are used.
        rows: as in :class:`Forward`.
    """
    some = unlike(prompts)
    wanted = torch.cat([_alone(module, ids, rows) for ids in some])
    last: list[LastLayer | None] = []

    def watched(forward: Forward, inputs: dict[str, Any]) -> None:
        last.append(last_layer.find(module, lambda: forward.hidden(inputs)))

    why = _problem(module, Choice("packed"), some, rows, wanted, watched)
    if not why:
        leaner = Choice("scored", last[0])
        fits = leaner.last is not None and not _problem(module, leaner, some, rows, wanted)
        return leaner if fits else Choice("packed")
    fits = not _problem(module, Choice("padded"), some, rows, wanted)
    return Choice("padded" if fits else "alone", why=why)


def _problem(
    module: Any,
    choice: Choice,
    prompts: Sequence[np.ndarray],
    rows: Tensor | None,
    wanted: Tensor,
    watch: Callable[[Forward, dict[str, Any]], None] = lambda *_: None,
) -> str:
    """What is wrong with a form; empty if its logits are correct."""
    try:
        forward = Forward(module, choice, torch.device("cpu"), rows)
        try:
            inputs = forward.inputs(prompts, np.ones(len(prompts), np.int64))
            watch(forward, inputs)
            found = forward.logits(forward.hidden(inputs)).float()
            beside = _beside_others(forward, prompts)
        finally:
            forward.close()
    except Exception as error:  # a family's code may fail in any way on unexpected inputs
        return f"{type(error).__name__}: {error}".splitlines()[0]
    unmoved = slice(1, None, 2)
    if forward.is_packed and not torch.equal(beside[unmoved], found[unmoved]):
        return "a sequence's logits change with its neighbours"
    return difference(found, wanted, next(module.parameters()).dtype)


def _beside_others(forward: Forward, prompts: Sequence[np.ndarray]) -> Tensor:
    """The logits after every second sequence, from the first on, is changed."""
    others = [np.where(ids > 0, ids - 1, 1) if i % 2 == 0 else ids for i, ids in enumerate(prompts)]
    inputs = forward.inputs(others, np.ones(len(prompts), np.int64))
    return forward.logits(forward.hidden(inputs)).float()


def difference(found: Tensor, wanted: Tensor, dtype: torch.dtype) -> str:
    """How far float32 logits are off, in words; empty if within the dtype's rounding error."""
    spread = float((wanted - wanted.mean(-1, keepdim=True)).abs().max())
    off = float((found - wanted).abs().max())
    limit = TOLERANCE[dtype] * spread
    return "" if off <= limit else f"its logits are off by {off:.2g} of {spread:.2g}"


def _alone(module: Any, ids: np.ndarray, rows: Tensor | None) -> Tensor:
    """(1, rows) float32 logits after one prompt, as transformers computes them."""
    tokens = torch.from_numpy(ids.astype(np.int64))[None]
    logits = module(input_ids=tokens, logits_to_keep=1, use_cache=False).logits[:, -1].float()
    return logits if rows is None else logits[:, rows]


def unlike(prompts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The two shortest prompts, the median and the longest, of those of up to ``LONGEST`` tokens;
    the shortest alone if all are longer."""
    by_length = sorted(prompts, key=len)
    some = [ids for ids in by_length if len(ids) <= LONGEST] or by_length[:1]
    return [some[i] for i in sorted({0, min(1, len(some) - 1), len(some) // 2, len(some) - 1})]
