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
PROBES = ("probe_svm", "probe_logistic")


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
      InputError: there are no labels, or fewer than two classes.
    """
    known = encode_all(model, state, labelled)
    asked = encode_all(model, state, batches, report=report)
    if "label" not in known.extra or "label" not in asked.extra:
        raise InputError(f"{names[0]}: the data have no labels; choose data with labels")
    found = {}
    for name in names:
        guess = fit(name, known.mean, known.extra["label"])(asked.mean)
        found[name] = Estimate.of(guess == asked.extra["label"])
    return Probed(found, len(known.mean))


def fit(name: str, codes: np.ndarray, label: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function codes [N, D] -> labels [N] that a classifier learns from codes [M, D] and labels [M].

    Dimensions are scaled to unit variance first. `probe_svm` has a Gaussian kernel, `probe_logistic` is linear.

    Raises:
      InputError: fewer than two classes.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    if len(np.unique(label)) < 2:
        raise InputError(f"{name}: the labelled examples are all of one class; it needs two or more")
    kind = SVC(C=10.0) if name == "probe_svm" else LogisticRegression(max_iter=2000)
    return make_pipeline(StandardScaler(), kind).fit(codes, label).predict
