"""Latent spaces: where the latent of one example lives, and how it looks as a vector.

A model says where its latents live in `Model.about.latents`: one space, or a dict or tuple of spaces for several
levels, of the same structure as its latents. Distributions of latents are written over vectors [B, n]; a space reshapes
between these and the latents [B, *shape] that `encode` gives and `decode` takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Space:
    """Base of the spaces. Arrays of latents are [B, *shape].

    Attributes:
      words: what its points are, for messages.
      euclidean: whether all of R^n is inside, so that means, straight lines and Hamiltonian moves stay in it.
      nominal: whether its numbers name entries of a codebook, so that sums and distances of its vectors mean nothing.
    """

    shape: tuple[int, ...]
    """Shape of the latent of one example."""

    words: ClassVar[str] = ""
    euclidean: ClassVar[bool] = False
    nominal: ClassVar[bool] = False

    @property
    def size(self) -> int:
        """Length n of the vector view."""
        return math.prod(self.shape)

    def vector(self, z: Any) -> Any:
        """Returns latents [B, *shape] as vectors [B, n]: the view that probes, scores and maps take."""
        return z.reshape(z.shape[0], self.size)

    def shaped(self, v: Any) -> Any:
        """Returns vectors [B, n] as latents [B, *shape]."""
        return v.reshape(v.shape[0], *self.shape)

    def variables(self) -> tuple[int, ...]:
        """Returns how the vector is divided into variables: the length of each one-hot vector, 1 for a number."""
        return (1,) * self.size


class Real(Space):
    """All of R^n."""

    words = "real vectors"
    euclidean = True


class Positive(Space):
    """Positive numbers."""

    words = "positive vectors"


class UnitInterval(Space):
    """Numbers in (0, 1)."""

    words = "vectors in (0, 1)"


class Sphere(Space):
    """Points of the unit sphere in R^n."""

    words = "points of the unit sphere"


class Bits(Space):
    """Vectors of 0 and 1."""

    words = "binary vectors"


@dataclass(frozen=True)
class OneHot(Space):
    """One-hot vectors side by side."""

    sizes: tuple[int, ...] = ()
    """Length of each one-hot vector; they sum to n."""

    words: ClassVar[str] = "one-hot vectors"

    def variables(self) -> tuple[int, ...]:
        return self.sizes


@dataclass(frozen=True)
class Mixed(OneHot):
    """Numbers and one-hot vectors side by side: `sizes` has 1 for a number."""

    words: ClassVar[str] = "real and one-hot vectors side by side"


@dataclass(frozen=True)
class Codes(Space):
    """Indices into a codebook, int32 [B, *shape] with values 0 to `codes - 1`. Their vectors hold the indices."""

    codes: int = 1
    """Number of entries of the codebook, or of the largest."""
    sizes: tuple[int, ...] = ()
    """Number of entries of each of L codebooks, where the last axis has one index of each; empty: there is one."""

    words: ClassVar[str] = "indices into a codebook"
    nominal: ClassVar[bool] = True

    def shaped(self, v: Any) -> Any:
        return jnp.asarray(v, jnp.int32).reshape(v.shape[0], *self.shape)

    @property
    def limits(self) -> tuple[int, ...]:
        """Number of codes that each index of the vector can name."""
        sizes = self.sizes or (self.codes,)
        return tuple(sizes[book] for book in self.places())

    def places(self) -> tuple[int, ...]:
        """Returns, for each index of the vector, the number of the codebook that it is of: 0 .. L - 1."""
        books = max(len(self.sizes), 1)
        return tuple(i % books for i in range(self.size))


class Coder(Protocol):
    """An entropy coder of codes as vectors, int32 [N, n]."""

    def compress(self, codes: Any, cond: Any = None) -> bytes:
        """Returns a file from which `decompress` makes the same codes."""
        ...

    def decompress(self, data: bytes, where: str = "data") -> Any:
        """Returns the codes of a file, which messages call `where`; raises InputError for any other content."""
        ...

    def bits(self, codes: Any, cond: Any = None) -> Any:
        """Returns -log2 p(z) of each example, float64 [N]; given features [N, F], -log2 p(z|c)."""
        ...


# A space, or a dict or tuple of them: spaces are leaves for jax.tree.
Latents = Any


def leaves(latents: Latents) -> list[Space]:
    """Returns the spaces of all levels, in the order of jax.tree."""
    return jax.tree.leaves(latents)


def size(latents: Latents) -> int:
    """Returns the length n of the vector view of all levels together."""
    return sum(space.size for space in leaves(latents))


def vector(latents: Latents, z: Any) -> Any:
    """Returns latents of any structure as vectors [B, n], the levels side by side; int32 where all are indices."""
    parts = [space.vector(part) for space, part in zip(leaves(latents), jax.tree.leaves(z), strict=True)]
    if len(parts) == 1:
        return parts[0]
    # Indices stay whole numbers; beside anything else they are float32.
    dtype = jnp.int32 if all(isinstance(space, Codes) for space in leaves(latents)) else jnp.float32
    return jnp.concatenate([jnp.asarray(part, dtype) for part in parts], -1)


def shaped(latents: Latents, v: Any) -> Any:
    """Returns vectors [B, n] as latents of the structure of `latents`."""
    parts, start = [], 0
    for space in leaves(latents):
        parts.append(space.shaped(v[:, start : start + space.size]))
        start += space.size
    return jax.tree.unflatten(jax.tree.structure(latents), parts)


def by_level(latents: Latents, tree: Any) -> list[Any]:
    """Returns what a tree of the structure of `latents` holds of each level, whatever that is (a distribution, say)."""
    return jax.tree.structure(latents).flatten_up_to(tree)


def variables(latents: Latents) -> tuple[int, ...]:
    """Returns how the vector of all levels is divided into variables (see `Space.variables`)."""
    return tuple(n for space in leaves(latents) for n in space.variables())


def is_euclidean(latents: Latents) -> bool:
    """Says whether every level is all of R^n."""
    return all(space.euclidean for space in leaves(latents))


def is_nominal(latents: Latents) -> bool:
    """Says whether a level holds indices, which no walk, probe, score or map can take as numbers."""
    return any(space.nominal for space in leaves(latents))


def words(latents: Latents) -> str:
    """Returns what the latents are, for messages."""
    return " and ".join(dict.fromkeys(space.words for space in leaves(latents)))
