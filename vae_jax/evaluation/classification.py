"""Probes: classifiers of labels from codes (M1)."""

from __future__ import annotations

from vae_jax.data import unlabeled
from vae_jax.evaluation.subject import Subject
from vae_jax.metrics.classifiers import fit
from vae_jax.metrics.estimate import Estimate


def probe_svm(subject: Subject) -> dict[str, Estimate]:
    """Returns the accuracy of a Gaussian-kernel SVM on mean codes: see `_measure`."""
    return _measure(subject, "probe_svm")


def probe_logistic(subject: Subject) -> dict[str, Estimate]:
    """Returns the accuracy of logistic regression on mean codes: see `_measure`."""
    return _measure(subject, "probe_logistic")


def knn(subject: Subject) -> dict[str, Estimate]:
    """Returns the accuracy of the vote of the 5 nearest labeled codes: see `_measure`."""
    return _measure(subject, "knn")


def _measure(subject: Subject, name: str) -> dict[str, Estimate]:
    """Returns the accuracy on the split of a classifier of mean codes E[z|x]: M1 of arXiv:1406.5298, sec. 3.1.

    It learns from the labeled training examples (`Run.labeled`) and predicts the labels of the split.

    Raises:
      InputError: there are no labels, fewer than two classes, or a code that is not finite.
    """
    label, scored = subject.labels(name)
    # The classifier learns from training labels alone; the labels of the split only score it.
    known = subject.labeled
    subject.protocol[name] = f"learned from the mean codes of {len(known.mean):,} labelled training examples"
    # Nothing is right or wrong of an example whose label is unknown.
    unlabeled.counted(scored, lambda text: subject.add(name, text))
    guess = fit(name, known.mean, known.extra["label"])(subject.codes.mean[scored])
    return {name: Estimate.of(guess == label)}
