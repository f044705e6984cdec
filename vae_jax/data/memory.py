"""Arrays and tables in memory as data: the same as a file of them holds, checked and divided by the same rules."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from vae_jax.data import npz, series, table, table_read, vectors
from vae_jax.data.config import DataConfig
from vae_jax.data.source import Source
from vae_jax.errors import InputError

_ALONE = {"npz": "images", "series": "series", "vectors": "vectors", "table": "x"}  # the name of the one array


class Given(NamedTuple):
    """Data in memory.

    Attributes:
      reader: the data set that reads them: "npz", "series", "vectors" or "table".
      arrays: by name, as an .npz keeps them.
    """

    reader: str
    arrays: dict[str, np.ndarray]


def is_arrays(given: Any) -> bool:
    """Says whether something is an array, a list of numbers or a mapping of names to arrays, not a path or a name."""
    return isinstance(given, Mapping | list | tuple) or _is_array(given) or is_frame(given)


def is_frame(given: Any) -> bool:
    """Says whether something is a data frame, such as those of pandas and polars."""
    return hasattr(given, "columns") and hasattr(given, "shape") and not isinstance(given, Mapping)


def _is_array(given: Any) -> bool:
    return hasattr(given, "__array__") and hasattr(given, "shape")


def taken(given: Any, chosen: str, name: str = "data") -> Given:
    """Returns data to train on, and the data set that reads them.

    Where their form leaves it open, as of rows [N, D], `chosen` decides, and else what a file of them is to `--data`.

    Args:
      given: as for `named`, with `series` [N, T, C], `vectors` or `counts` [N, D] in place of `images` too; or a table:
        a data frame, or under data.name table an array [N, D] or a mapping of columns [N].
      chosen: the data set of the config.
      name: of the argument, for messages.

    Returns:
      the arrays, and their reader.

    Raises:
      InputError: as `named`; or a frame with two columns of one name, or columns of anything but numbers and words.
    """
    if is_frame(given) and chosen != "vectors":
        return Given("table", columns(given, name))
    if chosen == "table" and isinstance(given, Mapping) and all(map(_is_column, given.values())):
        return Given("table", columns(given, name))
    held = named(given, name, "x", words=("columns",) if chosen == "table" else ())
    reader = _reader(held, chosen)
    return Given(reader, held if isinstance(given, Mapping) else {_ALONE[reader]: held["x"]})


def _is_column(value: Any) -> bool:
    return len(value) == 0 or np.ndim(value[0]) == 0 if isinstance(value, list | tuple) else np.ndim(value) == 1


def _reader(held: Mapping[str, np.ndarray], chosen: str) -> str:
    """Returns the data set that reads arrays by name, "x" for one that came alone."""
    if max((value.ndim for value in held.values()), default=0) > 3:  # nothing but pictures
        return "npz"
    if chosen != "table":
        if "series" in held:
            return "series"
        if any(key in held for key in vectors.NAMES):
            return "vectors"
    if chosen in _ALONE:
        return chosen
    return "series" if list(held) == ["x"] and series.is_likely(held["x"].shape, held["x"].dtype) else "npz"


def named(given: Any, name: str, alone: str = "images", words: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Returns the arrays by name: `alone` for one that comes alone.

    Args:
      given: an array [N, H, W] or [N, H, W, C], also as lists, or a mapping with `images` and, where there are any,
        `labels` [N], `factors` [N, F], `cond` [N, F], `groups` [N], or with splits of its own (`train_images`,
        `test_images`, ...).
      name: of the argument, for messages.
      alone: the name of one array.
      words: names of arrays that may hold text, besides `groups`.

    Returns:
      arrays, none of which holds objects.

    Raises:
      InputError: an entry that is no array of numbers, or two arrays without names.
    """
    if _is_pair(given):
        # numpy would stack two arrays of one shape to two examples, without a word.
        first = given[0]
        kind = "images" if np.ndim(first) > 2 else "vectors"
        kind = "series" if series.is_likely(np.shape(first), np.asarray(first).dtype) else kind
        splits = ', or {"train_images": X, "test_images": y} for two splits' if np.ndim(given[1]) > 2 else ""
        raise InputError(
            f'{name}: two arrays do not say what each of them is; give {{"{kind}": X, "labels": y}}{splits}'
        )
    if not isinstance(given, Mapping):
        return {alone: _array(given, name, "images" if alone == "x" else alone, ())}  # of x it is not known yet
    return {str(key): _array(value, name, str(key), words) for key, value in given.items()}


