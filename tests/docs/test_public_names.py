"""What may be imported is explained, and stands on the site's pages."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module
from pathlib import Path

import pytest

import hiso_ray
from hiso_ray import analysis

PAGES = Path(__file__).resolve().parents[2] / "docs" / "site"
MODULES = [module.name for module in pkgutil.iter_modules(analysis.__path__)]


def test_the_package() -> None:
    page = (PAGES / "api.md").read_text(encoding="utf-8")
    for name in hiso_ray.__all__:
        assert inspect.getdoc(getattr(hiso_ray, name))
        assert name in page


@pytest.mark.parametrize("name", MODULES)
def test_analysis(name: str) -> None:
    page = (PAGES / "analysis.md").read_text(encoding="utf-8")
    assert f".. automodule:: hiso_ray.analysis.{name}\n" in page
    module = import_module(f"hiso_ray.analysis.{name}")
    for public, found in vars(module).items():
        if not public.startswith("_") and getattr(found, "__module__", None) == module.__name__:
            assert inspect.getdoc(found), public
