"""How well codes tell labels apart: a classifier trained on the codes of the labelled examples (M1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from vae_jax.errors import InputError
from vae_jax.evaluation.codes import encode_all
from vae_jax.evaluation.likelihood import Estimate
from vae_jax.model import Model
from vae_jax.train.state import TrainState

# metric -> classifier that is fitted to the codes; scikit-learn is imported when one is asked for.
PROBES = ("probe_svm", "probe_logistic", "knn")
NEIGHBOURS = 5


class Probed(NamedTuple):
    """Accuracy on the split that was asked for, by metric, and the number of labelled examples learned from."""

    metrics: dict[str, Estimate]
    labelled: int


def probe(
    model: Model,
    state: TrainState,
    labelled: Iterable[Mapping[str, Any]],
    batches: Iterable[Mapping[str, Any]],
    *,
    names: tuple[str, ...] = PROBES,
    report: Callable[[int], None] = lambda seen: None,
) -> Probed:
    """Returns the accuracy of classifiers on mean codes E[z|x]: M1 of arXiv:1406.5298, sec. 3.1.

    Args:
      model: its pure functions.
      state: a trained state.
      labelled: the labelled training examples, with `image` and `label`.
      batches: the split to classify, with `image` and `label`.
      names: of `PROBES`.
      report: called with the number of examples of `batches` done.

    Raises:
      InputError: there are no labels, fewer than two classes, or a code that is not finite.
    """
    known = encode_all(model, state, labelled)
    asked = encode_all(model, state, batches, report=report)
    if not np.isfinite(asked.mean).all():
        row, dim = np.argwhere(~np.isfinite(asked.mean))[0]
        raise InputError(f"{names[0]}: code {dim} of example {row} is not finite; train with a lower rate")
    if "label" not in known.extra or "label" not in asked.extra:
        raise InputError(f"{names[0]}: the data have no labels; choose data with labels")
    found = {}
    for name in names:
        guess = fit(name, known.mean, known.extra["label"])(asked.mean)
        found[name] = Estimate.of(guess == asked.extra["label"])
    return Probed(found, len(known.mean))


def fit(name: str, codes: np.ndarray, label: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function codes [N, D] -> labels [N] that a classifier learns from codes [M, D] and labels [M].

    For the probes dimensions are scaled to unit variance first: `probe_svm` has a Gaussian kernel, `probe_logistic` is
    linear. `knn` is the vote of the 5 nearest codes as they are, so that a dimension that carries nothing, and hardly
    varies, hardly counts.

    Raises:
      InputError: fewer than two classes, codes that are not finite, or fewer examples than neighbours.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    if len(np.unique(label)) < 2:
        raise InputError(f"{name}: the labelled examples are all of one class; it needs two or more")
    if not np.isfinite(codes).all():
        row, dim = np.argwhere(~np.isfinite(codes))[0]
        raise InputError(f"{name}: code {dim} of training example {row} is not finite; train with a lower rate")
    if name == "knn":
        if len(codes) < NEIGHBOURS:
            raise InputError(f"knn: {len(codes)} labelled examples are fewer than its {NEIGHBOURS} neighbours")
        return KNeighborsClassifier(NEIGHBOURS).fit(codes, label).predict
    kind = SVC(C=10.0) if name == "probe_svm" else LogisticRegression(max_iter=2000)
    return make_pipeline(StandardScaler(), kind).fit(codes, label).predict
