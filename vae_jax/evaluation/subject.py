"""A trained run as the metrics see it: what several of them need is made once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from vae_jax.errors import InputError
from vae_jax.evaluation.codes import Codes, encode_all
from vae_jax.settings import Settings

if TYPE_CHECKING:
    from vae_jax.data import Source
    from vae_jax.runs import Run
    from vae_jax.train import TrainState


@dataclass
class Subject:
    """One run, one split, and the settings of what is measured.

    Attributes:
      run: the run.
      state: its weights.
      split: the split that is measured.
      limit: only its first examples; 0 for all.
      batch_size: examples at a time; no number may depend on it.
      seed: of all noise, together with the metric's own site: `jax.random.key(seed)`.
      settings: options of single metrics.
      others: further runs, for metrics that compare several.
      report: called with (done, in all).
      protocol: what a metric wants to have written beside its numbers, by metric; metrics add to it.
    """

    run: Run
    state: TrainState
    split: str
    limit: int = 0
    batch_size: int = 256
    seed: int = 0
    settings: Settings = field(default_factory=Settings)
    others: tuple[Run, ...] = ()
    report: Callable[[int, int], None] = lambda seen, total: None
    protocol: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> jax.Array:
        """The base key; fold it with the metric's name (`prng.site_key`) before use."""
        return jax.random.key(self.seed)

    @property
    def source(self) -> Source:
        """The split's data."""
        return self.run.source(self.split)

    @property
    def size(self) -> int:
        """Number of examples that are measured."""
        return min(self.limit, self.source.size) if self.limit else self.source.size

    def batches(self, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yields the examples that are measured (or the first `limit` of them), as the model saw them in training."""
        left = self.size if limit is None else min(limit, self.size)
        for batch in self.run.batches(self.split, self.batch_size):
            if left <= 0:
                return
            yield {name: value[:left] for name, value in batch.items()}
            left -= len(batch["image"])

    @functools.cached_property
    def codes(self) -> Codes:
        """Mean codes, log variances and one posterior sample of every example, with its labels and factors.

        Raises:
          InputError: a code is not finite; the message names the dimension.
        """
        from vae_jax import prng

        codes = encode_all(self.run.model, self.state, self.batches(), key=prng.site_key(self.key, "codes"))
        bad = ~np.isfinite(codes.mean)
        if bad.any():
            row, dim = np.argwhere(bad)[0]
            raise InputError(f"{self.run.path}: code {dim} of example {row} is not finite; train with a lower rate")
        return codes

    @functools.cached_property
    def images(self) -> np.ndarray:
        """The images that are measured, float32 [N, H, W, C]."""
        return np.concatenate([np.asarray(batch["image"]) for batch in self.batches()])

    def labels(self, metric: str) -> np.ndarray:
        """Returns the labels int [N].

        Raises:
          InputError: the data have none.
        """
        if "label" not in self.codes.extra:
            raise InputError(f"{metric}: the data set {self.run.config.data.name!r} has no labels")
        return self.codes.extra["label"]

    def factors(self, metric: str) -> np.ndarray:
        """Returns the generative factors int [N, F].

        Raises:
          InputError: the data have none.
        """
        if "factors" not in self.codes.extra:
            raise InputError(f"{metric}: the data set {self.run.config.data.name!r} has no factors; sprites has")
        return self.codes.extra["factors"]
