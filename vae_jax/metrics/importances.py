"""DCI: disentanglement, completeness and informativeness, from how much each code matters for each factor."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple, get_args

import numpy as np

from vae_jax.errors import InputError, nearest
from vae_jax.metrics.arrays import GROUPS, Score, Table, group_error, scores, split, standardized, table
from vae_jax.metrics.predictors import TEST, TRAIN

Method = Literal["boosting", "lasso", "logistic"]
TINY = 1e-11  # added to importances before their logarithm, as disentanglement_lib does


class Dci(NamedTuple):
    """Disentanglement, completeness, informativeness; standard errors by the method of groups, lower bounds.

    Attributes:
      disentanglement: in [0, 1]: each code matters for one factor only.
      completeness: in [0, 1]: each factor needs one code only.
      informativeness: accuracy on the test rows (1 - normalized error for "lasso"), mean over factors.
      importance: [D, F].
      per_code: disentanglement of each code [D].
      per_factor: completeness of each factor [F].
      train: informativeness on the training rows.
    """

    disentanglement: Score
    completeness: Score
    informativeness: Score
    importance: np.ndarray
    per_code: np.ndarray
    per_factor: np.ndarray
    train: float


def dci(
    codes: np.ndarray,
    factors: np.ndarray,
    *,
    method: Method = "boosting",
    train: int = TRAIN,
    test: int = TEST,
    alpha: float = 0.02,
    names: Sequence[str] = (),
    groups: int = GROUPS,
    seed: int = 0,
) -> Dci:
    """DCI: one predictor of each factor from all codes, and the entropy of what it uses.

        D = sum_d w_d (1 - H_F(R_d. / sum_k R_dk)),   C = sum_k v_k (1 - H_D(R_.k / sum_d R_dk)),   w, v ~ sums of R

    "boosting" is disentanglement_lib's: scikit-learn's GradientBoostingClassifier with its defaults (100 stages, depth
    3), R = importances of the features; it takes minutes at 10,000 rows when factors have many values. "lasso" is the
    paper's linear form: codes and factors standardized, alpha = 0.02, R = |coefficients|, which reads factors as
    numbers. "logistic" is linear with factors as classes: L1 penalty, one against the rest, R = mean of |coefficients|.

    Args:
      codes: mean codes [N, D], D >= 2.
      factors: values of the factors [N, F], F >= 2.
      method: the predictor.
      train, test: rows, drawn without replacement.
      alpha: penalty of "lasso".
      names: of the factors, for messages.
      groups: parts of the rows for the standard error, which costs as much again as the score; 0 for none.
      seed: of the draw and of the trees.

    Returns:
      `Dci`; higher is better.

    Raises:
      InputError: codes that are not finite, a constant factor, wrong shapes, too few rows, or an unknown method.

    Reference: Eastwood and Williams 2018 (ICLR)

    Example:
      >>> factors = np.array([[i, j] for i in range(4) for j in range(4)] * 25)
      >>> score = dci(factors, factors, method="lasso", train=300, test=100, groups=0)  # the factors as codes
      >>> round(score.disentanglement.value, 4), round(score.completeness.value, 4)
      (1.0, 1.0)
    """
    if method not in get_args(Method):
        raise InputError(f"dci: no method {method!r}; {nearest(method, get_args(Method))}")
    facts = table("dci", codes, factors, names, least_codes=2, least_factors=2)
    rows, shown = split("dci", len(facts.codes), train, test, seed)

    def learn(rows: np.ndarray, shown: np.ndarray) -> tuple[np.ndarray, float, float]:
        table("dci", facts.codes[rows], facts.factors[rows], names)
        return _learn(facts, method, rows, shown, alpha, seed)

    def values(rows: np.ndarray, shown: np.ndarray) -> list[float]:
        importance, _, seen = learn(rows, shown)
        return [disentanglement(importance)[0], completeness(importance)[0], seen]

    importance, learned, seen = learn(rows, shown)
    (d, per_code), (c, per_factor) = disentanglement(importance), completeness(importance)
    found = scores([d, c, seen], group_error(values, rows, shown, groups=groups))
    return Dci(found[0], found[1], found[2], importance, per_code, per_factor, learned)


def disentanglement(importance: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns D and the disentanglement of each code [D] from importances [D, F]; 0 where nothing matters."""
    from scipy.stats import entropy

    importance = np.asarray(importance, np.float64)
    per_code = 1 - entropy(importance + TINY, base=importance.shape[1], axis=1)
    total = importance.sum()
    weight = importance.sum(1) / total if total > 0 else np.full(len(importance), 1 / len(importance))
    return float(per_code @ weight), per_code


