"""The experiment: everything that decides a run, validated before anything starts.

The command line (``--federation.num_clients 64``) and ``config.yaml`` use the same section and
field names. ``auto`` is resolved when the run starts; only ``resources`` keeps it, since it depends
on the machine and does not affect results.
"""

from hiso_ray.config.aggregation import AggregationConfig, AttackConfig, UplinkConfig
from hiso_ray.config.experiment import Experiment, put, read_yaml
from hiso_ray.config.federation import DevicesConfig, FederationConfig
from hiso_ray.config.method import MethodConfig, own_value
from hiso_ray.config.method_row import Method
from hiso_ray.config.methods import METHODS
from hiso_ray.config.privacy import PrivacyConfig
from hiso_ray.config.prompt import PromptConfig
from hiso_ray.config.resources import DiagnosticsConfig, EvalConfig, ResourcesConfig
from hiso_ray.config.section import Section
from hiso_ray.config.task import LoraConfig, TaskConfig

__all__ = [
    "METHODS",
    "AggregationConfig",
    "AttackConfig",
    "DevicesConfig",
    "DiagnosticsConfig",
    "EvalConfig",
    "Experiment",
    "FederationConfig",
    "LoraConfig",
    "Method",
    "MethodConfig",
    "PrivacyConfig",
    "PromptConfig",
    "ResourcesConfig",
    "Section",
    "TaskConfig",
    "UplinkConfig",
    "own_value",
    "put",
    "read_yaml",
]
