"""The sections of an experiment, put together."""

from __future__ import annotations

from pydantic import Field

from hiso_ray.config.aggregation import AggregationConfig, AttackConfig, UplinkConfig
from hiso_ray.config.federation import DevicesConfig, FederationConfig
from hiso_ray.config.method import MethodConfig
from hiso_ray.config.privacy import PrivacyConfig
from hiso_ray.config.resources import DiagnosticsConfig, EvalConfig, ResourcesConfig
from hiso_ray.config.section import Section
from hiso_ray.config.task import TaskConfig
from hiso_ray.config.tracking import Tracking


class Sections(Section):
    """The sections of an :class:`~.Experiment`, each valid by itself."""

    seed: int = Field(0, ge=0, lt=2**63, description="run seed; everything random derives from it")
    tracking: Tracking = Field(
        ("tensorboard",),
        description="where the run is shown besides its folder: any of tensorboard, mlflow, wandb; "
        "where these are and their tokens come from the environment (docs/tracking.md)",
    )
    task: TaskConfig = TaskConfig()
    federation: FederationConfig = FederationConfig()
    devices: DevicesConfig = DevicesConfig()
    method: MethodConfig = MethodConfig()
    uplink: UplinkConfig = UplinkConfig()
    aggregation: AggregationConfig = AggregationConfig()
    attack: AttackConfig = AttackConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    resources: ResourcesConfig = ResourcesConfig()
    eval: EvalConfig = EvalConfig()
    diagnostics: DiagnosticsConfig = DiagnosticsConfig()

    @property
    def sends_weights(self) -> bool:
        """Whether clients send d floats; otherwise the model is a fold over the ledger."""
        return self.method.row.sends == "weights"

    @property
    def record_steps(self) -> int:
        """Steps of a record of scalars: the τ local ones, or one where clients project their whole
        change."""
        return 1 if self.method.row.projects else self.federation.local_steps

    @property
    def precision(self) -> str:
        """The uplink precision: prescribed by the method, or else as configured."""
        own = self.method.row.uplink
        return self.uplink.precision if own == "float32" else own

    @property
    def rule(self) -> str:
        """The aggregation rule: prescribed by the method, or else as configured."""
        own = self.method.row.aggregation
        return self.aggregation.rule if own == "mean" else own
