"""Losses of a module at flat vectors of weights, and their derivatives."""
