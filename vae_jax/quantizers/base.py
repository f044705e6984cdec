"""What a quantizer is: it replaces each vector by an entry of a finite set, and names the entry by integers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax.errors import InputError
from vae_jax.model import Context

MOST_CODES = 2**31 - 1  # indices are int32


class Quantized(NamedTuple):
    """What a quantizer makes of vectors [..., D].

    Attributes:
      z: the entries that stand for the vectors, float32 [..., D]; the gradient that reaches the vectors through them is
        an estimate (straight through, unless the quantizer says otherwise).
      indices: int32 [..., L], one index per codebook; index l is in [0, `sizes[l]`).
      cost: what is added to the loss, float32 [...]: the weighted terms.
      terms: the terms without their weights, float32 [...] each: `codebook`, `commitment`, `entropy`, `kl`.
      error: squared distance of the vectors from what stands for them after each of the L codebooks, float32 [..., L].
      state: what is not trained by gradient, after this batch.
    """

    z: jax.Array
    indices: jax.Array
    cost: jax.Array
    terms: dict[str, jax.Array]
    error: jax.Array
    state: dict[str, Any]


@dataclass(frozen=True)
class Quantizer:
    """Base of the quantizers, frozen configs of pure functions.

    Vectors are the last axis of an array of any shape. Whatever a call reads is an argument:

        quantizer = FSQ((8, 5, 5, 5))
        params, state = quantizer.init(key, 16), quantizer.init_state(key, 16)
        out = quantizer.quantize(params, state, z)            # z [..., 16] -> out.z [..., 16], out.indices [..., 1]
        quantizer.embed(params, out.state, out.indices)       # out.z again

    Attributes:
      draws: whether indices are drawn from a distribution, outside of training too where there is a key.
    """

    draws: ClassVar[bool] = False

    @property
    def averages(self) -> bool:
        """Whether states of microbatches may be averaged: not where a codebook follows the batch."""
        return True

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of entries of each of the L codebooks that an index names."""
        raise TypeError(f"{type(self).__name__} must define sizes")

    def check(self, features: int) -> None:
        """Raises InputError if vectors of this length cannot be quantized, or there are more codes than int32 names."""
        # Ranges of single options are checked by the options; here it is their product, and what the vectors allow.
        for size in self.sizes:
            if size < 2:
                raise InputError(f"{type(self).__name__}: {size} code cannot tell vectors apart; use 2 or more")
            if size > MOST_CODES:
                raise InputError(
                    f"{type(self).__name__}: {size:,} codes are more than the {MOST_CODES:,} that an index can name; "
                    "use fewer levels or bits, or several codebooks"
                )

    def init(self, key: jax.Array, features: int) -> dict[str, Any]:
        """Returns the trained parameters, for vectors of length `features`."""
        del key, features
        return {}

    # Parameters go to the optimizer, the state does not: a codebook is in one or in the other.
    def init_state(self, key: jax.Array, features: int) -> dict[str, Any]:
        """Returns what is not trained by gradient, for vectors of length `features`."""
        del key, features
        return {}

    def quantize(
        self, params: Any, state: Any, z: jax.Array, *, key: jax.Array | None = None, ctx: Context | None = None
    ) -> Quantized:
        """Returns the entries that stand for vectors.

        Args:
          params: as of `init`.
          state: as of `init_state`.
          z: vectors [B, ..., D]; the first axis is that of the examples.
          key: of all noise of this batch; training alone needs one. Outside of it only a quantizer that `draws` reads
            it: without a key it gives the most probable entries.
          ctx: of the step; None quantizes without training: nothing moves.

        Returns:
          entries, indices, cost, errors and the new state.
        """
        raise TypeError(f"{type(self).__name__} must define quantize")

    def rate(self, out: Quantized) -> jax.Array:
        """Returns the nats of the indices of each vector, float32 [...], all entries being equally likely beforehand.

        That is KL(q || uniform): sum_l ln K_l where the vector decides its indices.

        Args:
          out: as of `quantize`.
        """
        return jnp.full(out.indices.shape[:-1], sum(math.log(size) for size in self.sizes), jnp.float32)

    def embed(self, params: Any, state: Any, indices: jax.Array) -> jax.Array:
        """Returns the entries of indices [..., L], float32 [..., D]: the `z` of `quantize`.

        Args:
          params: as of `init`.
          state: as of `init_state`.
          indices: int32 [..., L].
        """
        raise TypeError(f"{type(self).__name__} must define embed")


def trains(ctx: Context | None) -> bool:
    """Says whether a batch is one of training."""
    return ctx is not None and ctx.train


def needed(key: jax.Array | None, what: str) -> jax.Array:
    """Returns the key of what is random.

    Raises:
      InputError: there is none.
    """
    if key is None:
        raise InputError(f"key: {what} is random in training; call quantize(..., key=jax.random.key(0))")
    return key


def square(x: jax.Array) -> jax.Array:
    """Returns the squared length of vectors [..., D], float32 [...]."""
    # In bfloat16 a sum over some dozen coordinates would lose what tells two entries apart.
    return jnp.sum(jnp.square(x.astype(jnp.float32)), -1)


def unit(x: jax.Array) -> jax.Array:
    """Returns vectors [..., D] divided by their length; 0 stays 0, and has no gradient."""
    power = square(x)[..., None]
    # A zero vector has no direction: the root would make its gradient NaN, and the floor alone 1e12 times as large.
    known = power > 1e-24
    length = jnp.sqrt(jnp.where(known, power, 1.0))
    return jnp.where(known, x / length, jax.lax.stop_gradient(x) / 1e-12)


def last(vector: Any, like: jax.Array) -> jax.Array:
    """Returns a vector [n] with as many axes as `like`, all of length 1 but the last."""
    # Written out, so that nothing is broadcast by its rank alone.
    return jnp.reshape(jnp.asarray(vector), (1,) * (like.ndim - 1) + (-1,))
