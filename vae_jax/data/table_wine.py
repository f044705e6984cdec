"""scikit-learn's copy of the UCI wine data: 178 wines, 13 measurements and the cultivar, always there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vae_jax.data import table
from vae_jax.data.config import DataConfig
from vae_jax.data.source import Source
from vae_jax.data.table_read import Cells, of_numbers, of_texts
from vae_jax.files.columns import Column

PROTOCOLS = {
    "standard": "142 train, 18 validation, 18 test, drawn with numpy RandomState(0) over scikit-learn's order, which "
    "is that of the cultivars",
    "full": "all 178 wines for training, and the same as the test split (no validation split)",
}


def cells() -> tuple[Cells, ...]:
    """Returns the 13 measurements, and the column `cultivar`."""
    from sklearn.datasets import load_wine  # imports scipy: about a second

    bunch: Any = load_wine()
    names = [str(name).replace("/", "_") for name in bunch["feature_names"]]
    found = [of_numbers(name, column) for name, column in zip(names, np.asarray(bunch["data"]).T, strict=True)]
    cultivar = np.array(["first", "second", "third"])[np.asarray(bunch["target"])]
    return (*found, of_texts("cultivar", cultivar.tolist()))


def load(config: DataConfig, split: str, columns: Sequence[Column] = ()) -> Source:
    """Returns a split of the wines, as vectors with known columns."""
    whole = np.arange(178)
    order = np.random.RandomState(0).permutation(178)
    rows = {"train": np.sort(order[36:]), "validation": np.sort(order[:18]), "test": np.sort(order[18:36])}
    if config.protocol == "full":
        rows = {"train": whole, "test": whole}
    text = PROTOCOLS[config.protocol]
    return table.source(cells(), rows, config, split, "scikit-learn", text, columns, name="wine")
