"""Looks at runs and sweeps from outside, by their files: ``show``, ``watch``, ``report --live``."""
