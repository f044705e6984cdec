"""Simulated counts with known causes: cells whose features follow a few latent factors, as single-cell RNA counts do.

x_i ~ NB(mean = size * softmax(loadings z + bias)_i, theta_i): all on the right is known, so that what a model finds
can be compared with it. Nothing is read; the same numbers come out everywhere.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from vae_jax.data.config import DataConfig
from vae_jax.data.source import Info, Source, from_arrays

CELLS, FEATURES, FACTORS, TYPES = 2000, 200, 4, 4
EMPTY = 7  # the row without any count: real tables have some
SEED = 20180730
_ROWS = {"train": (0, 1600), "validation": (1600, 1800), "test": (1800, 2000)}
PROTOCOLS = {"standard": "1,600 train (rows 0-1599, row 7 without a count), 200 validation, 200 test, all drawn alike"}


class Simulated(NamedTuple):
    """The simulated data and their causes.

    Attributes:
      x: counts uint16 [N, D].
      label: type of each cell, int32 [N].
      factors: latent factors of each cell [N, K], about the mean of its type.
      size: expected total of each cell [N]; 0 of the empty row.
      share: expected share of each feature in the total [N, D].
      theta: inverse dispersion of each feature [D]: the variance is m + m^2 / theta.
    """

    x: np.ndarray
    label: np.ndarray
    factors: np.ndarray
    size: np.ndarray
    share: np.ndarray
    theta: np.ndarray


@functools.lru_cache(maxsize=1)
def simulated() -> Simulated:
    """Returns all 2,000 cells with their causes, in the order of the splits."""
    # RandomState, whose streams never change: the numbers are part of the data set.
    random = np.random.RandomState(SEED)
    centers = 1.5 * random.normal(size=(TYPES, FACTORS))
    label = random.randint(TYPES, size=CELLS).astype(np.int32)
    factors = centers[label] + 0.5 * random.normal(size=(CELLS, FACTORS))
    # Few features have most counts: a log-normal bias, as wide as that of expressed genes.
    logits = factors @ (0.3 * random.normal(size=(FACTORS, FEATURES))) + random.normal(size=FEATURES)
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    size = np.exp(np.log(4000.0) + 0.5 * random.normal(size=CELLS))
    size[EMPTY] = 0.0
    theta = np.exp(random.uniform(np.log(0.5), np.log(20.0), size=FEATURES))
    # A Poisson whose rate is a gamma of mean m and shape theta is the negative binomial.
    rate = size[:, None] * share * random.gamma(np.broadcast_to(theta, share.shape)) / theta
    return Simulated(random.poisson(rate).astype(np.uint16), label, factors, size, share, theta)


def load(config: DataConfig, split: str) -> Source:
    """Returns a split of the simulated counts."""
    everything = simulated()
    info = Info(
        "counts",
        (FEATURES,),
        {name: stop - start for name, (start, stop) in _ROWS.items()},
        config.protocol,
        PROTOCOLS[config.protocol],
        num_classes=TYPES,
        label_names=tuple(f"type {i}" for i in range(TYPES)),
        values="count",
        where="computed",
        kind="vector",
    )
    rows = slice(*_ROWS[split])
    return from_arrays(info, split, {"x": everything.x[rows], "label": everything.label[rows]}, config.pipeline)
