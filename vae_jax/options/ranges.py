"""Ranges of options, as annotations of the fields that they guard: `width: Annotated[int, AtLeast(1)] = 64`.

A range says in words what it allows, and these words complete the message of every value outside of it. A NaN or an
infinity is outside of every range, and is refused for fields without one as well.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, runtime_checkable

from vae_jax.errors import InputError
from vae_jax.options.typed import check_finite
from vae_jax.options.words import arms


@runtime_checkable
class Range(Protocol):
    """What a field may be; any frozen dataclass with these two is one."""

    @property
    def words(self) -> str:
        """Completes "it must be"."""
        ...

    def holds(self, value: Any) -> bool:
        """Says whether a value of the field's type is allowed."""
        ...


@dataclass(frozen=True)
class AtLeast:
    """The lowest number and all above it; `why` is added to the message."""

    low: float
    why: str = ""

    @property
    def words(self) -> str:
        return f"{self.low} or more" + (f": {self.why}" if self.why else "")

    def holds(self, value: Any) -> bool:
        return value >= self.low


@dataclass(frozen=True)
class Steps(AtLeast):
    """Numbers of training steps, which the command line also takes in epochs (`vae_jax.cli.epochs`)."""

    @property
    def words(self) -> str:
        return super().words if self.low else NotNegative().words


@dataclass(frozen=True)
class Above:
    """Numbers above a limit, without it."""

    limit: float

    @property
    def words(self) -> str:
        return f"more than {self.limit}"

    def holds(self, value: Any) -> bool:
        return value > self.limit


@dataclass(frozen=True)
class Positive:
    """Numbers above 0."""

    @property
    def words(self) -> str:
        return "positive"

    def holds(self, value: Any) -> bool:
        return value > 0


@dataclass(frozen=True)
class NotNegative:
    """0 and all numbers above it."""

    @property
    def words(self) -> str:
        return "zero or more"

    def holds(self, value: Any) -> bool:
        return value >= 0


@dataclass(frozen=True)
class Between:
    """Numbers between two limits; `ends` says which of them belong to it, as mathematics writes it.

    `said` takes the place of the two numbers in messages: "0, 2^31".
    """

    low: float
    high: float
    ends: str = "[]"
    said: str = ""

    @property
    def words(self) -> str:
        if self.said:
            return f"in {self.ends[0]}{self.said}{self.ends[1]}"
        return f"in {self.ends[0]}{self.low}, {self.high}{self.ends[1]}"

    def holds(self, value: Any) -> bool:
        above = value >= self.low if self.ends[0] == "[" else value > self.low
        below = value <= self.high if self.ends[1] == "]" else value < self.high
        return above and below


@dataclass(frozen=True)
class Share(Between):
    """[0, 1): a decay, a dropout probability."""

    low: float = 0
    high: float = 1
    ends: str = "[)"


@dataclass(frozen=True)
class Each:
    """Tuples whose items are all in a range, and a single number alone if the field takes one.

    Attributes:
      range: of every item.
      words: for the message.
      some: whether at least one item is needed.
    """

    range: Range
    words: str
    some: bool = False

    def holds(self, value: Any) -> bool:
        items = value if isinstance(value, tuple) else (value,)
        return (bool(items) or not self.some) and all(self.range.holds(item) for item in items)


SEED = Between(0, 2**31, "[)", "0, 2^31")
# Samples of a bound: they are counted in int32.
SAMPLES = Between(1, 2**31, "[)")
DPI = Between(10, 1200)
EACH_AT_LEAST_ONE = Each(AtLeast(1), "a list of sizes of 1 or more")


def check_ranges(config: Any) -> None:
    """Checks every number of a config, down to the last component.

    Raises:
      InputError: the first that is NaN or infinite, or that is out of the range of its field.
    """
    fields = list(_fields(config, ""))
    for option, value, found in fields:
        check_finite(value, option, found.words if found else "finite")
    for option, value, found in fields:
        if found is not None and value is not None and not found.holds(value):
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            raise InputError(f"{option}: {shown} is out of range; it must be {found.words}")


def _fields(config: Any, prefix: str) -> Iterator[tuple[str, Any, Range | None]]:
    """Yields (dotted option, value, its range) of every leaf."""
    for name, found in ranges(type(config)).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, found


def in_steps(config: Any) -> list[str]:
    """Returns the options of a config, down to the last component, that count training steps."""
    alone = ((name, found.range if isinstance(found, Each) else found) for name, _, found in _fields(config, ""))
    return [name for name, found in alone if isinstance(found, Steps)]


@functools.cache
def ranges(cls: type) -> dict[str, Range | None]:
    """Returns {field: its range, None without one} of a dataclass."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {f.name: _range(hints[f.name]) for f in dataclasses.fields(cls)}


def _range(hint: Any) -> Range | None:
    """Returns the range among the annotations of a hint, or of one of its alternatives."""
    notes = hint.__metadata__ if typing.get_origin(hint) is Annotated else ()
    inner = (_range(arm) for arm in arms(hint)) if len(arms(hint)) > 1 else ()
    return next((note for note in (*notes, *inner) if isinstance(note, Range)), None)
