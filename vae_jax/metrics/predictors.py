"""Scores of classifiers and regressors that are trained to find the factors in the codes: SAP, explicitness."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vae_jax.metrics.arrays import (
    RESAMPLES,
    Discrete,
    Table,
    bootstrap_error,
    mask,
    one_hot_codes,
    scores,
    split,
    standardized,
    table,
)

TRAIN, TEST = 10_000, 5_000


class Sap(NamedTuple):
    """Separated attribute predictability.

    Attributes:
      value: mean over factors.
      stderr: bootstrap: classifiers trained and tested again on rows drawn with replacement.
      per_factor: [F].
      scores: accuracy on the test rows (or R^2) of each code alone on each factor, [D, F].
    """

    value: float
    stderr: float | None
    per_factor: np.ndarray
    scores: np.ndarray


class Explicitness(NamedTuple):
    """How well a linear classifier ranks each factor's values.

    Attributes:
      value: mean over factors of the area under the ROC curve on the test rows.
      stderr: bootstrap, as of `Sap`.
      per_factor: [F].
      train: the same on the training rows.
    """

    value: float
    stderr: float | None
    per_factor: np.ndarray
    train: float


def sap(
    codes: np.ndarray,
    factors: np.ndarray,
    *,
    train: int = TRAIN,
    test: int = TEST,
    continuous: bool = False,
    names: Sequence[str] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Sap:
    """Separated attribute predictability: how much better the best code alone predicts a factor than the second best.

        SAP = 1/F sum_k (S_(1)k - S_(2)k),   S_dk = accuracy of a linear SVM from z_d to y_k

    disentanglement_lib's settings: LinearSVC with C = 0.01 and balanced classes, 10,000 training and 5,000 test rows.
    Factors as numbers (`continuous`) take S_dk = squared correlation instead, on the training rows, with no classifier.

    Args:
      codes: mean codes [N, D], D >= 2.
      factors: values of the factors [N, F].
      train, test: rows, drawn without replacement.
      continuous: factors are numbers.
      names: of the factors, for messages.
      resamples: bootstrap samples for the standard error, each as costly as the score; 0 for none.
      seed: of the draws.

    Returns:
      `Sap`, in [0, 1], higher is better.

    Raises:
      InputError: codes that are not finite, a constant factor, wrong shapes, or too few rows.

    Reference: arXiv:1711.00848, section 3

    Example:
      >>> factors = np.array([[i, j] for i in range(4) for j in range(4)] * 25)
      >>> score = sap(factors, factors, train=300, test=100, continuous=True, resamples=0)
      >>> [[round(float(value), 1) for value in row] for row in score.scores]  # of each code for each factor
      [[1.0, 0.0], [0.0, 1.0]]
    """
    facts = table("sap", codes, factors, names, least_codes=2)
    rows, shown = split("sap", len(facts.codes), train, test, seed)

    def matrix(rows: np.ndarray, shown: np.ndarray) -> np.ndarray:
        table("sap", facts.codes[rows], facts.factors[rows], names)
        return _correlations(facts, rows) if continuous else _accuracies(facts, rows, shown)

    def value(rows: np.ndarray, shown: np.ndarray) -> list[float]:
        return [float(_gaps(matrix(rows, shown)).mean())]

    found = matrix(rows, shown)
    per_factor = _gaps(found)
    (score,) = scores([per_factor.mean()], bootstrap_error(value, rows, shown, resamples=resamples, seed=seed))
    return Sap(score.value, score.stderr, per_factor, found)


def _gaps(matrix: np.ndarray) -> np.ndarray:
    order = np.sort(matrix, axis=0)
    return order[-1] - order[-2]


def _accuracies(facts: Table, rows: np.ndarray, shown: np.ndarray) -> np.ndarray:
    from sklearn.svm import LinearSVC

    found = np.zeros((facts.codes.shape[1], len(facts.sizes)))
    for d in range(found.shape[0]):
        z, z_shown = facts.codes[rows, d : d + 1], facts.codes[shown, d : d + 1]
        for k in range(found.shape[1]):
            # The primal problem has one number to find here, and no random order.
            svm = LinearSVC(C=0.01, class_weight="balanced", dual=False)  # pyright: ignore[reportArgumentType]
            svm.fit(z, facts.factors[rows, k])
            found[d, k] = np.mean(svm.predict(z_shown) == facts.factors[shown, k])
    return found


def _correlations(facts: Table, rows: np.ndarray) -> np.ndarray:
    z, y = facts.codes[rows], facts.factors[rows].astype(np.float64)
    z, y = z - z.mean(0), y - y.mean(0)
    var_z, var_y = np.square(z).mean(0), np.square(y).mean(0)
    squared = np.square(z.T @ y / len(z)) / np.where(var_z > 1e-12, var_z, 1.0)[:, None] / var_y
    return np.where(var_z[:, None] > 1e-12, squared, 0.0)


def explicitness(
    codes: np.ndarray,
    factors: np.ndarray,
    *,
    train: int = TRAIN,
    test: int = TEST,
    discrete: Discrete = False,
    names: Sequence[str] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Explicitness:
    """Explicitness: whether a linear classifier on all codes tells each value of a factor from the others.

        1/F sum_k 1/B_k sum_b AUC of p(y_k = b | z) against 1[y_k = b],   multinomial logistic regression, test rows

    disentanglement_lib's settings: standardized codes, scikit-learn's default penalty (C = 1), 10,000 and 5,000 rows.

    Args:
      codes, factors, train, test, names, resamples, seed: as for `sap`; D >= 1.
      discrete: code dimensions that the classifier sees as one column per value.

    Returns:
      `Explicitness`, 0.5 (chance) to 1, higher is better.

    Raises:
      InputError: as `sap`.

    Reference: arXiv:1802.05312, section 3

    Example:
      >>> factors = np.array([[i, j] for i in range(4) for j in range(4)] * 25)
      >>> round(explicitness(factors, factors, train=300, test=100, resamples=0).value, 4)  # the factors as codes
      1.0
    """
    facts = table("explicitness", codes, factors, names)
    z = one_hot_codes(facts.codes, mask("explicitness", discrete, facts.codes.shape[1]))
    rows, shown = split("explicitness", len(z), train, test, seed)

    def areas(rows: np.ndarray, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        table("explicitness", facts.codes[rows], facts.factors[rows], names)
        found = [_areas(z, facts.factors[:, k], rows, shown) for k in range(len(facts.sizes))]
        learned, seen = np.array(found).T
        return learned, seen

    def value(rows: np.ndarray, shown: np.ndarray) -> list[float]:
        return [float(areas(rows, shown)[1].mean())]

    learned, seen = areas(rows, shown)
    (score,) = scores([seen.mean()], bootstrap_error(value, rows, shown, resamples=resamples, seed=seed))
    return Explicitness(score.value, score.stderr, seen, float(learned.mean()))


def _areas(z: np.ndarray, label: np.ndarray, rows: np.ndarray, shown: np.ndarray) -> tuple[float, float]:
    from sklearn.linear_model import LogisticRegression

    z = standardized(z, rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not wholly converged in 1,000 iterations: the ranks no longer move
        model = LogisticRegression(max_iter=1000).fit(z[rows], label[rows])
    return auc(model, z[rows], label[rows]), auc(model, z[shown], label[shown])


def auc(model, z: np.ndarray, label: np.ndarray) -> float:
    """Returns the mean over classes of the area under the ROC curve, each class against the rest.

    Equal to the share of pairs (one of the class, one of the rest) that the classifier puts in order, ties counting a
    half. A class that the rows have none of, or nothing but, is left out of the mean.
    """
    from scipy.stats import rankdata

    p = model.predict_proba(z)
    ranks = rankdata(p, axis=0)
    areas = []
    for column, value in enumerate(model.classes_):
        inside = label == value
        n, m = int(inside.sum()), int((~inside).sum())
        if n and m:
            areas.append((ranks[inside, column].sum() - n * (n + 1) / 2) / (n * m))
    return float(np.mean(areas))