def completeness(importance: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns C and the completeness of each factor [F] from importances [D, F]."""
    return disentanglement(np.asarray(importance).T)


def _learn(
    facts: Table, method: Method, rows: np.ndarray, shown: np.ndarray, alpha: float, seed: int
) -> tuple[np.ndarray, float, float]:
    """Returns the importances [D, F], and the informativeness on the training and on the test rows."""
    learners: dict[str, Callable[..., tuple[np.ndarray, float, float]]] = {
        "boosting": functools.partial(_boosting, seed=seed),
        "lasso": functools.partial(_lasso, alpha=alpha),
        "logistic": _logistic,
    }
    # Trees do not see the scale of a code.
    z, y = facts.codes if method == "boosting" else standardized(facts.codes, rows), facts.factors

    def one(k: int) -> tuple[np.ndarray, float, float]:
        return learners[method](z[rows], y[rows, k], z[shown], y[shown, k])

    # Factors of most values first: the longest fit does not wait for the others.
    order = np.argsort(-np.asarray(facts.sizes), kind="stable")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a linear fit that has not wholly converged
        with ThreadPoolExecutor(min(len(order), os.cpu_count() or 1)) as pool:
            found = dict(zip(order.tolist(), pool.map(one, order.tolist())))
    done = [found[k] for k in range(len(order))]
    importance = np.stack([importance for importance, _, _ in done], axis=1)
    return importance, float(np.mean([d[1] for d in done])), float(np.mean([d[2] for d in done]))


def _boosting(z: np.ndarray, y: np.ndarray, z_shown: np.ndarray, y_shown: np.ndarray, seed: int):
    from sklearn.ensemble import GradientBoostingClassifier

    model = GradientBoostingClassifier(random_state=seed).fit(z, y)
    return (
        np.abs(model.feature_importances_),
        np.mean(model.predict(z) == y),
        np.mean(model.predict(z_shown) == y_shown),
    )


def _lasso(z: np.ndarray, y: np.ndarray, z_shown: np.ndarray, y_shown: np.ndarray, alpha: float):
    from sklearn.linear_model import Lasso

    mean, sd = y.mean(), y.std()
    y, y_shown = (y - mean) / sd, (y_shown - mean) / sd
    model = Lasso(alpha=alpha).fit(z, y)

    def informed(z: np.ndarray, y: np.ndarray) -> float:
        # The error of the training mean is the unit, so that 0 is as good as a guess.
        return float(1 - np.sqrt(np.mean((model.predict(z) - y) ** 2) / max(np.mean(y**2), 1e-12)))

    return np.abs(model.coef_), informed(z, y), informed(z_shown, y_shown)


def _logistic(z: np.ndarray, y: np.ndarray, z_shown: np.ndarray, y_shown: np.ndarray):
    from sklearn.linear_model import LogisticRegression

    margin, margin_shown, weights = [], [], []
    for value in np.unique(y):
        # liblinear is the one solver that sets coefficients to 0 exactly, and it knows two classes only.
        model = LogisticRegression(l1_ratio=1.0, solver="liblinear", random_state=0).fit(z, y == value)
        margin.append(model.decision_function(z))
        margin_shown.append(model.decision_function(z_shown))
        weights.append(np.abs(model.coef_[0]))
    classes = np.unique(y)
    accuracy = [np.mean(classes[np.argmax(m, 0)] == label) for m, label in ((margin, y), (margin_shown, y_shown))]
    return np.mean(weights, axis=0), accuracy[0], accuracy[1]
