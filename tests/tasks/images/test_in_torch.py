"""Networks as the Python that model cards show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hiso_ray.tasks.images.in_torch import IMPORTS, in_torch
from hiso_ray.tasks.images.networks import network
from hiso_ray.tasks.images.vision import SETS


@pytest.mark.parametrize(
    ("model", "images"),
    [("mlp-5", "digits"), ("cnn", "mnist"), ("cnn", "fashion_mnist"), ("cnn", "cifar10")],
)
def test_the_code_builds_the_network(model: str, images: str, tmp_path: Path) -> None:
    mine = network(model, SETS[images])
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in mine.parameters():
            weights.normal_(generator=random)
    save_file(mine.state_dict(), tmp_path / "model.safetensors")
    variables: dict[str, Any] = {"name": str(tmp_path)}
    exec(f"{IMPORTS}\n{in_torch(mine)}", variables)
    batch = torch.randn(3, *SETS[images].shape, generator=random)
    assert torch.equal(variables["network"](batch), mine(batch))
