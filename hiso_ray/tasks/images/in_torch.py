"""An image network as the Python that builds it from an exported folder, with torch alone."""

from __future__ import annotations

from torch import nn

IMPORTS = """\
from collections import OrderedDict

from safetensors.torch import load_file
from torch import nn"""


def in_torch(network: nn.Module) -> str:
    """Python that sets ``network`` to the layers and the weights in the folder ``name``."""
    layers = "\n".join(f"    {name}=nn.{layer}," for name, layer in network.named_children())
    return (
        f"network = nn.Sequential(OrderedDict(\n{layers}\n))\n"
        'network.load_state_dict(load_file(f"{name}/model.safetensors"))'
    )
