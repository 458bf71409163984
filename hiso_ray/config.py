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


def _given(section: Section) -> set[str]:
    """Fields that differ from their defaults; a config.yaml names every field, so only values
    tell."""
    fields = type(section).model_fields.items()
    return {name for name, info in fields if getattr(section, name) != info.default}


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
    participation: Literal["uniform", "size", "cyclic"] = Field(
        "uniform",
        description="who is sampled: anyone alike (uniform), in proportion to the number of "
        "examples (size), or only clients of the group whose turn it is (cyclic)",
    )
    cycle_groups: PositiveInt = Field(
        4, description="cyclic: groups of clients that are available in turn, one round each"
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="probability that a sampled client goes away during its turn"
    )

    @model_validator(mode="after")
    def _cohort_fits(self) -> FederationConfig:
        if self.clients_per_round > self.num_clients:
            raise ValueError(
                f"clients_per_round = {self.clients_per_round} is larger than the federation: "
                f"at most num_clients = {self.num_clients}"
            )
        smallest = self.num_clients // self.cycle_groups
        if self.participation == "cyclic" and self.clients_per_round > smallest:
            raise ValueError(
                f"cycle_groups = {self.cycle_groups} of num_clients = {self.num_clients} leaves "
                f"{smallest} clients in the smallest group, clients_per_round = "
                f"{self.clients_per_round} must be found in each: at most "
                f"{self.num_clients // self.clients_per_round} groups"
            )
        if self.participation != "cyclic" and "cycle_groups" in _given(self):
            raise ValueError(
                f"cycle_groups = {self.cycle_groups} is of cyclic participation only: set "
                "participation to cyclic, or leave cycle_groups out"
            )
        return self


class DevicesConfig(Section):
    profile: str = Field(
        "none",
        description="what the clients run on: none (no virtual clock), drawn (log-normal speeds "
        "and links), or a CSV file with columns client, speed, uplink_mbps, downlink_mbps",
    )
    forward_seconds: float = Field(
        0.5,
        gt=0,
        le=1e6,
        description="forward pass of one minibatch on a device of speed 1 [s]; measure it",
    )
    replay_seconds: float = Field(
        0.0, ge=0, le=1e6, description="applying one missed record on a device of speed 1 [s]"
    )
    speed_spread: float = Field(
        0.5, ge=0, le=5, description="drawn: σ of the log of a device's speed, whose median is 1"
    )
    uplink_mbps: float = Field(
        10.0, ge=1e-6, le=1e6, description="drawn: median rate up [Mbit/s]; 1 Mbit is 10^6 bits"
    )
    downlink_mbps: float = Field(
        50.0, ge=1e-6, le=1e6, description="drawn: median rate down [Mbit/s]"
    )
    bandwidth_spread: float = Field(
        0.5, ge=0, le=5, description="drawn: σ of the log of a link's rates, up and down alike"
    )
    jitter: float = Field(
        0.2, ge=0, le=5, description="σ of the log of how much slower or faster one turn computes"
    )
    deadline: Literal["none"] | PositiveFloat = Field(
        "none",
        description="time after which the server closes a round [s]; who answers later is left "
        "out of its mean; none waits for everybody",
    )

    @model_validator(mode="after")
    def _something_reads_them(self) -> DevicesConfig:
        if self.profile == "drawn":
            return self
        if self.profile == "none":
            unread = set(DevicesConfig.model_fields) - {"profile"}
            what = "there is no clock without devices: set profile to drawn or a CSV file, or"
        else:
            unread = {"speed_spread", "uplink_mbps", "downlink_mbps", "bandwidth_spread"}
            what = f"speeds and links are those of {self.profile}:"
        given = [name for name in DevicesConfig.model_fields if name in unread & _given(self)]
        if given:
            values = ", ".join(f"{name} = {getattr(self, name)}" for name in given)
            raise ValueError(f"{values}: {what} leave {', '.join(given)} out")
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
    gpus_per_client: Auto | Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="share of a GPU an actor holds [GPUs]; auto measures one turn's memory and "
        "packs a GPU with as many actors as it holds",
    )
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
    snapshot_every: int = Field(
        500,
        ge=0,
        description="rounds between snapshots of the weights in the run folder, from which "
        "restarted actors and resume start; 0 writes none",
    )
    tries: int = Field(
        4,
        ge=3,
        description="how often a client's turn is tried before the run stops: twice as it was "
        "sent, then alone",
    )
    answer_seconds: Auto | PositiveFloat = Field(
        "auto",
        description="an actor that has not answered for so long counts as hung and is restarted "
        "[s]; auto goes by what answers took so far: a minute and twenty times the slowest",
    )
    reserve_seconds: PositiveFloat = Field(
        60.0, description="how long to wait for all actors' resources on a busy cluster [s]"
    )

    @model_validator(mode="after")
    def _whole_gpus(self) -> ResourcesConfig:
        if self.gpus_per_client == "auto":
            return self
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
    devices: DevicesConfig = DevicesConfig()
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
        """SHA-256 over the fields that decide what a round adds to the ledger.

        Resources and evaluation do not, nor how many rounds follow. Where model, data and the
        devices' profile lie does not either; what they hold does, and has digests of its own in
        the ledger's header.
        """
        task = {"model", "data", "eval_batch_size", "eval_examples", "max_new_tokens", "metric"}
        elsewhere: dict[str, Any] = {
            "resources": True,
            "eval": True,
            "task": task,
            "federation": {"rounds"},
            "devices": {"profile"},
        }
        decisive = self.model_dump(exclude=elsewhere)
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
