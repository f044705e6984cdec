"""Batches read on the host by grain, ahead of the train step; the same order as the device pipeline."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np

from vae_jax import prng
from vae_jax.data.balance import Draws
from vae_jax.data.config import DataConfig
from vae_jax.data.shuffle import key_words, permute_host
from vae_jax.data.source import Batch, Records, Source, pair, without_label

_STEPS = 2**31 - 1  # length of the endless data set, in batches


@dataclass(frozen=True)
class _Batches:
    """Random access to whole batches by step, so that readers work on batches in parallel; picklable."""

    records: Records
    batch_size: int
    words: tuple[int, ...] | None  # of the shuffle key; None keeps the split's order
    labeled: np.ndarray | None = None  # rows of the labeled examples, where these are few
    label_words: tuple[int, ...] = ()  # of the key that shuffles them
    draws: Draws | None = None  # that take the place of a shuffled epoch

    def __len__(self) -> int:
        return _STEPS

    def __getitem__(self, index: int) -> Batch:
        draws = None if self.words is None else self.draws
        size = len(self.records) if draws is None else draws.size
        visit = np.arange(index * self.batch_size, (index + 1) * self.batch_size, dtype=np.int64)
        epoch, rows = visit // size, visit % size
        if draws is not None:
            rows = draws.rows_host(np.array(self.words, np.uint32), rows, epoch)
        elif self.words is not None:
            rows = permute_host(np.array(self.words, np.uint32), rows, size, epoch)
        batch = self._read(rows) | {"visit": visit.astype(np.uint32)}
        if self.labeled is None or self.words is None:
            return batch
        if not len(self.labeled):
            return without_label(batch)
        epoch, position = visit // len(self.labeled), visit % len(self.labeled)
        words = np.array(self.label_words, np.uint32)
        return pair(batch, self._read(self.labeled[permute_host(words, position, len(self.labeled), epoch)]))

    def _read(self, rows: np.ndarray) -> Batch:
        return self.records.rows(rows) | {"index": rows.astype(np.int32)}


def _frozen(key: jax.Array) -> tuple[int, ...]:
    return tuple(int(word) for word in np.asarray(key_words(key)))


class GrainStream(Iterator[Batch]):
    """Endless host batches with prefetch: `{"image": uint8 [B, H, W, C], "index", "visit", "label"?, ...}`.

    Epochs follow each other without a gap and nothing is dropped. The batch of step k is a pure function of the key
    and k, and equals the one that `make_batch_fn` fetches; so the state is k, and resume is exact whatever the number
    of workers. Apply `make_transform(source, config)` on the device.

    Args:
      source: any split; `source.records` is read.
      config: gives `batch_size` and `workers`.
      key: the run's data key.
      step: the first step.
      shuffle: False goes through the split in order.
    """

    def __init__(self, source: Source, config: DataConfig, key: jax.Array, *, step: int = 0, shuffle: bool = True):
        words = _frozen(prng.site_key(key, "shuffle")) if shuffle else None
        labels = _frozen(prng.site_key(key, "labels"))
        self._batches = _Batches(source.records, config.batch_size, words, source.labeled, labels, source.draws)
        self._workers = config.workers
        self._step = step
        self._iterator: Iterator[Batch] | None = None

    def __iter__(self) -> GrainStream:
        return self

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = self._start()
        batch = next(self._iterator)
        self._step += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """Returns the position as JSON: `{"step": k}`, k the step of the next batch."""
        return {"step": self._step}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to a position that `get_state` returned; what was read ahead is thrown away."""
        self.close()
        self._step = int(state["step"])

    def close(self) -> None:
        """Stops the readers; the next batch starts them again."""
        iterator, self._iterator = self._iterator, None
        close = getattr(iterator, "close", None)
        if close is not None:
            close()

    def _start(self) -> Iterator[Batch]:
        import grain

        threads = min(8, os.cpu_count() or 1)
        read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        dataset = grain.MapDataset.source(self._batches)[self._step :].to_iter_dataset(read)
        if self._workers:
            from absl import flags

            if not flags.FLAGS.is_parsed():  # grain reads its own options when it starts a process
                flags.FLAGS.mark_as_parsed()
            dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=2))
        return iter(dataset)
