"""Metrics by the names that they have elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vae_jax.errors import either, nearest

# Other name, in lower case with underscores -> what to request here.
_NAMES = {
    "fid": "use --metrics frechet_distance, with --features FILE.safetensors for Inception-v3's features",
    "kid": "use --metrics mmd, with --features FILE.safetensors for Inception-v3's features",
    "nll": "use --metrics iwae: its bound on log p(x) is -NLL",
    "log_likelihood": "use --metrics iwae, a lower bound on log p(x)",
    "kl": "use --metrics rate",
    "kld": "use --metrics rate",
    "reconstruction_loss": "use --metrics distortion",
    "recon": "use --metrics distortion, or reconstruction for image similarity",
    "loss": "use --metrics elbo",
    "precision": "use --metrics precision_recall",
    "recall": "use --metrics precision_recall",
    "density": "use --metrics density_coverage",
    "coverage": "use --metrics density_coverage",
    "factor_vae": "use --metrics factorvae_score",
    "beta_vae": "use --metrics betavae_score",
    "tc": "use --metrics total_correlation",
    "mi": "use --metrics mutual_information",
    "nmi": "use --metrics clustering",
    "ari": "use --metrics clustering",
    "ece": "use --metrics calibration",
    "auroc": "use --metrics anomaly with --outliers",
    "auc": "use --metrics anomaly with --outliers",
}


def meant(name: str, known: Iterable[str]) -> str:
    """Returns words for a metric that does not exist."""
    words = _NAMES.get(name.lower().replace("-", "_"))
    # Flags are options of the same name in Python.
    return either(words, re.sub(r"--(\w+)", r"\1", words)) if words else nearest(name, known)