def _is_pair(given: Any) -> bool:
    """Says whether something is (X, y); two pictures [H, W] in a list or tuple are an array of two."""
    if not (isinstance(given, list | tuple) and len(given) == 2 and all(map(_is_array, given))):
        return False
    return np.shape(given[0]) != np.shape(given[1]) or (isinstance(given, tuple) and np.ndim(given[0]) > 2)


def _array(value: Any, name: str, key: str, words: tuple[str, ...]) -> np.ndarray:
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        # As an array it is what lies behind the mask.
        fix = f"{key}.astype(float).filled(numpy.nan)"
        if value.ndim > 2 and value.dtype.kind != "f":
            mask = f"{key.removesuffix('images')}mask" if key.endswith("images") else "mask"
            fix = f'"{key}": numpy.ma.getdata({key}) and "{mask}": ~numpy.ma.getmaskarray({key})'
        raise InputError(f"{name}: {key} is a masked array, whose mask is not read; give {fix}")
    try:
        array = np.asarray(value)
    except ValueError:  # lists in lists, or arrays in a list, of different lengths
        raise InputError(
            f"{name}: {key} has parts of different shapes, so it is no array; give images [N, H, W] of one size, and "
            'labels apart, as in {"images": X, "labels": y}'
        ) from None
    if array.dtype.kind not in ("biufU" if key in ("groups", *words) else "biuf"):
        raise InputError(f"{name}: {key} is an array of {array.dtype}; give an array of numbers")
    return array


def columns(given: Any, name: str) -> dict[str, np.ndarray]:
    """Returns the columns of a table by name, as arrays [N] that hold no objects.

    Args:
      given: a data frame, or a mapping of names to columns.
      name: of the argument, for messages.

    Raises:
      InputError: two columns of one name or a name that no file can keep, or columns of anything but numbers and words.
    """
    # Those of an Arrow table are no names, but the columns themselves.
    names = list(given) if isinstance(given, Mapping) else list(getattr(given, "column_names", given.columns))
    texts = [str(column) for column in names]
    for number, text in enumerate(texts):
        if not text or "\0" in text:
            raise InputError(f"{name}: column {number + 1} is called {text!r}, which no file can keep; rename it")
        if text in texts[:number]:
            raise InputError(
                f"{name}: columns {texts.index(text) + 1} and {number + 1} are both called {text!r}; rename one"
            )
    return {text: table_read.kept(text, given[column], name) for text, column in zip(texts, names, strict=True)}


def read(given: Given) -> Callable[[DataConfig, str], Source]:
    """Returns what reads a split of data in memory as their data set reads it from `config.source`."""

    @functools.lru_cache(maxsize=1)  # all splits are read with the same options
    def pictures(config: DataConfig) -> npz.Held:
        return npz.parts(dict(given.arrays), "data", config.protocol, config=config)

    @functools.cache
    def cells() -> tuple[table_read.Cells, ...]:
        return table_read.of_arrays(given.arrays, "data")

    def load(config: DataConfig, split: str) -> Source:
        where = str(config.source)
        if given.reader == "npz":
            return npz.source(pictures(config), config, split, where)
        if given.reader == "table":
            found = table.divided(cells(), config, split, "data")
        else:
            found = (series if given.reader == "series" else vectors).source(given.arrays, config, split, "data")
        # The file in the run folder, which is not there yet: messages speak of the argument.
        return dataclasses.replace(found, info=dataclasses.replace(found.info, where=where))

    return load
