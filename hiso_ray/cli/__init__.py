"""The command line."""

from hiso_ray.cli.commands import main

__all__ = ["main"]
