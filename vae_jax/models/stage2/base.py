"""What a generator is: a distribution over the latents of a frozen first stage."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax import spaces
from vae_jax.errors import InputError, option
from vae_jax.spaces import Codes, Latents


class Around(NamedTuple):
    """What a generator is built for.

    Attributes:
      latents: of the first stage: a space, or a tree of them for several levels.
      cond: length F of the features that it is conditioned on; 0 without a condition.
      dtype: in which its networks compute.
      stats: mean [n] and standard deviation [n] of real latents over the training data, traced arrays of the state;
        None for latents that are taken as they are.
    """

    latents: Latents
    cond: int = 0
    dtype: Any = jnp.float32
    stats: tuple[jax.Array, jax.Array] | None = None

    @property
    def length(self) -> int:
        """Length n of the latents of one example as a vector: the number of tokens where they are codes."""
        return spaces.size(self.latents)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of codes at each of the n places."""
        # A grid's vector runs over places in raster order, with the L codes of a place next to each other.
        return tuple(limit for space in self._levels for limit in space.limits)

    @property
    def books(self) -> tuple[int, ...]:
        """Number of the codebook that the code at each of the n places is of, counted over all levels from 0."""
        # Levels share no codebook: the numbers of each start where those of the level before it end.
        firsts = itertools.accumulate((max(len(space.sizes), 1) for space in self._levels), initial=0)
        return tuple(first + book for first, space in zip(firsts, self._levels) for book in space.places())

    @property
    def codes(self) -> int:
        """The largest number of codes at any place: the length K of logits."""
        # Logits have one static length; what smaller codebooks do not have is masked by `draw.possible`.
        return max(self.sizes)

    @property
    def _levels(self) -> list[Codes]:
        return [space for space in spaces.leaves(self.latents) if isinstance(space, Codes)]


class Choices(NamedTuple):
    """How samples are drawn.

    Attributes:
      temperature: divides logits, or scales noise, where that has a meaning; 0 takes the most probable. May be traced.
      top_k: draw among the k most probable codes alone; 0 for all.
      top_p: draw among the fewest codes whose probabilities sum to p or more; 1 for all.
      guidance: s of `f(z) + s (f(z|c) - f(z))` (arXiv:2207.12598): 1 is p(z|c) itself.
      passes: of the network of a generator that draws many places at once, or solves an equation; 0 for its own number.
      prompt: int32 [n, P], the first P codes of each sample, P <= n places; None for none.
    """

    temperature: Any = 1.0
    # Numbers from here on are static: they decide shapes and branches of the compiled sampler.
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0
    passes: int = 0
    prompt: Any = None

    def prompted(self, n: int) -> jax.Array:
        """Returns the codes that n samples begin with, int32 [n, P]; P is 0 without a prompt."""
        return jnp.zeros((n, 0), jnp.int32) if self.prompt is None else jnp.asarray(self.prompt, jnp.int32)


@dataclass(frozen=True)
class Generator:
    """Base of the generators, frozen configs of pure functions over latents as vectors [B, n].

    `cond` are features [B, F] or None; a row of zeros stands for "no condition", with which training replaces some, so
    that p(z) is learned beside p(z|c).

    Attributes:
      of: what it generates: "codes", int32 indices, or "real" vectors.
      likelihood: whether `rate` is -log p(z), an upper "bound" on it, or "none".
      takes: the fields of `Choices` that sampling reads.
    """

    # Class variables, no options: they follow from the method.
    of: ClassVar[Literal["codes", "real"]] = "codes"
    likelihood: ClassVar[Literal["exact", "bound", "none"]] = "none"
    takes: ClassVar[tuple[str, ...]] = ()

    def check(self, around: Around) -> None:
        """Raises InputError if it cannot be built for these latents."""
        # Levels may differ in kind: a single one of real vectors rules codes out.
        codes = all(isinstance(space, Codes) for space in spaces.leaves(around.latents))
        fits = codes if self.of == "codes" else spaces.is_euclidean(around.latents)
        if fits:
            return
        what = "codes" if self.of == "codes" else "real vectors"
        # Another generator where there is one for these latents; binary, one-hot and positive ones have none.
        other = "transformer" if codes else "flow-matching" if spaces.is_euclidean(around.latents) else ""
        fix = (
            f"choose {option('model.generator', other)}"
            if other
            else "give a first stage with a grid of codes, a VQ-VAE"
        )
        raise InputError(
            f"model.generator: {type(self).__name__} generates {what}, but the latents of the first stage are "
            f"{spaces.words(around.latents)}; {fix}"
        )

    def init(self, key: jax.Array, around: Around) -> dict[str, Any]:
        """Returns the trained parameters."""
        raise TypeError(f"{type(self).__name__} must define init")

    def loss(
        self, params: Any, keys: jax.Array, z: jax.Array, cond: jax.Array | None, around: Around, train: bool
    ) -> tuple[jax.Array, Mapping[str, jax.Array]]:
        """Returns what training minimizes, and what is logged.

        Args:
          params: as of `init`.
          keys: of all noise, one per example [B].
          z: latents as vectors [B, n]: int32 indices, or float32.
          cond: features [B, F]; None without a condition.
          around: what it was built for.
          train: whether noise of training (dropout) is in.

        Returns:
          nats per example [B], where it is a likelihood or a bound, and means by name.
        """
        raise TypeError(f"{type(self).__name__} must define loss")

    def rate(self, params: Any, keys: jax.Array, z: jax.Array, cond: jax.Array | None, around: Around) -> jax.Array:
        """Returns the rate of latents under this generator, -log p(z|cond), or an upper bound, as `likelihood` says.

        Args:
          params: as of `init`.
          keys: one per example [B]; a likelihood that is exact needs none.
          z: latents as vectors [B, n].
          cond: features [B, F]; None without a condition.
          around: what it was built for.

        Returns:
          nats per example [B].
        """
        raise TypeError(f"{type(self).__name__} must define rate")

    def sample(
        self, params: Any, key: jax.Array, n: int, cond: jax.Array | None, around: Around, choices: Choices
    ) -> jax.Array:
        """Draws latents.

        Args:
          params: as of `init`.
          key: of all draws; that of sample i is keyed by i.
          n: how many; static.
          cond: features [n, F]; None without a condition.
          around: what it was built for.
          choices: how they are drawn; numbers are static.

        Returns:
          latents as vectors [n, length].
        """
        raise TypeError(f"{type(self).__name__} must define sample")


def guided(with_cond: jax.Array, without: jax.Array, guidance: float) -> jax.Array:
    """Returns f(z) + s (f(z|c) - f(z)) of two outputs of one shape."""
    # Of logits too: softmax follows, so that no normalizer is needed here.
    return without + guidance * (with_cond - without)


def without_condition(cond: jax.Array) -> jax.Array:
    """Returns the features that stand for "no condition"."""
    # Every network reads features through a layer without a bias, so that zeros add nothing.
    return jnp.zeros_like(cond)
