"""The experiment: everything that decides a run, validated before anything starts.

Sections and field names are the ones of the command line (``--federation.num_clients 64``) and of
``config.yaml``. ``auto`` is resolved when the run starts; only ``resources`` keep it, since they
depend on the machine and decide no result.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

Auto = Literal["auto"]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
MaxLength = Annotated[int, Field(ge=8, le=65536)]


class Section(BaseModel):
    """Frozen, no unknown keys, no NaN, and no booleans where a number is meant."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_booleans(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for name, value in values.items():
                if isinstance(value, bool):
                    raise ValueError(f"{name} = {value}: no field takes true or false")
        return values


class LoraConfig(Section):
    r: int = Field(0, ge=0, description="rank of the adapters; 0 trains without LoRA")
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
        "(classification), squad, drop, xsum (generation), digits, mnist, fashion_mnist, cifar10 "
        "(images) or quadratic",
    )
    model: str = Field(
        "auto",
        description="model: a Hugging Face hub name or local folder (language tasks), mlp-WIDTH or "
        "cnn (images), diagonal-DIMENSION (quadratic); auto is the task's own default",
    )
    data: str = Field(
        "auto",
        description="data: a hub dataset, or a local folder or file (TSV, CSV, JSONL, Parquet); "
        "auto is the task's own default",
    )
    train_examples: Auto | PositiveInt = Field(
        "auto", description="take the first N training examples; auto is the task's own number"
    )
    eval_examples: Auto | PositiveInt = Field(
        "auto", description="take the first N evaluation examples; auto is the task's own number"
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
    sparse_by: Literal["magnitude", "random"] = Field(
        "magnitude",
        description="which weights a sparse mask keeps: the largest, or drawn at random",
    )
    lora: LoraConfig = LoraConfig()

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
            raise ValueError("sparse_by = random needs a mask, set sparse_fraction below 1 as well")
        return self


class FederationConfig(Section):
    num_clients: PositiveInt = Field(64, description="clients in the federation")
    clients_per_round: PositiveInt = Field(8, description="clients sampled per round (cohort)")
    rounds: PositiveInt = Field(200, description="communication rounds")
    local_steps: PositiveInt = Field(1, description="local steps per round (τ)")
    partition: Literal["dirichlet", "shards", "sizes", "iid"] = Field(
        "dirichlet",
        description="how examples are split over clients: dirichlet (skewed groups), shards (each "
        "client holds a few groups only), sizes (random contents, power-law sizes) or iid",
    )
    by: str = Field(
        "label",
        description="what dirichlet and shards group examples by: label, length (deciles of the "
        "prompt's tokens), or a column of the data (topic, author, ...)",
    )
    alpha: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="Dirichlet concentration of each group over the clients; smaller is skewer",
    )
    shards_per_client: PositiveInt = Field(
        2, description="shards: pieces of the sorted examples that a client holds"
    )
    size_exponent: float = Field(
        1.0, ge=0, le=10, description="sizes: the client at rank k holds a share like k^-exponent"
    )
    min_examples: PositiveInt = Field(1, description="fewest examples a client may hold")

    @model_validator(mode="after")
    def _cohort_fits(self) -> FederationConfig:
        if self.clients_per_round > self.num_clients:
            raise ValueError(
                f"clients_per_round = {self.clients_per_round} is larger than the federation: "
                f"at most num_clients = {self.num_clients}"
            )
        return self


CURVATURE_OF = {"hiso": "diagonal", "decomfl": "none"}


