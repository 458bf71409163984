"""Losses of a module at flat weight vectors, and their derivatives."""
