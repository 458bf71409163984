"""The model, which of its weights are trained, and the data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from hiso_ray.config.prompt import PromptConfig
from hiso_ray.config.section import Auto, NaturalInt, PositiveInt, Section, given

MaxLength = Annotated[int, Field(ge=8, le=65536)]


class LoraConfig(Section):
    r: NaturalInt = Field(0, description="rank of the adapters; 0 trains without LoRA")
    alpha: PositiveInt = Field(16, description="scale: adapters count alpha / r")
    target_modules: str = Field(
        "auto",
        description="layers that get an adapter, comma-separated (q_proj,v_proj); auto is peft's "
        "own choice for the model's family",
    )


class TaskConfig(Section):
    name: str = Field(
        "reviews",
        description="task: reviews, sst2, qqp, rte, cb, boolq, wic, wsc, multirc, ag_news "
        "(classification), squad, drop, xsum, instructions (generation), prompts (your own data, "
        "as task.prompt says), digits, mnist, fashion_mnist, cifar10 (images) or quadratic",
    )
    model: str = Field(
        "auto",
        description="model: a Hugging Face hub name, local folder or GGUF file (FILE.gguf, or "
        "OWNER/NAME/FILE.gguf of the hub), or gemma-3-270m-q4_k_m, which a package brings "
        "(language tasks); mlp-WIDTH or cnn (images); diagonal-DIMENSION (quadratic); auto is the "
        "task's own default",
    )
    data: str = Field(
        "auto",
        description="data: a hub dataset, or a local folder or file (TSV, CSV, JSONL, Parquet); "
        "auto is the task's own default; prompts has none",
    )
    prompt: PromptConfig = PromptConfig()
    train_examples: Auto | PositiveInt = Field(
        "auto", description="take the first N training examples; auto is the task's own number"
    )
    eval_examples: Auto | PositiveInt = Field(
        "auto", description="take the first N evaluation examples; auto is the task's own number"
    )
    validation_examples: NaturalInt = Field(
        0,
        description="keep the first N of the evaluation examples apart, to choose learning rates "
        "by; the scores shown are those of the others, the test",
    )
    max_length: Auto | MaxLength = Field(
        "auto",
        description="longest prompt [tokens]; longer ones lose the beginning of their context; "
        "auto is the task's own",
    )
    max_new_tokens: Auto | PositiveInt = Field(
        "auto", description="longest answer of a generation task [tokens]; auto is the task's own"
    )
    metric: str = Field(
        "auto",
        description="score that progress, figures and `best` go by: accuracy, or for generation "
        "exact_match, f1, rouge1, rouge2, rougeL; auto is the task's own",
    )
    batch_size: PositiveInt = Field(16, description="examples per client and local step")
    clients_per_forward: Auto | PositiveInt = Field(
        "auto",
        description="clients of a cohort that are evaluated in one forward pass where they stand "
        "at the same weights along the same direction, in client-id order; decides the last bits; "
        "auto is 4, or as many as have 4,096 tokens at most",
    )
    eval_batch_size: PositiveInt = Field(64, description="examples per evaluation batch")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="precision of forward passes; weights, curvature and loss are fp32"
    )
    trainable: str = Field(
        "all",
        description="parameters to train: all, or comma-separated name patterns "
        "(*.layers.2?.*,*norm*)",
    )
    sparse_fraction: float = Field(
        1.0, gt=0, le=1, description="train only this share of the weights, a mask fixed at x_0"
    )
    sparse_by: Literal["magnitude", "random", "sensitivity"] = Field(
        "magnitude",
        description="which weights a sparse mask keeps: the largest, drawn at random, or those "
        "with the largest squared gradients on text that no client holds",
    )
    sparse_text: str = Field(
        "",
        description="sensitivity: a file of plain text, one passage a line, whose next-token loss "
        "gives the gradients; without one, the validation examples do",
    )
    lora: LoraConfig = LoraConfig()
    frozen_layers: Literal["recompute", "per_batch", "once"] = Field(
        "recompute",
        description="hidden states below the lowest trained layer: computed in every forward pass; "
        "once for each batch, which all its probes share (evaluation's are kept); or once for each "
        "example by itself and kept, which pays where sequences are long and come again often. "
        "Kept as far as resources.frozen_states_mb goes; decides the last bits",
    )

    @model_serializer(mode="wrap")
    def _what_was_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omits ``prompt`` and ``sparse_text`` if they were not set, so other tasks keep their
        digests."""
        values: dict[str, Any] = handler(self)
        unset = {"prompt": not given(self.prompt), "sparse_text": not self.sparse_text}
        return {name: value for name, value in values.items() if not unset.get(name)}

    @model_validator(mode="after")
    def _one_subset(self) -> TaskConfig:
        chosen = {
            "trainable": self.trainable != "all",
            "sparse_fraction": self.sparse_fraction < 1,
        }
        if self.lora.r and any(chosen.values()):
            both = ", ".join(name for name, given in chosen.items() if given)
            raise ValueError(f"lora.r = {self.lora.r} trains the adapters alone: leave out {both}")
        if not self.lora.r and self.lora != LoraConfig():
            raise ValueError("lora: alpha and target_modules need adapters, set lora.r as well")
        if self.sparse_fraction == 1 and self.sparse_by != "magnitude":
            raise ValueError(
                f"sparse_by = {self.sparse_by} needs a mask, set sparse_fraction below 1 as well"
            )
        return self

    @model_validator(mode="after")
    def _something_to_measure_on(self) -> TaskConfig:
        if self.sparse_text and self.sparse_by != "sensitivity":
            raise ValueError(
                f"sparse_text = {self.sparse_text} is read by sparse_by = sensitivity only, here "
                f"it is {self.sparse_by}: leave it out, or set sparse_by"
            )
        if self.sparse_by == "sensitivity" and not (self.sparse_text or self.validation_examples):
            raise ValueError(
                "sparse_by = sensitivity needs examples that no client holds: set sparse_text to "
                "a file of plain text, or validation_examples to a number"
            )
        return self
