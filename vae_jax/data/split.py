"""Splits for data that come without any: a fixed pseudo-random tenth is the test set."""

from __future__ import annotations

import numpy as np

from vae_jax.errors import InputError

PROTOCOLS = {
    "standard": "the file's or folder's own train/validation/test parts where it has them; else a tenth of the "
    "examples, drawn with numpy RandomState(0), is the test split, the rest is for training, no validation split",
    "full": "all examples for training, and the same examples as the test split (no validation split)",
}


def rows(count: int, protocol: str, where: str) -> dict[str, np.ndarray]:
    """Returns the row numbers int64 of each split, ascending.

    Args:
      count: number of examples N.
      protocol: "standard" draws floor(N / 10) test rows, at least one; "full" gives all rows to both splits.
      where: file or folder, for the message.
    """
    everything = np.arange(count)
    if protocol == "full":
        return {"train": everything, "test": everything}
    if count < 2:
        raise InputError(f"{where}: {count} image cannot be split; add images or use --data.protocol full")
    order = np.random.RandomState(0).permutation(count)  # numpy guarantees this stream for ever
    held_out = max(1, count // 10)
    return {"train": np.sort(order[held_out:]), "test": np.sort(order[:held_out])}
