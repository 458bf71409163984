"""A Hugging Face causal language model over one flat weight vector: sequences, binding, export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiso_ray.config import LoraConfig, TaskConfig
from hiso_ray.tasks import evaluation
from hiso_ray.tasks.contract import Prepared
from hiso_ray.tasks.exported import Exported
from hiso_ray.tasks.flat.mask import layout_in, mask_in
from hiso_ray.tasks.flat.module import ModuleTask
from hiso_ray.tasks.forward.forwards import Forward, chosen
from hiso_ray.tasks.forward.frozen_layers import PER_BATCH, FrozenLayers, KeptStates
from hiso_ray.tasks.pretrained import pretrained
from hiso_ray.tasks.pretrained.model_files import find
from hiso_ray.tasks.pretrained.origin import origin
from hiso_ray.tasks.pretrained.trainable import add_lora, merged, restored, with_lora
from hiso_ray.tasks.text.own_prompt import benchmark_of

ALIGNMENT = 64  # of torch's storage on CPUs [bytes]


class LanguageTask(ModuleTask):
    """The language model and both splits on one device; ``Task`` documents the methods."""

    def __init__(
        self,
        config: TaskConfig,
        prepared: Prepared,
        device: torch.device,
        answers: Sequence[int] | None = None,
    ) -> None:
        """
        Args:
            answers: the only tokens whose logits are computed; by default the whole vocabulary.
        """
        self.config, self.device = config, device
        self._arrays, self._spec = prepared.arrays, prepared.spec
        module = pretrained.skeleton(prepared.spec["model"])
        if "lora" in prepared.spec:
            add_lora(module, LoraConfig(**prepared.spec["lora"]))
        tensors = {name for name, _ in prepared.spec["dense"]}
        tensors |= {n.removeprefix("frozen/") for n in prepared.arrays if n.startswith("frozen/")}
        assert tensors == {name for name, _ in module.named_parameters()}
        for name, parameter in module.named_parameters():
            if f"frozen/{name}" in prepared.arrays:
                parameter.data = _shared(prepared.arrays[f"frozen/{name}"], device)
        for buffer in module.buffers():
            buffer.data = buffer.to(device)
        batches = evaluation.batches(config, len(prepared.arrays["eval_labels"]))
        super().__init__(module, layout_in(prepared), batches, mask_in(prepared))
        rows = None if answers is None else torch.tensor(answers, device=device)
        self.forward = Forward(module, chosen(prepared.spec["forward"]), device, rows)
        self._kept: KeptStates | None = None

    def keep_states(self, budget: int) -> None:
        """From now on caches the states of the frozen layers as ``task.frozen_layers`` says.

        Args:
            budget: memory for kept states [bytes].
        """
        frozen = FrozenLayers(*self._spec["frozen_layers"])
        per_batch = self.config.frozen_layers == PER_BATCH
        self._kept = KeptStates(self.module, frozen, self.device, per_batch, budget)

    def inputs(
        self, split: str, examples: np.ndarray, rows: Sequence[np.ndarray], scored: np.ndarray
    ) -> dict[str, Any]:
        """Inputs of :meth:`hidden` for some examples; see ``Forward.inputs``."""
        inputs = self.forward.inputs(rows, scored)
        if self._kept is not None:
            inputs["states"] = self._kept.states(split, examples, rows)
        return inputs

    def hidden(self, inputs: dict[str, Any]) -> Tensor:
        """See ``Forward.hidden``."""
        if self._kept is None:
            return self.forward.hidden(inputs)
        with self._kept.handed_on(inputs["states"]):
            return self.forward.hidden(inputs)

    def rows(self, name: str, examples: np.ndarray) -> list[np.ndarray]:
        """The token ids of some examples, from the arrays ``NAME_ids`` and ``NAME_offsets``."""
        ids, offsets = self._arrays[f"{name}_ids"], self._arrays[f"{name}_offsets"]
        return [ids[offsets[i] : offsets[i + 1]] for i in examples]

    @torch.inference_mode()
    def export(self, weights: Tensor, folder: Path, merge: bool = False) -> Exported:
        """Writes a Hugging Face folder: the original model with these weights, or with LoRA its
        adapter, and the tokenizer.

        Args:
            merge: folds the adapter into the model. Those of a model from a GGUF file always are,
                since other programs cannot resolve the name of such a base model.
        """
        model, tokenizer, _ = pretrained.load(self.config.model)
        self._bind(weights.cpu())
        named = dict(self.module.named_parameters())
        tensors = {name: named[name].clone() for name, _ in self._tensors}
        self._bound_to = None
        adapted = "lora" in self._spec
        if adapted:
            model = with_lora(model, LoraConfig(**self._spec["lora"]))
            tensors = {f"base_model.model.{name}": value for name, value in tensors.items()}
        for name, parameter in model.named_parameters():
            if name in tensors:
                parameter.data = tensors[name]
        if adapted and (merge or find(self.config.model).from_gguf):
            model, adapted = merged(model), False
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return self._exported(adapted, tokenizer)

    def _exported(self, adapted: bool, tokenizer: Any) -> Exported:
        benchmark, answers = benchmark_of(self.config), self._spec.get("answers")
        details = {"prompt": benchmark.prompt}
        if answers is not None:
            details["answers"] = ", ".join(repr(tokenizer.decode([token])) for token in answers)
        peft = "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer"
        whole = "from transformers import AutoModelForCausalLM, AutoTokenizer"
        loader = "AutoPeftModelForCausalLM" if adapted else "AutoModelForCausalLM"
        return Exported(
            "LoRA adapter" if adapted else "causal language model",
            imports=peft if adapted else whole,
            load="tokenizer = AutoTokenizer.from_pretrained(name)\n"
            f"model = {loader}.from_pretrained(name)",
            library="peft" if adapted else "transformers",
            pipeline="text-generation",
            scored_as="text-generation" if answers is None else "text-classification",
            base=origin(self.config.model),
            apart=adapted,
            details=details,
        )


def _shared(array: np.ndarray, device: torch.device) -> Tensor:
    """A frozen weight; on CPUs it shares the array's memory.

    Frozen weights are never written to, so all processes of a node may read the same memory. The
    bits of matrix products depend on the alignment of their operands, and the object store aligns
    small arrays to 8 bytes only, so an array without torch's alignment is copied.
    """
    tensor = restored(array).to(device)
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor
