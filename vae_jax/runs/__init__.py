"""Runs: their configuration, their folder, and the data and experiments that they come from."""

from __future__ import annotations

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    # `from vae_jax.runs import Run`, without loading checkpoints for whoever needs the configuration alone.
    if name == "Run":
        return importlib.import_module("vae_jax.runs.run").Run
    raise AttributeError(f"module 'vae_jax.runs' has no attribute {name!r}")
