"""scikit-learn's copy of the UCI handwritten digits: 1,797 real 8 x 8 images, always there."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from vae_jax.data.config import DataConfig
from vae_jax.data.source import Info, Source, from_arrays

_ROWS = {"train": (0, 1437), "validation": (1437, 1617), "test": (1617, 1797)}
PROTOCOLS = {
    "standard": "1,437 train (rows 0-1436), 180 validation (rows 1437-1616), 180 test (rows 1617-1796), in "
    "scikit-learn's order",
    "full": "all 1,797 images for training, and the same images as the test split (no validation split)",
}


def arrays() -> dict[str, np.ndarray]:
    """Returns `image` uint8 [1797, 8, 8, 1] and `label` int32 [1797]; the values 0..16 become (255 v + 8) // 16."""
    return {name: value.copy() for name, value in _read().items()}


@functools.cache
def _read() -> dict[str, np.ndarray]:
    """Returns `arrays`, parsed once per process: every split and every command would parse the text again."""
    from sklearn.datasets import load_digits  # imports scipy: about a second

    bunch: Any = load_digits()
    image = (np.asarray(bunch["images"]).astype(np.int32) * 255 + 8) // 16  # 0 -> 0, 8 -> 128, 16 -> 255
    return {"image": image.astype(np.uint8)[..., None], "label": np.asarray(bunch["target"]).astype(np.int32)}


def load(config: DataConfig, split: str) -> Source:
    """Returns a split of the digits."""
    rows = _ROWS if config.protocol == "standard" else {"train": (0, 1797), "test": (0, 1797)}
    info = Info(
        "digits",
        (8, 8, 1),
        {name: stop - start for name, (start, stop) in rows.items()},
        config.protocol,
        PROTOCOLS[config.protocol],
        num_classes=10,
        label_names=tuple("0123456789"),
        where="scikit-learn",
    )
    selected = {name: value[slice(*rows[split])] for name, value in arrays().items()}
    return from_arrays(info, split, selected, config.pipeline)
