"""k-means on codes, against labels that it has not seen."""

from __future__ import annotations

import numpy as np

from vae_jax.data import unlabeled
from vae_jax.evaluation.subject import Subject
from vae_jax.metrics.estimate import Estimate
from vae_jax.metrics.partitions import RESTARTS, cluster


def measure(subject: Subject) -> dict[str, Estimate]:
    """Returns the metrics of `cluster` on the mean codes of a split.

    Raises:
      InputError: the data have no labels.
    """
    label, known = subject.labels("clustering")
    subject.protocol["clustering"] = (
        f"k-means on mean codes, {len(np.unique(label))} clusters, best of {RESTARTS} starts, made on the "
        f"{subject.examples} that are measured; labels only name the clusters (Hungarian matching)"
    )
    unlabeled.counted(known, lambda text: subject.add("clustering", text))
    # Mean codes: draws would scatter each example over its posterior and blur the clusters.
    return cluster(subject.codes.mean[known], label, seed=subject.seed)
