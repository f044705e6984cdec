"""Classifiers of labels from codes: a kernel machine, a linear one, and the nearest neighbors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vae_jax.errors import InputError

NEIGHBORS = 5


def fit(name: str, codes: np.ndarray, label: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function codes [N, D] -> labels [N] that a classifier learns from codes [M, D] and labels [M].

    For the probes dimensions are scaled to unit variance first: `probe_svm` has a Gaussian kernel, `probe_logistic` is
    linear. `knn` is the vote of the 5 nearest codes as they are, so that a dimension that carries nothing, and hardly
    varies, hardly counts.

    Raises:
      InputError: fewer than two classes, codes that are not finite, or fewer examples than neighbors.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    # Checked before the fit, whose own errors would not name the metric.
    if len(np.unique(label)) < 2:
        raise InputError(f"{name}: the labels are all of one class; give examples of two classes or more")
    if not np.isfinite(codes).all():
        row, dim = np.argwhere(~np.isfinite(codes))[0]
        raise InputError(f"{name}: code {dim} of example {row} is not finite; leave out examples that are not finite")
    if name == "knn":
        if len(codes) < NEIGHBORS:
            raise InputError(
                f"knn: {len(codes)} labeled examples are fewer than its {NEIGHBORS} neighbors; give {NEIGHBORS} or more"
            )
        return KNeighborsClassifier(NEIGHBORS).fit(codes, label).predict
    # Up to 2000 iterations: with scikit-learn's default of 100, lbfgs may stop before it has converged.
    kind = SVC(C=10.0) if name == "probe_svm" else LogisticRegression(max_iter=2000)
    return make_pipeline(StandardScaler(), kind).fit(codes, label).predict
