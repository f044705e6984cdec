"""Batches for training and evaluation from a `Source`; all noise and order follow from a key and a step."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import prng
from vae_jax.data import limit as part
from vae_jax.data.balance import Draws
from vae_jax.data.config import DataConfig
from vae_jax.data.pixels import transform
from vae_jax.data.shuffle import epoch_and_position, permute, train_indices
from vae_jax.data.source import Arrays, Batch, Source, pair, without_label

__all__ = [
    "eval_batches",
    "examples",
    "make_batch_fn",
    "make_transform",
    "permute",
    "read",
    "train_indices",
    "transform",
]

_EVAL_SEED = 777  # evaluation noise (dynamic binarization of a test image) is the same in every run
_EVAL_FNS: "weakref.WeakKeyDictionary[Source, dict[DataConfig, Callable]]" = weakref.WeakKeyDictionary()


def make_transform(source: Source, config: DataConfig, train: bool = True) -> Callable[[jax.Array, Arrays], Batch]:
    """Returns `(key, batch) -> batch`, the transform of `make_batch_fn` alone, for batches of a `GrainStream`.

    With the same `key` (the run's data key) it draws the same noise as `make_batch_fn` does.
    """
    return _transform(source.split, config, train, source.weights)


def _transform(
    split: str, config: DataConfig, train: bool, weights: tuple[float, ...] | None = None
) -> Callable[[jax.Array, Arrays], Batch]:
    one = transform(config, train=train, split=split)

    def apply(key: jax.Array, batch: Arrays) -> Batch:
        paired = {name.removeprefix("paired_"): v for name, v in batch.items() if name.startswith("paired_")}
        rest = one(prng.site_key(key, "transform"), {k: v for k, v in batch.items() if not k.startswith("paired_")})
        if train and weights is not None:
            # Models weigh the loss of each example by this, and nothing else.
            rest["weight"] = jnp.asarray(weights, jnp.float32)[rest["label"]]
        if not paired:
            return rest
        made = one(prng.site_key(key, "transform/paired"), paired | {"visit": batch["visit"]})
        return rest | {"paired_x": made["x"], "paired_label": made["label"]}

    return apply


def make_batch_fn(
    source: Source, config: DataConfig, train: bool = True
) -> Callable[[Arrays, jax.Array, jax.Array], Batch]:
    """Returns the pure function that makes the batch of one step, for the scanned multi-step.

    Args:
      source: a split whose `pipeline` is "device".
      config: gives `batch_size` B and the transform.
      train: True shuffles, epoch after epoch; False goes through the split in order, over and over.

    Returns:
      `(arrays, key, step) -> {"x": float32 [B, *shape], "index": int32 [B], "visit": uint32 [B], ...}`; `arrays`
      are `source.arrays` (put them on the device once), `key` is the run's data key, the same at every step, and
      `visit` is the example's number in the run (its low 32 bits). Where only some examples are labeled
      (`source.labeled`), training has no `label`, but `paired_x` and `paired_label`: beside each example one of
      the labeled ones, which follow each other in epochs of their own. With class weights there is `weight` [B].
    """
    labeled = None if source.labeled is None else tuple(source.labeled.tolist())
    # The same function for equal data and options: jax keeps compiled programs by the functions in them. What a user's
    # `fetch` calls may have been defined anew since.
    own = getattr(source.fetch, "__module__", "").startswith("vae_jax.")
    make = _shared_batch_fn if own else _batch_fn
    return make(source.fetch, source.size, source.split, labeled, config, train, source.draws, source.weights)


def _batch_fn(
    fetch: Callable,
    size: int,
    split: str,
    labeled: tuple[int, ...] | None,
    config: DataConfig,
    train: bool,
    draws: Draws | None = None,
    weights: tuple[float, ...] | None = None,
) -> Callable[[Arrays, jax.Array, jax.Array], Batch]:
    apply, batch_size = _transform(split, config, train, weights), config.batch_size
    size = draws.size if train and draws is not None else size

    def batch_fn(arrays: Arrays, key: jax.Array, step: jax.Array) -> Batch:
        epoch, position = epoch_and_position(step, batch_size, size)
        if train and draws is not None:
            index = draws.rows(prng.site_key(key, "shuffle"), position, epoch)
        else:
            index = permute(prng.site_key(key, "shuffle"), position, size, epoch) if train else position
        visit = epoch * np.uint32(size) + position.astype(jnp.uint32)
        batch = fetch(arrays, index) | {"visit": visit}
        if train and labeled is not None and not labeled:
            batch = without_label(batch)
        elif train and labeled is not None:
            epoch, position = epoch_and_position(step, batch_size, len(labeled))
            row = permute(prng.site_key(key, "labels"), position, len(labeled), epoch)
            batch = pair(batch, fetch(arrays, jnp.asarray(labeled, jnp.int32)[row]))
        return apply(key, batch)

    return batch_fn


_shared_batch_fn = functools.lru_cache(maxsize=16)(_batch_fn)


def eval_batches(
    source: Source,
    config: DataConfig,
    batch_size: int | None = None,
    *,
    key: jax.Array | None = None,
    limit: int = 0,
) -> Iterator[Batch]:
    """Yields the whole split once, in its own order; the last batch is smaller when the size does not divide.

    Args:
      source: any split, in memory or not.
      config: gives the transform; `batch_size` is used when the argument is None.
      batch_size: B; more than the split holds gives one batch.
      key: of the noise in dynamic binarization; None is a fixed key. An example's noise does not depend on B.
      limit: only so many examples, those of `limit.rows`; 0 for all.

    Yields:
      `{"x": float32 [B, *shape], "index": int32 [B], "label"?, "factors"?}` on the device.
    """
    batch_size = batch_size or config.batch_size
    rows = part.rows(source, limit)
    for start in range(0, len(rows), batch_size):
        yield examples(source, config, rows[start : start + batch_size], key=key)


def examples(source: Source, config: DataConfig, index: np.ndarray, *, key: jax.Array | None = None) -> Batch:
    """Returns the examples `index` [B], in range, as `eval_batches` yields them, noise included.

    Args:
      source: the split.
      config: of the data; decides dequantization and binarization.
      index: row numbers [B] of the split.
      key: of the noise; None is the fixed key of evaluations.

    Returns:
      a batch: `x` [B, *shape] float32, `index` [B], and `label`, `factors`, `cond` where the data have them.
    """
    key = jax.random.key(_EVAL_SEED) if key is None else key
    index = np.asarray(index, np.int32)
    cache = _EVAL_FNS.setdefault(source, {})
    if config not in cache:  # compiled once per split and config, however often the split is evaluated
        cache[config] = _eval_fn(source, config)
    return cache[config](key, index if is_computed(source) else read(source, index))


def is_computed(source: Source) -> bool:
    """Says whether the examples are computed from their index, so that there is nothing to read."""
    return source.pipeline == "device" and not source.arrays


def _eval_fn(source: Source, config: DataConfig) -> Callable[[jax.Array, Batch | np.ndarray], Batch]:
    apply, fetch = make_transform(source, config, train=False), source.fetch  # no reference to the source itself
    if is_computed(source):
        return jax.jit(lambda key, index: apply(key, fetch({}, index)))
    return jax.jit(apply)


def read(source: Source, index: np.ndarray) -> Batch:
    """Returns the stored examples `index` int32 [B] of a split as host arrays, whichever way it is held."""
    return source.records.rows(index) | {"index": index}
