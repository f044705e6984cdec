"""Classes of unequal size: training draws them equally often, or weighs the loss of each example by its class.

Evaluation does neither: its numbers are means over the examples as they are.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.data import labels
from vae_jax.data.config import DataConfig
from vae_jax.data.shuffle import Words, key_words, mix, permute, permute_host, seeds
from vae_jax.data.source import Info, Source
from vae_jax.errors import InputError, option

_MOST = 2**31 - 1  # draws of one epoch that a permutation can number


@dataclass(frozen=True, eq=False)
class Draws:
    """Training examples in the order of balanced draws; two of equal content are equal, and picklable.

    An epoch has as many draws of each class as the largest one has examples, in one shuffled order: each example of
    that class comes once, those of smaller classes as often as they fit in, give or take one.

    Attributes:
      members: rows int32 [N], those of one class after the other.
      counts: examples int32 [K] of each class that occurs.
    """

    members: np.ndarray
    counts: np.ndarray

    @property
    def size(self) -> int:
        """Draws in an epoch."""
        return len(self.counts) * int(self.counts.max())

    @cached_property
    def _digest(self) -> bytes:
        return hashlib.sha256(self.members.tobytes() + b"/" + self.counts.tobytes()).digest()

    def __eq__(self, other: object) -> bool:
        # Compiled programs are kept by what they were made of: equal draws share them.
        return isinstance(other, Draws) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def rows(self, key: jax.Array, position: jax.Array, epoch: jax.Array) -> jax.Array:
        """Returns the rows int32 [B] of these draws of an epoch.

        Args:
          key: of the shuffle.
          position: int32 [B], below `size`.
          epoch: uint32 [B].
        """
        drawn = permute(key, position, self.size, epoch)
        return self._rows(drawn.astype(jnp.uint32), seeds(key_words(key), jnp.asarray(epoch, jnp.uint32))[0], jnp)

    def rows_host(self, words: np.ndarray, position: np.ndarray, epoch: np.ndarray) -> np.ndarray:
        """Returns what `rows` returns, in numpy, from the words of the key."""
        drawn = permute_host(words, position, self.size, epoch)
        return self._rows(drawn.astype(np.uint32), seeds(words, np.asarray(epoch).astype(np.uint32))[0], np)

    def _rows(self, drawn: Words, seed: Words, xp: ModuleType) -> Words:
        """Returns the row of each draw: its class, and its place among the examples of the class."""
        counts = xp.asarray(self.counts.astype(np.uint32))
        starts = xp.asarray((np.cumsum(self.counts) - self.counts).astype(np.uint32))
        number = drawn % np.uint32(len(self.counts))
        slot, count = drawn // np.uint32(len(self.counts)), counts[number]
        # A class that does not fit in evenly begins elsewhere in each epoch: else its first examples would come more
        # often.
        place = (slot + mix(seed ^ number) % count) % count
        return xp.asarray(self.members)[(starts[number] + place).astype(np.int32)]


def attach(source: Source, config: DataConfig) -> Source:
    """Returns a source that trains as `balance` and `class_weights` say; other splits differ in their words alone.

    Raises:
      InputError: data without labels, or of which not all are known; weights that do not fit the classes.
    """
    if config.balance == "none" and config.class_weights == "none":
        return source
    text = "training draws classes equally often (data.balance)"
    if config.balance == "none":
        shown = (
            config.class_weights if isinstance(config.class_weights, str) else " ".join(map(str, config.class_weights))
        )
        text = f"training weighs the loss of each example by its class (data.class_weights {shown})"
    _check(source.info, config)
    info = replace(source.info, protocol_text=f"{source.info.protocol_text}; {text}")
    if source.split != "train":
        return replace(source, info=info)
    label = labels.of(source)
    info = replace(info, notes=(*info.notes, f"{text}; evaluations do not"))
    if config.balance == "draws":
        return replace(source, info=info, draws=draws(label, source.info.name))
    return replace(source, info=info, weights=weights(label, source.info.num_classes or 0, config.class_weights))


def _check(info: Info, config: DataConfig) -> None:
    name, value = ("balance", config.balance) if config.balance != "none" else ("class_weights", "none")
    off = option(f"data.{name}", "none")
    if not info.num_classes:
        raise InputError(f"data.{name}: {info.name!r} has no labels; use {off}")
    if info.unlabeled or config.labels is not None:
        raise InputError(
            f"data.{name}: it reads the label of every training example, and some of {info.name!r} are unknown; use "
            f"{off}"
        )
    given = config.class_weights
    if value == "none" and not isinstance(given, str) and len(given) != info.num_classes:
        ones = option("data.class_weights", *(1,) * min(info.num_classes, 10))
        more = "" if info.num_classes <= 10 else " ..."
        raise InputError(
            f"data.class_weights: {len(given)} weights for the {info.num_classes} classes of {info.name!r}; give one "
            f"for each, as in {ones}{more}"
        )


def draws(label: np.ndarray, name: str) -> Draws:
    """Returns the balanced draws of examples with labels int [N], none of them unknown.

    Raises:
      InputError: an epoch would have more draws than can be numbered.
    """
    counts = np.bincount(label)
    found = Draws(np.argsort(label, kind="stable").astype(np.int32), counts[counts > 0].astype(np.int32))
    if found.size > _MOST:
        raise InputError(
            f"data.balance: {len(found.counts):,} classes of {name!r}, the largest of {found.counts.max():,} examples, "
            f"make more than 2^31 draws in an epoch; use {option('data.balance', 'none')} "
            f"{option('data.class_weights', 'balanced')}"
        )
    return found


def weights(label: np.ndarray, classes: int, given: str | tuple[float, ...]) -> tuple[float, ...]:
    """Returns the weight of each class: mean 1 over the examples.

    Args:
      label: int [N], none of them unknown.
      classes: K.
      given: "balanced" weighs a class by 1 / its examples; or K numbers, of which only the ratios count.

    Raises:
      InputError: the weight of every example is 0.
    """
    counts = np.bincount(label, minlength=classes)
    raw = 1.0 / np.maximum(counts, 1) if isinstance(given, str) else np.array(given, np.float64)
    mean = float((raw * counts).sum() / counts.sum())
    if mean <= 0:
        raise InputError("data.class_weights: they are 0 for every class that occurs; give one of them more than 0")
    return tuple((raw / mean).tolist())