class MethodConfig(Section):
    name: Literal["hiso", "decomfl"] = Field(
        "hiso", description="hiso (arXiv 2506.02370) or decomfl (arXiv 2405.15861)"
    )
    lr: PositiveFloat = Field(
        1e-3,
        description="learning rate (η); the default suits reviews, digits want 0.02, cnn 2e-3, "
        "pretrained language models 1e-6 to 1e-3",
    )
    mu: PositiveFloat = Field(1e-3, description="smoothing radius of the finite difference (μ)")
    num_perturbations: PositiveInt = Field(5, description="directions per local step (P)")
    probe: Literal["forward", "central"] = Field(
        "forward", description="finite difference: forward (P+1 forward passes) or central (2P)"
    )
    curvature: Literal["auto", "none", "diagonal", "scalar"] = Field(
        "auto",
        description="H: none (H = 1), diagonal, or scalar (its mean); auto is the method's own",
    )
    hessian_retention: float = Field(
        0.95, ge=0, lt=1, description="share of the old H kept at each update (β)"
    )
    hessian_eps: PositiveFloat = Field(1e-8, description="floor added to Δ² inside the average (ε)")
    hessian_update: Literal["last", "all"] = Field(
        "last", description="H learns from the last local step of a round, or from each in turn"
    )

    @model_validator(mode="after")
    def _curvature_fits(self) -> MethodConfig:
        if self.name == "decomfl" and self.curvature not in ("auto", "none"):
            raise ValueError(
                f"curvature = {self.curvature}: decomfl has none; leave curvature at auto, or use "
                "method.name hiso"
            )
        return self


class ResourcesConfig(Section):
    executor: Literal["ray", "serial"] = Field("ray", description="ray actors, or a plain for-loop")
    cpus_per_client: PositiveFloat = Field(1.0, description="CPUs an actor holds [cores]")
    gpus_per_client: float = Field(0.0, ge=0, description="share of a GPU an actor holds [GPUs]")
    clients_per_actor: Auto | PositiveInt = Field(
        "auto", description="clients packed on one actor; auto is one where all fit, else evenly"
    )
    max_actors: Auto | PositiveInt = Field(
        "auto", description="most client actors; auto is what CPUs and GPUs hold at once"
    )
    direction_cache_mb: float = Field(
        256.0,
        ge=0,
        description="memory for the directions of one round per actor [MiB]; "
        "directions that do not fit are generated again",
    )

    @model_validator(mode="after")
    def _whole_gpus(self) -> ResourcesConfig:
        if self.gpus_per_client > 1 and self.gpus_per_client != int(self.gpus_per_client):
            raise ValueError(
                f"gpus_per_client = {self.gpus_per_client}: a share below 1, or whole GPUs"
            )
        return self


class EvalConfig(Section):
    every: PositiveInt = Field(25, description="rounds between evaluations")


class Experiment(Section):
    """One federation, complete. ``Experiment()`` is the embedded default job.

    Raises:
        pydantic.ValidationError: (a ``ValueError``) unknown key, wrong type, value out of range or
            impossible combination; :func:`hiso_ray.fields.explain` turns it into words.
    """

    seed: int = Field(0, ge=0, lt=2**63, description="run seed; everything random derives from it")
    task: TaskConfig = TaskConfig()
    federation: FederationConfig = FederationConfig()
    method: MethodConfig = MethodConfig()
    resources: ResourcesConfig = ResourcesConfig()
    eval: EvalConfig = EvalConfig()

    @property
    def curvature(self) -> str:
        """The curvature arm after ``auto`` is resolved: none, diagonal or scalar."""
        given = self.method.curvature
        return CURVATURE_OF[self.method.name] if given == "auto" else given

    def changed(self, **dotted: Any) -> Experiment:
        """A validated copy with fields replaced: ``changed(**{"method.lr": 0.1, "seed": 3})``."""
        values = self.model_dump()
        for name, value in dotted.items():
            put(values, name, value)
        return Experiment.model_validate(values)

    def digest(self) -> str:
        """SHA-256 over the fields that decide the weights.

        Resources and evaluation do not; where model and data lie does not either, what they hold
        does, and has digests of its own in the ledger's header.
        """
        task = {"model", "data", "eval_batch_size", "eval_examples", "max_new_tokens", "metric"}
        decisive = self.model_dump(exclude={"resources": True, "eval": True, "task": task})
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(), sort_keys=False)


def load(path: Path | str) -> dict[str, Any]:
    """The mapping in a YAML file, not yet validated.

    Raises:
        ValueError: the file is missing, is not YAML, or does not hold a mapping.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, not sections of fields")
    return values


def put(values: dict[str, Any], dotted: str, value: Any) -> None:
    """``put(values, "task.lora.r", 8)`` sets ``values["task"]["lora"]["r"]``.

    Raises:
        ValueError: something on the way is not a section of fields.
    """
    *sections, field = dotted.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ValueError(f"{section} = {values!r} is not a section of fields")
    values[field] = value
