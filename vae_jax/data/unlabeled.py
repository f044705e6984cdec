"""Examples whose label is not known: -1 in arrays, or pictures in a folder `unlabeled` beside class folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vae_jax.data.source import Info
from vae_jax.data.values import UNKNOWN
from vae_jax.errors import InputError, option

FOLDERS = ("unlabelled", "unlabeled")  # in any case


def some(labels: np.ndarray) -> bool:
    """Says whether some labels int [N] are unknown."""
    return bool((labels == UNKNOWN).any())


def note(labels: np.ndarray, where: str) -> tuple[str, ...]:
    """Returns the line that counts labels int [N] that are unknown, or ()."""
    count = int((labels == UNKNOWN).sum())
    return (f"{where}: the labels of {count:,} of {len(labels):,} examples are unknown",) if count else ()


def refuse(info: Info, what: str, fix: str) -> None:
    """Raises InputError for data of which some labels are unknown.

    Args:
      info: facts of the data.
      what: needs every label, and why: the message begins with it.
      fix: what to do instead.
    """
    if info.unlabeled:
        raise InputError(f"{what}, but some labels of {info.name!r} are unknown (-1, or a folder unlabeled); {fix}")


def refuse_none_known(labeled: Sequence[int] | np.ndarray | None, info: Info) -> None:
    """Raises InputError where a model learns from labels and no training example has one."""
    if info.unlabeled and labeled is not None and not len(labeled):
        raise InputError(
            f"model: it learns from labels, but those of all training examples of {info.name!r} are unknown (-1); "
            f"label some, or use {option('model', 'vae')}"
        )


def renumbered(number: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Returns other class numbers, number[label], of labels int [N]; what is unknown stays so."""
    # As an index, -1 would be the last class.
    return np.where(label == UNKNOWN, UNKNOWN, number[label]).astype(number.dtype)


def counted(known: np.ndarray, write: Callable[[str], None]) -> None:
    """Writes how many examples have no known label, if there are any.

    Args:
      known: bool [N].
      write: takes the sentence.
    """
    if not known.all():
        write(f"{int((~known).sum()):,} of {len(known):,} examples have no known label and are left out")
