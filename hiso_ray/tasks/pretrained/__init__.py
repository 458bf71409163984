"""Pretrained models and their tokenizers, and which of their weights are trained."""
