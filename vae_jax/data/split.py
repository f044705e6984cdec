"""Splits for data that come without any: the test split is the tenth of the examples with the lowest content hash.

Which side an example falls on depends on its own pixels alone, so adding or removing others never moves it, and no
example that a model was trained on is in the test split of the grown data. Copies of one picture stay together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from vae_jax.errors import InputError, option

_OWN = "the file's or folder's own train/validation/test parts where it has them; else "
PROTOCOLS = {
    "standard": f"{_OWN}the examples whose content hash (SHA-256 of the pixels, or of the image file) lies in the "
    "lowest tenth of its range are the test split, the rest is for training, no validation split; adding or removing "
    "examples moves no other",
    "random-tenth": f"{_OWN}a tenth of the examples, drawn with numpy RandomState(0) over their row numbers, is the "
    "test split, the rest is for training, no validation split; the rule of earlier versions",
    "full": "all examples for training, and the same examples as the test split (no validation split)",
}
HELD_OUT = (2**64 - 1) // 10  # hashes below this are the test split


def rows(count: int, protocol: str, where: str, hashes: Callable[[], np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the row numbers int64 of each split, ascending.

    Args:
      count: number of examples N.
      protocol: "standard" splits by content hash; "random-tenth" draws floor(N / 10) test rows, at least one; "full"
        gives all rows to both splits.
      where: file or folder, for the message.
      hashes: gives uint64 [N], the hash of each example (`pixel_hashes`, `folder_index`); called by "standard" only.

    Returns:
      {"train": ..., "test": ...}; disjoint but under "full".

    Raises:
      InputError: fewer than two different examples, which have no two sides.
    """
    everything = np.arange(count)
    if protocol == "full":
        return {"train": everything, "test": everything}
    if count < 2:
        raise InputError(f"{where}: {count} image cannot be split; add images or use {option('data.protocol', 'full')}")
    if protocol == "random-tenth":
        order = np.random.RandomState(0).permutation(count)  # numpy guarantees this stream for ever
        drawn = max(1, count // 10)
        return {"train": np.sort(order[drawn:]), "test": np.sort(order[:drawn])}
    held_out = by_hash(hashes(), where)
    return {"train": everything[~held_out], "test": everything[held_out]}


def by_hash(hashes: np.ndarray, where: str) -> np.ndarray:
    """Returns bool [N], whether each example is in the test split: its hash is in the lowest tenth of the range.

    Few examples may all lie on one side. Then the one of lowest hash is tested, or the one of highest hash trained on,
    so that both splits hold something; which one that is may change when examples are added.

    Raises:
      InputError: all examples are the same.
    """
    low, high = hashes.min(), hashes.max()
    if low == high:
        raise InputError(
            f"{where}: all {len(hashes)} images are the same, so none can be held out; add other images, or use "
            f"{option('data.protocol', 'full')}"
        )
    return ((hashes < HELD_OUT) | (hashes == low)) & (hashes != high)


def pixel_hashes(images: np.ndarray) -> np.ndarray:
    """Returns uint64 [N], the first 8 bytes of the SHA-256 of each image [N, H, W, C].

    The same picture has the same hash as uint8 v, as bool (0 and 255) and as float32 v / 255: it is hashed as uint8
    where its values are gray levels, else as little-endian float32. The shape is hashed along, for pixels in another
    arrangement are another picture.
    """
    head = "x".join(map(str, images.shape[1:])).encode()
    out = np.empty(len(images), np.uint64)
    for i, image in enumerate(images):
        content = image
        if image.dtype != np.uint8:
            gray = np.rint(image * 255).astype(np.uint8)
            same = np.array_equal((gray / 255).astype(np.float32), image)
            content = gray if same else (image + np.float32(0)).astype("<f4")  # -0.0 + 0.0 is 0.0
        out[i] = _number(hashlib.sha256(head + content.dtype.str[1:].encode() + content.tobytes()).digest())
    return out


def _number(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")
