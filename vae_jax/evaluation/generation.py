"""Distances of generated images from real ones in the feature space of a run: the scores are in `metrics`."""

from __future__ import annotations

from vae_jax.evaluation.features import pair
from vae_jax.evaluation.subject import Subject
from vae_jax.metrics.discrepancy import mmd
from vae_jax.metrics.estimate import Estimate
from vae_jax.metrics.frechet import frechet_distance
from vae_jax.metrics.manifolds import density_coverage, precision_recall


def measure_frechet(subject: Subject) -> dict[str, Estimate]:
    """Returns the metric `frechet_distance` of a run."""
    real, generated, text, called = pair(subject)
    # The covariance of n rows has rank n - 1 at most. The number is given all the same, with the reason beside it.
    few = min(len(real), len(generated)) <= real.shape[1]
    text += "; fewer images than features, so the covariances are singular and the distance is biased upwards" * few
    subject.protocol["frechet_distance"] = f"{text}; {called}" if called else text
    return {"frechet_distance": frechet_distance(real, generated)}


def measure_precision_recall(subject: Subject) -> dict[str, Estimate]:
    """Returns the metrics `precision` and `recall` of a run."""
    # The same features of the same images for all four metrics: `pair` keeps them on the subject.
    real, generated, text, _ = pair(subject)
    subject.protocol["precision_recall"] = f"{text}; 3 neighbours"
    return precision_recall(real, generated)


def measure_density_coverage(subject: Subject) -> dict[str, Estimate]:
    """Returns the metrics `density` and `coverage` of a run."""
    real, generated, text, _ = pair(subject)
    subject.protocol["density_coverage"] = f"{text}; 5 neighbours"
    return density_coverage(real, generated)


def measure_mmd(subject: Subject) -> dict[str, Estimate]:
    """Returns the metrics `mmd_polynomial` and `mmd_rbf` of a run."""
    real, generated, text, _ = pair(subject)
    subject.protocol["mmd"] = f"{text}; unbiased squares; kernels (x.y / F + 1)^3, and Gaussian of the median distance"
    return mmd(real, generated)
