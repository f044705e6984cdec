"""A trained run as the metrics see it: what several of them need is made once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np

from vae_jax.errors import InputError
from vae_jax.evaluation.codes import Codes, decode_all, encode_all
from vae_jax.evaluation.needs import require
from vae_jax.evaluation.settings import Settings

if TYPE_CHECKING:
    from vae_jax.data import Source
    from vae_jax.runs.run import Run
    from vae_jax.train import TrainState


T = TypeVar("T")


def cell_width(run: Run, split: str) -> float | None:
    """Returns the volume per dimension of one discrete value, where bits per dimension mean something, else None."""
    data, values = run.config.data, run.source(split).info.values
    # How many values a pixel has as the model sees it: two, 256, or a continuum (None).
    binary = data.binarize != "none" or values == "binary"
    levels = 2 if binary else 256 if values == "grey" else None
    # Noise fills the gaps between gray levels; binarized pixels get none.
    dequantized = data.dequantize and data.binarize == "none"
    return run.model.about.likelihood.cell_width(levels, dequantized)


@dataclass
class Subject:
    """One run, one split, and the settings of what is measured.

    Attributes:
      run: the run.
      state: its weights.
      split: the split that is measured.
      limit: only so many examples, those of `Run.rows`; 0 for all.
      batch_size: examples at a time; no number may depend on it.
      seed: of all noise, together with the metric's own site: `jax.random.key(seed)`.
      settings: options of single metrics.
      others: further runs, for metrics that compare several.
      report: called with (done, in all).
      foreign: (name of another data set, N) -> batches of N examples that stand for its split of this name (of all if
        it has fewer), treated as the run's own images are.
      protocol: what a metric wants to have written beside its numbers, by metric; metrics add to it.
      made: what `once` has made.
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
    foreign: Callable[[str, int], Iterator[dict[str, Any]]] | None = None
    protocol: dict[str, Any] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def examples(self) -> str:
        """What the examples are called: "images", "vectors" or "sequences"."""
        return self.run.spec.x.examples

    @property
    def key(self) -> jax.Array:
        """The base key; fold it with the metric's name (`prng.site_key`) before use."""
        return jax.random.key(self.seed)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Returns make(), made at the first call under this name: what several metrics share."""
        # Kept by name, not by function: metrics that use one name share the result.
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    @property
    def cell_width(self) -> float | None:
        """Volume a dimension of one value of the data; None where bits per dimension mean nothing."""
        return cell_width(self.run, self.split)

    @property
    def source(self) -> Source:
        """The split's data."""
        return self.run.source(self.split)

    @property
    def size(self) -> int:
        """Number of examples that are measured."""
        return min(self.limit, self.source.size) if self.limit else self.source.size

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """The examples that are measured, as rows int32 [N] of the split, ascending."""
        return self.run.rows(self.split, self.limit)

    @functools.cached_property
    def mixing(self) -> np.ndarray:
        """An order int [N] of the examples that are measured of which every beginning stands for all of them."""
        return self.run.mixing(self.split, self.size)

    def batches(self, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Returns the examples that are measured (or only `limit` of them), as the model saw them in training."""
        shown = self.size if limit is None else min(limit, self.size)
        return self.run.batches(self.split, self.batch_size, shown)

    @functools.cached_property
    def codes(self) -> Codes:
        """Mean codes, log variances and one posterior sample of every example, with its labels and factors.

        Raises:
          InputError: a code is not finite; the message names the dimension.
        """
        return self.finite(encode_all(self.run.model, self.state, self.batches()))

    @functools.cached_property
    def labeled(self) -> Codes:
        """Mean codes and labels of the labeled training examples, for classifiers (see `Run.labeled`).

        Raises:
          InputError: a code is not finite; the message names the dimension.
        """
        return self.finite(
            encode_all(self.run.model, self.state, self.run.labeled(self.batch_size)), "training example"
        )

    def finite(self, codes: Codes, what: str = "example") -> Codes:
        """Returns the codes.

        Raises:
          InputError: one is not finite; the message names the dimension and the example's place in the data.
        """
        # Checked here: scikit-learn would raise an error of its own, and sums would silently become NaN.
        bad = ~np.isfinite(codes.mean)
        if bad.any():
            row, dim = np.argwhere(bad)[0]
            raise InputError(
                f"{self.run.path}: code {dim} of {what} {codes.index[row]} is not finite; lower the learning rate"
            )
        return codes

    @functools.cached_property
    def images(self) -> np.ndarray:
        """The images that are measured, float32 [N, H, W, C]."""
        # The whole split in host memory, once for all metrics that compare images.
        return np.concatenate([np.asarray(batch["x"]) for batch in self.batches()])

    @functools.cached_property
    def reconstructions(self) -> np.ndarray:
        """E[x|z] of the mean code of every image that is measured, float32 [N, H, W, C]."""
        return decode_all(self.run.model, self.state, self.codes.mean, cond=self.codes.cond)

    def outliers(self, name: str) -> Iterator[dict[str, Any]]:
        """Returns as many examples of another data set as are measured (or all, if it has fewer).

        Raises:
          InputError: no such data set, or images of another size.
        """
        if self.foreign is None:
            raise InputError(f"{name}: only `vae-jax eval` reads other data sets")
        return self.foreign(name, self.size)

    def add(self, metric: str, text: str) -> None:
        """Adds to what a metric, whose protocol is a sentence, has written beside its numbers."""
        self.protocol[metric] = f"{self.protocol[metric]}; {text}"

    def labels(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the labels int [M] that are known, and which of the N examples that are measured have one, bool [N].

        Raises:
          InputError: the data have none.
        """
        require(metric, ("labels",), self.run.model, self.source.info)
        # A label of -1 is unknown: as a number it would be one more cluster, or the last class.
        label = self.codes.extra["label"]
        if not (known := label >= 0).any():
            raise InputError(f"{metric}: no example of the {self.split} split has a known label; leave it out")
        return label[known], known

    def factors(self, metric: str) -> np.ndarray:
        """Returns the generative factors int [N, F].

        Raises:
          InputError: the data have none.
        """
        require(metric, ("factors",), self.run.model, self.source.info)
        return self.codes.extra["factors"]
