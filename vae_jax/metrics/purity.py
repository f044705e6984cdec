"""Modularity: whether each code knows of one factor only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vae_jax.metrics import tables
from vae_jax.metrics.arrays import Discrete, table


class Modularity(NamedTuple):
    """Modularity of each code dimension.

    Attributes:
      value: mean over dimensions.
      stderr: bootstrap over rows.
      per_code: [D].
      mutual_information: I(z_d; y_k), nats [D, F].
    """

    value: float
    stderr: float | None
    per_code: np.ndarray
    mutual_information: np.ndarray


def modularity(
    codes: np.ndarray,
    factors: np.ndarray,
    *,
    bins: int = tables.BINS,
    discrete: Discrete = False,
    names: Sequence[str] = (),
    resamples: int = tables.RESAMPLES,
    seed: int = 0,
) -> Modularity:
    """Modularity: whether each code dimension knows of one factor only.

        1/D sum_d (1 - sum_{k != best} I(z_d; y_k)^2 / ((F - 1) I(z_d; y_best)^2))

    A dimension with no information at all counts 0. Noise in a finite sample looks like a little information on every
    factor, so that a random code has no modularity of 0.

    Args:
      codes, factors, bins, discrete, names, resamples, seed: as for `mig`; F >= 2, one code suffices.

    Returns:
      `Modularity`, in [0, 1], higher is better.

    Raises:
      InputError: as `mig`; fewer than 2 factors.

    Reference: arXiv:1802.05312, section 3

    Example:
      >>> factors = np.array([[i, j] for i in range(4) for j in range(4)])  # the whole grid
      >>> round(modularity(factors, factors, resamples=0).value, 4)  # the factors as codes
      1.0
      >>> both = factors[:, :1] + 4 * factors[:, 1:]  # one code that knows both factors
      >>> round(abs(modularity(both, factors, resamples=0).value), 4)
      0.0
    """
    facts = table("modularity", codes, factors, names, least_factors=2)
    entropies = tables.binned("modularity", facts, bins, discrete, resamples, seed)
    per_code = modularity_of(entropies.information)
    value = per_code.mean(1)
    return Modularity(float(value[0]), tables.spread(value), per_code[0], entropies.information[0])


def modularity_of(information: np.ndarray) -> np.ndarray:
    """Returns the modularity of each code [..., D] from mutual information [..., D, F]."""
    squares = np.square(np.where(information > 1e-12, information, 0.0))
    best = squares.max(-1)
    rest = squares.sum(-1) - best
    return np.where(best > 0, 1 - rest / np.where(best > 0, best, 1.0) / (squares.shape[-1] - 1), 0.0)
