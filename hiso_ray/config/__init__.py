"""The experiment: everything that decides a run, validated before anything starts.

Sections and field names are the ones of the command line (``--federation.num_clients 64``) and of
``config.yaml``. ``auto`` is resolved when the run starts; only ``resources`` keep it, since they
depend on the machine and decide no result.
"""

from hiso_ray.config.experiment import Experiment, load, put
from hiso_ray.config.federation import DevicesConfig, FederationConfig
from hiso_ray.config.method import CURVATURE_OF, MethodConfig
from hiso_ray.config.resources import EvalConfig, ResourcesConfig
from hiso_ray.config.section import Section
from hiso_ray.config.task import LoraConfig, TaskConfig

__all__ = [
    "CURVATURE_OF",
    "DevicesConfig",
    "EvalConfig",
    "Experiment",
    "FederationConfig",
    "LoraConfig",
    "MethodConfig",
    "ResourcesConfig",
    "Section",
    "TaskConfig",
    "load",
    "put",
]
