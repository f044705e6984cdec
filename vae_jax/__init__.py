"""vae_jax: variational autoencoders in JAX.

    import vae_jax as vj

    run = vj.train_run(vj.experiment("beta_vae", steps=2000), "runs/mine")
    vj.evaluate_run(run)["metrics"]       # {"elbo": {"value": ..., "stderr": ..., "n": ...}, ...}
    run = vj.load("runs/mine")            # the same, from another shell
    run.sample(64)                        # float32 [64, 32, 32, 1]
    codes = run.encode("sprites")         # codes.mean [N, 10]; also an array, a path
    run.decode(codes)                     # float32 [N, 32, 32, 1]
    run.plot_traversals()                 # a matplotlib figure

Names load on first use, so that importing the package costs almost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae_jax import metrics, quantizers
    from vae_jax.api import (
        OpenRun,
        arithmetic,
        compare,
        compress,
        decode,
        decompress,
        encode,
        evaluate_run,
        experiment,
        fit_baseline,
        fit_prior,
        impute,
        interpolate,
        load,
        reconstruct,
        report,
        resume,
        sample,
        score,
        sweep,
        train_run,
        traverse,
    )
    from vae_jax.data import DataConfig
    from vae_jax.errors import InputError
    from vae_jax.model import Aux, Context, Model
    from vae_jax.models import VAE, Autoencoder
    from vae_jax.runs.config import Config, Evaluation, Logging
    from vae_jax.runs.run import Run
    from vae_jax.train import MeshConfig, Optimizer, TrainState, init_state, make_train_step, pmap_step

    __version__: str

_HOME = {
    "Autoencoder": "vae_jax.models",
    "Aux": "vae_jax.model",
    "Config": "vae_jax.runs.config",
    "Context": "vae_jax.model",
    "DataConfig": "vae_jax.data",
    "Evaluation": "vae_jax.runs.config",
    "InputError": "vae_jax.errors",
    "Logging": "vae_jax.runs.config",
    "MeshConfig": "vae_jax.train",
    "Model": "vae_jax.model",
    "Optimizer": "vae_jax.train",
    "Run": "vae_jax.runs.run",
    "TrainState": "vae_jax.train",
    "VAE": "vae_jax.models",
    "OpenRun": "vae_jax.api",
    "evaluate_run": "vae_jax.api",
    "arithmetic": "vae_jax.api",
    "compare": "vae_jax.api",
    "compress": "vae_jax.api",
    "decode": "vae_jax.api",
    "decompress": "vae_jax.api",
    "encode": "vae_jax.api",
    "fit_baseline": "vae_jax.api",
    "fit_prior": "vae_jax.api",
    "impute": "vae_jax.api",
    "interpolate": "vae_jax.api",
    "load": "vae_jax.api",
    "reconstruct": "vae_jax.api",
    "report": "vae_jax.api",
    "sample": "vae_jax.api",
    "score": "vae_jax.api",
    "traverse": "vae_jax.api",
    "experiment": "vae_jax.api",
    "init_state": "vae_jax.train",
    "make_train_step": "vae_jax.train",
    "pmap_step": "vae_jax.train",
    "resume": "vae_jax.api",
    "sweep": "vae_jax.api",
    "train_run": "vae_jax.api",
}

__all__ = [
    "VAE",
    "Autoencoder",
    "Aux",
    "Config",
    "Context",
    "DataConfig",
    "Evaluation",
    "InputError",
    "Logging",
    "MeshConfig",
    "Model",
    "OpenRun",
    "Optimizer",
    "Run",
    "TrainState",
    "__version__",
    "arithmetic",
    "compare",
    "compress",
    "decode",
    "decompress",
    "encode",
    "evaluate_run",
    "experiment",
    "fit_baseline",
    "fit_prior",
    "impute",
    "init_state",
    "interpolate",
    "load",
    "make_train_step",
    "metrics",
    "pmap_step",
    "quantizers",
    "reconstruct",
    "report",
    "resume",
    "sample",
    "score",
    "sweep",
    "train_run",
    "traverse",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in ("metrics", "quantizers"):  # vj.metrics.mig(codes, factors), with no import of its own
        return importlib.import_module(f"vae_jax.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'vae_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def _version() -> str:
    """Returns the version that pyproject.toml gave the installed package."""
    from importlib import metadata

    try:
        return metadata.version("vae_jax")
    except metadata.PackageNotFoundError:  # sources on PYTHONPATH that were never installed
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted(__all__)
