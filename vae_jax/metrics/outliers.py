"""Out-of-distribution detection: how well scores separate two sets (AUROC), and the score of an ensemble (WAIC)."""

from __future__ import annotations

import numpy as np

from vae_jax.errors import InputError
from vae_jax.metrics.arrays import numbers
from vae_jax.metrics.estimate import Estimate


def auroc(inside: np.ndarray, outside: np.ndarray) -> Estimate:
    """Returns the area under the ROC curve, P(outside > inside) + P(equal) / 2, for scores of surprise.

    Args:
      inside: scores of the data the model was trained on [N].
      outside: scores of the outliers [M]; larger means more of an outlier.

    Returns:
      1 for perfect detection, 0.5 for chance, below it where outliers look more likely; the standard error is that of
      DeLong et al. 1988.

    Raises:
      InputError: scores of more axes than one, no score on one side, or one that is not a number.

    Example:
      >>> auroc(np.array([0.0, 1.0]), np.array([1.0, 2.0])).value  # three of four pairs in order, one a tie
      0.875
    """
    from scipy.stats import rankdata

    inside, outside = numbers("auroc: inside", inside), numbers("auroc: outside", outside)
    if inside.ndim != 1 or outside.ndim != 1:
        raise InputError(f"auroc: inside {inside.shape} and outside {outside.shape} do not fit; give [N] and [M]")
    n, m = len(inside), len(outside)
    if not n or not m:
        raise InputError("auroc: inside or outside is empty; give one score or more of each")
    # A NaN has no rank: `rankdata` would make every score one, and so the area.
    for name, scores in (("inside", inside), ("outside", outside)):
        if np.isnan(scores).any():
            row = np.flatnonzero(np.isnan(scores))[0]
            raise InputError(f"auroc: score {row} of {name} is not a number; leave out scores that are not numbers")
    # The rank-sum form of the area: it counts all N M pairs in the time of a sort.
    ranks = rankdata(np.concatenate([inside, outside]))
    # The share of the other side that each score beats, ties counted by half.
    below = (ranks[n:] - rankdata(outside)) / n
    above = 1.0 - (ranks[:n] - rankdata(inside)) / m
    # Each side adds the variance of the mean of its shares, as if the other side were fixed.
    error = None
    if n > 1 and m > 1:
        error = float(np.sqrt(below.var(ddof=1) / m + above.var(ddof=1) / n))
    return Estimate(float(below.mean()), error, n + m)


def waic(log_prob: np.ndarray) -> np.ndarray:
    """Returns the score mean_m log p_m(x) - var_m log p_m(x) of an ensemble, [N], from log p [models, N] in nats.

    The variance is with 1 / (models - 1).

    Raises:
      InputError: another shape, or fewer than two models.

    References: arXiv:1810.01392, eq. 2.

    Example:
      >>> waic(np.array([[0.0], [2.0]])).tolist()  # mean 1, variance 2
      [-1.0]
    """
    log_prob = numbers("waic: log_prob", log_prob)
    if log_prob.ndim != 2:
        raise InputError(f"waic: log_prob has {log_prob.ndim} axes; give [models, N]")
    if len(log_prob) < 2:
        raise InputError("waic: the spread of fewer than two models is undefined; give rows of two models or more")
    # Models that were trained apart disagree most on images unlike their data: the variance is the penalty.
    return log_prob.mean(0) - log_prob.var(0, ddof=1)
