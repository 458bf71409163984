"""Keeps the credentials of trackers out of what is said and written."""

from __future__ import annotations

import os
import re

SECRETS = (
    "DATABRICKS_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "WANDB_API_KEY",
)
IN_ADDRESS = re.compile(r"(?<=://)[^/@\s]+@")


def without_secrets(text: str) -> str:
    """The text with ``***`` for the credentials in this process's environment, and without those in
    addresses (``https://user:password@host``)."""
    for name in SECRETS:
        if value := os.environ.get(name):
            text = text.replace(value, "***")
    return IN_ADDRESS.sub("", text)
