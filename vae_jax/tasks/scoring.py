"""Scores of single examples: how likely a model finds each of them, and which are unlike its training data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from vae_jax import prng
from vae_jax.errors import InputError, command, option
from vae_jax.evaluation import anomaly
from vae_jax.evaluation.codes import decode_all, encode_all
from vae_jax.evaluation.needs import has_bound
from vae_jax.options.typed import conform
from vae_jax.runs.inputs import file_names, user_batches
from vae_jax.runs.run import Run
from vae_jax.tasks import given
from vae_jax.tasks.code_table import label_texts
from vae_jax.train import TrainState

PERCENTILE = 1  # of the ELBO of training examples: the threshold


class Scores(NamedTuple):
    """Scores of N examples, in their order.

    Attributes:
      index: position among the examples, int32 [N].
      paths: the file of each, relative to the folder that was given; () where they have none.
      labels: the name of each one's class, "" where it has none.
      elbo: lower bound on log p(x) with one posterior sample, nats [N].
      iw: importance-weighted bound with k samples, nats [N].
      regret: likelihood regret, nats [N]: by how much a posterior of the example's own raises its ELBO
        (arXiv:2003.02977); None where it was not requested, or where the model does not allow it.
      mse: squared error of the mean reconstruction of the mean code, mean over pixels [N].
      flag: whether the ELBO is below the threshold, bool [N].
      threshold: an ELBO, nats.
      known: training examples of whose ELBO the threshold is the 1st percentile; 0 where it was given.
      k: importance samples of `iw`.
      notes: what could not be done, and why.
      maps: absolute error of each pixel, mean over channels, float32 [N, H, W]; None where none were requested.
    """

    index: np.ndarray
    paths: tuple[str, ...]
    labels: list[str]
    elbo: np.ndarray
    iw: np.ndarray
    regret: np.ndarray | None
    mse: np.ndarray
    flag: np.ndarray
    threshold: float
    known: int
    k: int
    notes: tuple[str, ...] = ()
    maps: np.ndarray | None = None

    def table(self) -> dict[str, list[Any]]:
        """Returns the scores as columns by name, N values each: those of the file that `vae-jax score` writes."""
        n = len(self.elbo)
        return {
            "index": self.index.tolist(),
            "path": list(self.paths) or [""] * n,
            "label": self.labels,
            "elbo": self.elbo.tolist(),
            f"iw_{self.k}": self.iw.tolist(),
            **({} if self.regret is None else {"regret": self.regret.tolist()}),
            "mse": self.mse.tolist(),
            "flag": self.flag.astype(int).tolist(),
            # The same in every row: a table that is cut or joined still says what its flags mean.
            "threshold": [self.threshold] * n,
            "training_examples": [self.known] * n,
        }


def score(
    run: Run | Path | str,
    x: Any,
    *,
    k: int = 50,
    regret_steps: int = 100,
    threshold: float | None = None,
    learn: int = 10_000,
    maps: bool = False,
    split: str | None = None,
    seed: int = 0,
    batch_size: int = 250,
    step: int | Literal["best"] | None = None,
    state: TrainState | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Scores:
    """Scores examples one by one: ELBO, importance-weighted bound, likelihood regret, reconstruction error, a flag.

    Args:
      run: a run, or the path of its folder.
      x: the examples, as for `encode`.
      k: importance samples of the bound.
      regret_steps: updates of each example's own posterior in the likelihood regret; 0 leaves it out.
      threshold: examples whose ELBO, in nats, is below it are flagged; None takes the 1st percentile of the run's
        training examples.
      learn: training examples that give the threshold: the first ones, or some of every class of a sorted split.
      maps: also returns the error of each pixel.
      split: as for `encode`.
      seed: of all noise.
      batch_size: examples at a time; no number depends on it.
      step: of the checkpoint; None for the newest.
      state: looks at this state instead of a checkpoint.
      report: called with (examples done, examples in all).

    Returns:
      the scores, one of each kind per example.

    Raises:
      InputError: examples that cannot be read or that this model cannot take, a model without a bound on log p(x),
        training data that are not there while no threshold is given, or an argument out of range.
    """
    run, seed = given.opened(run), given.seed(seed)
    k, maps = given.importance(k), conform(maps, bool, "maps", False)
    steps, learn = given.at_least("regret_steps", regret_steps, 0), given.at_least("learn", learn)
    batch_size = given.at_least("batch_size", batch_size)
    threshold = conform(threshold, float | None, "threshold", -100.0)
    if threshold is not None and not np.isfinite(threshold):
        raise InputError(f"{option('threshold')}: {threshold} is out of range; it must be a finite number, in nats")
    if not has_bound(run.model):
        raise InputError(
            f"{run.path}: its model does not provide a bound on log p(x) (a point code, or a likelihood that is not "
            f"normalized), which scores are made of; look at errors with {command('reconstruct', str(run.path))}"
        )
    batches, source = user_batches(run, x, given.shown_split(run, split), batch_size, asked=split is not None)
    known = () if threshold is not None else _training(run, batch_size, learn)
    state = given.restored(run, step, state)
    key = prng.site_key(jax.random.key(seed), "score")
    usual = np.concatenate([_usual(run, state, [batch], key) for batch in known]) if threshold is None else []
    limit = float(np.percentile(usual, PERCENTILE)) if threshold is None else threshold
    found, notes = _scored(run, state, batches, key, k, steps, maps, lambda done: report(done, source.size))
    labels = label_texts(found.get("label"), source.info.label_names, source.size)
    return Scores(
        found["index"], file_names(source), labels, found["elbo"], found["iw"], found.get("regret"), found["mse"],
        found["elbo"] < limit, limit, len(usual), k, notes, found.get("map"),
    )  # fmt: skip


def _training(run: Run, batch_size: int, learn: int) -> Iterator[Mapping[str, Any]]:
    """Returns the training examples that give the threshold.

    Raises:
      InputError: they cannot be read.
    """
    try:
        run.source("train")
    except InputError as error:
        raise InputError(
            f"{option('threshold')}: the training data that give it cannot be read; name the ELBO in nats below which "
            f"examples are flagged, as in {option('threshold', -100.0)} ({error})"
        ) from None
    return run.batches("train", batch_size, learn)


def _usual(run: Run, state: TrainState, batches: Iterable[Mapping[str, Any]], key: jax.Array) -> np.ndarray:
    """Returns the ELBO of each training example, nats [N]."""
    batches = (_of_x(run, batch) for batch in batches)
    elbo = anomaly.bounds(run.model, state, batches, prng.site_key(key, "training"), 0)["elbo"]
    return _numbers(run, "elbo", elbo, "training examples")


def _of_x(run: Run, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a batch without what the model would infer: every score is one of x, whether or not it has a label."""
    condition = run.model.condition
    left_out = condition.on if condition is not None and not condition.is_required else ""
    return {name: value for name, value in batch.items() if name != left_out}


