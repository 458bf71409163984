"""The method and its hyper-parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from hiso_ray.config.curvatures import CURVATURES, Curvature
from hiso_ray.config.method_row import Method
from hiso_ray.config.methods import METHODS
from hiso_ray.config.section import Auto, NaturalInt, PositiveFloat, PositiveInt, Section, given

if TYPE_CHECKING:
    Name = str
    CurvatureName = str
else:
    Name = Literal[tuple(METHODS)]
    CurvatureName = Literal[tuple(CURVATURES)]
OWN = sorted({name for row in METHODS.values() for name in row.own})  # fields that accept `auto`


def own_value(method: str, field: str) -> Any:
    """The value that a field has for a method by default."""
    return METHODS[method].own.get(field, MethodConfig.model_fields[field].default)


class MethodConfig(Section):
    """Fields that are left out, or given as ``auto``, take the method's own values (its row in
    ``methods``); fields that the method does not read must be left out."""

    name: Name = Field("hiso", description="the method; docs/methods.md has papers and rules")
    lr: PositiveFloat = Field(
        1e-3,
        description="learning rate (η; first-order methods and fedzo: of clients); the default "
        "suits reviews, digits want 0.02, cnn 2e-3, pretrained language models 1e-6 to 1e-3",
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant",
        description="the rate of a round: lr throughout, or falling from it in a line or along "
        "half a cosine; each record says its own",
    )
    schedule_rounds: Auto | PositiveInt = Field(
        "auto",
        description="linear, cosine: the round at which the rate has fallen; auto: "
        "federation.rounds when the run starts",
    )
    schedule_floor: float = Field(
        0.0, ge=0, lt=1, description="linear, cosine: share of lr that the rate falls to"
    )
    warmup_rounds: NaturalInt = Field(
        0, description="rounds over which the rate rises to lr, before it follows its schedule"
    )
    averaging: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="scalar methods: retention of an exponential average of x_1 to x_r, which is "
        "evaluated and exported in place of x_r (d more floats); 0: no average",
    )
    client_loss: Literal["plain", "calibrated"] = Field(
        "plain",
        description="loss that clients minimise: the task's, or its logits calibrated by the "
        "client's own label shares, against label skew (classification tasks)",
    )
    mu: PositiveFloat = Field(1e-3, description="smoothing radius of the finite difference (μ)")
    num_perturbations: PositiveInt = Field(
        5, description="directions per local step (P); mezo, hizoo, feedsign, fedkseed: 1"
    )
    probe: Literal["forward", "central", "exact"] = Field(
        "forward",
        description="a scalar is a forward difference (P+1 forward passes), a central one (2P), or "
        "the exact directional derivative by forward-mode differentiation; mezo, hizoo, feedsign, "
        "fedkseed: central",
    )
    directions: Literal["shared", "per_client"] = Field(
        "shared",
        description="sampled clients probe along the same directions, whose scalars are averaged, "
        "or each along its own, whose scalars are all sent on",
    )
    generator: Literal["philox", "torch"] = Field(
        "philox",
        description="what makes directions: philox, the same on every processor and GPU, or "
        "torch's own generator, whose numbers depend on the device",
    )
    distribution: Literal["gaussian", "rademacher"] = Field(
        "gaussian",
        description="of the elements of directions: standard normal, or ±1 with equal chances "
        "(generator philox)",
    )
    curvature: CurvatureName = Field(
        "diagonal",
        description="H: none (H = 1); diagonal; its mean per tensor, per row, or over all "
        "(scalar); frozen after curvature_rounds; random with the learned distribution; the "
        "learned one permuted; or the Hessian's own diagonal (oracle, every curvature_rounds)",
    )
    curvature_in: Literal["both", "probe", "update"] = Field(
        "both", description="where directions are scaled by H^{-1/2}"
    )
    curvature_rounds: PositiveInt = Field(
        100, description="frozen: rounds that H learns; oracle: rounds between estimates"
    )
    hessian_retention: float = Field(
        0.95, ge=0, lt=1, description="share of the old H kept at each update (β); hizoo: 0.999"
    )
    hessian_eps: PositiveFloat = Field(
        1e-8, description="floor added to what H learns, inside the average (ε)"
    )
    hessian_update: Literal["last", "all"] = Field(
        "last",
        description="H learns from the last local step of a round, or from each in turn; either "
        "way a round's steps are all made with the H of its start (the authors' code makes each "
        "with the H that the step before has left)",
    )
    momentum: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="scalar methods: of the shared update, from round to round (d more floats); "
        "methods that send weights: of local SGD, from zero each round",
    )
    projections: PositiveInt = Field(
        256,
        le=2**20,
        description="ferret: directions of a round, on which clients project their change (K); at "
        "most the number of trained weights",
    )
    seed_pool: int = Field(
        0, ge=0, le=2**20, description="fedkseed: seeds that directions are drawn from (K)"
    )
    server_lr: PositiveFloat = Field(
        1.0, description="first-order methods and fedzo: the server's rate (η_s); fedadam, "
        "fedyogi, fedadagrad: 0.01"
    )  # fmt: skip
    server_beta1: float = Field(
        0.9, ge=0, lt=1, description="retention of the server's first moment (β₁); fedadagrad: 0"
    )
    server_beta2: float = Field(
        0.99, ge=0, lt=1, description="retention of the server's second moment (β₂)"
    )
    server_eps: PositiveFloat = Field(1e-3, description="adaptivity of the server's optimizer (τ)")
    weight_decay: float = Field(0.0, ge=0, description="L2 decay in local SGD")
    prox: float = Field(
        0.0, ge=0, description="fedprox: weight of ½‖x − x_r‖² in a client's loss (ϱ)"
    )

    @property
    def row(self) -> Method:
        return METHODS[self.name]

    @property
    def directions_per_step(self) -> int:
        """Directions of one step of a record: P, or K where clients project."""
        return self.projections if self.row.projects else self.num_perturbations

    @property
    def rates(self) -> list[str]:
        """What to lower where numbers overflow."""
        own = [f"method.lr (now {self.lr:g})"]
        if "server_lr" in self.row.reads:
            own.append(f"method.server_lr (now {self.server_lr:g})")
        return own

    @property
    def curvature_row(self) -> Curvature:
        return CURVATURES[self.curvature]

    @model_validator(mode="before")
    @classmethod
    def _own_values(cls, values: Any) -> Any:
        name = values.get("name", "hiso") if isinstance(values, dict) else None
        if not isinstance(name, str) or name not in METHODS:
            return values  # the validation of `name` reports it
        filled = {field: own_value(name, field) for field in OWN}
        return filled | {f: v for f, v in values.items() if not (f in OWN and v == "auto")}

    @model_validator(mode="after")
    def _the_method_reads_them(self) -> MethodConfig:
        row = self.row
        for field in type(self).model_fields:
            value, own = getattr(self, field), own_value(self.name, field)
            if field == "name" or value == own or (field in row.reads and field not in row.fixed):
                continue
            allowed = f"it is {own} there" if field in row.own else "the method does not read it"
            others = [n for n, r in METHODS.items() if field in r.reads - r.fixed]
            raise ValueError(
                f"{field} = {value} with method.name {self.name}: {allowed}; leave {field} out, or "
                f"use {' or '.join([', '.join(others[:-1]), others[-1]] if others[1:] else others)}"
            )
        return self

    @model_validator(mode="after")
    def _the_curvature_reads_them(self) -> MethodConfig:
        if not self.curvature_row.reads_rounds and self.curvature_rounds != 100:
            raise ValueError(
                f"curvature_rounds = {self.curvature_rounds}: curvature {self.curvature} does not "
                "read it; leave it out, or use curvature frozen or oracle"
            )
        if not self.curvature_row.learns:
            learning = ("hessian_retention", "hessian_eps", "hessian_update")
            unread = [n for n in learning if getattr(self, n) != own_value(self.name, n)]
            if unread:
                raise ValueError(
                    f"{', '.join(unread)}: curvature {self.curvature} learns nothing; leave it out"
                )
        if self.curvature == "none" and self.curvature_in != "both":
            raise ValueError(
                f"curvature_in = {self.curvature_in}: there is no curvature; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _the_schedule_reads_them(self) -> MethodConfig:
        unread = [n for n in ("schedule_rounds", "schedule_floor") if n in given(self)]
        if self.schedule == "constant" and unread:
            values = ", ".join(f"{name} = {getattr(self, name)}" for name in unread)
            raise ValueError(
                f"{values}: a constant rate falls nowhere; leave {', '.join(unread)} out, or set "
                "schedule to linear or cosine"
            )
        return self

    @model_validator(mode="after")
    def _numbers_can_be_had(self) -> MethodConfig:
        if self.hessian_eps < 1e-37:
            raise ValueError(
                f"hessian_eps = {self.hessian_eps:g}: H is float32, whose smallest numbers are "
                "about 1e-38; give 1e-37 or more"
            )
        if self.generator == "torch" and self.distribution != "gaussian":
            raise ValueError(
                f"distribution = {self.distribution} with generator torch, which makes normals "
                "only: use generator philox, or leave distribution out"
            )
        if "seed_pool" in self.row.reads and self.seed_pool < 1:
            raise ValueError(
                f"seed_pool = 0: {self.name} draws its directions from at least one seed"
            )
        return self

    def renamed(self, name: str) -> dict[str, Any]:
        """The fields that were set for this method, with the name of another one."""
        fields = type(self).model_fields
        mine = {f: getattr(self, f) for f in fields if getattr(self, f) != own_value(self.name, f)}
        return mine | {"name": name}