def _scored(
    run: Run,
    state: TrainState,
    batches: Iterable[Mapping[str, Any]],
    key: jax.Array,
    k: int,
    steps: int,
    maps: bool,
    report: Callable[[int], None],
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Returns the scores of all examples by name, [N] each, and why one of them is not there."""
    parts: dict[str, list[np.ndarray]] = {}
    notes: list[str] = []
    seen = 0
    # A batch at a time, with all of its scores: no more than one batch of images is held.
    for given_batch in batches:
        batch = _of_x(run, given_batch)
        found = anomaly.bounds(run.model, state, [batch], prng.site_key(key, "bounds"), k)
        if steps and not notes:
            try:
                found["regret"] = anomaly.regret(run.model, state, [batch], prng.site_key(key, "regret"), steps)
            except InputError as error:  # the one score that not every model allows
                notes.append(f"no regret: {error}")
        if maps:
            found["map"] = _errors(run, state, batch)
        found |= {name: np.asarray(given_batch[name]) for name in ("index", "label") if name in given_batch}
        for name, value in found.items():
            parts.setdefault(name, []).append(value)
        seen += len(found["elbo"])
        report(seen)
    whole = {name: np.concatenate(value) for name, value in parts.items()}
    for name in ("elbo", "iw", "regret", "mse"):
        if name in whole:
            _numbers(run, name, whole[name], "examples")
    return whole, tuple(notes)


def _errors(run: Run, state: TrainState, batch: Mapping[str, Any]) -> np.ndarray:
    """Returns |x - E[x|E[z|x]]| of each pixel, mean over channels, float32 [B, H, W]."""
    x = np.asarray(batch["x"], np.float32)
    codes = encode_all(run.model, state, [batch])
    made = run.model.about.likelihood.matched(decode_all(run.model, state, codes.mean, cond=codes.cond), x)
    wrong = np.abs(x - made)
    if "mask" in batch:  # what is missing has no error
        wrong = np.where(np.asarray(batch["mask"]), wrong, 0)
    return wrong.mean(-1)


def _numbers(run: Run, name: str, values: np.ndarray, what: str) -> np.ndarray:
    """Returns scores.

    Raises:
      InputError: one is not a number.
    """
    if np.isnan(values).any():
        raise InputError(f"{run.path}: {name} of some {what} is not a number; lower the learning rate")
    return values
