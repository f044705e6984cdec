"""Stateless shuffling: a keyed bijection, so that step `k` knows its examples without any stored permutation.

Resume needs only the step, seeds can be vmapped, and numpy (grain's readers) and jax give the same order.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

# uint32 values of numpy (on the host) or of jax: what goes in comes out.
Words = TypeVar("Words", np.ndarray, jax.Array)

_ROUNDS = 4  # of two half-rounds each; 3 already pass the chi-square tests of pairs


def mix(h: Words) -> Words:
    """Returns a bijective scramble of uint32 values (the finalizer of MurmurHash3); numpy or jax arrays."""
    h = (h ^ (h >> 16)) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * np.uint32(0xC2B2AE35)
    return h ^ (h >> 16)


def key_words(key: jax.Array) -> jax.Array:
    """Returns the uint32 words of a typed key, [2] for threefry."""
    return jax.random.key_data(key).reshape(-1)


def _below(h: Words, bound: int) -> Words:
    """Maps uint32 hashes to [0, bound), bound <= 2**16, without a division."""
    return ((h >> 16) * np.uint32(bound)) >> 16


def _wrap(x: Words, bound: int, xp: ModuleType) -> Words:
    return xp.where(x >= np.uint32(bound), x - np.uint32(bound), x)


def _scramble(x: Words, seeds: tuple[Words, Words], rows: int, columns: int, xp: ModuleType) -> Words:
    """One pass of a Feistel network over Z_rows x Z_columns; uint32 [B] in [0, rows * columns), bijective."""
    left, right = x // np.uint32(columns), x % np.uint32(columns)
    low, high = seeds
    for i in range(_ROUNDS):
        salt = np.uint32((2 * i + 1) * 0x9E3779B9 & 0xFFFFFFFF)
        left = _wrap(left + _below(mix(mix(right + salt ^ low) + high), rows), rows, xp)
        salt = np.uint32((2 * i + 2) * 0x9E3779B9 & 0xFFFFFFFF)
        right = _wrap(right + _below(mix(mix(left + salt ^ low) + high), columns), columns, xp)
    return left * np.uint32(columns) + right  # type: ignore[return-value]


def seeds(words: Words, epoch: Words) -> tuple[Words, Words]:
    """Returns two uint32 seeds an element, from all key words and the element's epoch."""
    low, high = mix(epoch + np.uint32(0x9E3779B9)), mix(epoch ^ np.uint32(0x7F4A7C15))
    for i in range(words.shape[-1]):
        word = words[i : i + 1]
        low, high = mix(low ^ word), mix(high + word * np.uint32(0x27D4EB2F))
    return low, high


def _grid(size: int) -> tuple[int, int]:
    """Returns rows, columns with rows * columns >= size and less than one row too many."""
    if not 1 <= size < 2**31:
        raise ValueError(f"permute: size {size} is outside [1, 2**31)")
    rows = math.isqrt(size - 1) + 1
    return rows, -(-size // rows)


def permute(key: jax.Array, position: jax.Array, size: int, epoch: jax.Array | int = 0) -> jax.Array:
    """Returns the elements at `position` of the pseudo-random permutation number `epoch` of [0, size).

    A Feistel network over a grid of about sqrt(size) x sqrt(size) cells; positions that land outside [0, size)
    walk on along their cycle, which keeps the map a bijection.

    Args:
      key: a typed key.
      position: int32 [B], in [0, size).
      size: number of elements, 1 .. 2**31 - 1, a Python int.
      epoch: uint32 [B] or scalar; each epoch is another permutation.

    Returns:
      int32 [B], in [0, size).
    """
    rows, columns = _grid(size)
    position = jnp.asarray(position).astype(jnp.uint32)
    epoch = jnp.broadcast_to(jnp.asarray(epoch).astype(jnp.uint32), position.shape)
    flat = position.reshape(-1)
    own = seeds(key_words(key), epoch.reshape(-1))
    out = _scramble(flat, own, rows, columns, jnp)
    if rows * columns > size:  # the walk: rare, at most 1/sqrt(size) of the positions
        bound = np.uint32(size)
        out = jax.lax.while_loop(
            lambda x: jnp.any(x >= bound),
            lambda x: jnp.where(x >= bound, _scramble(x, own, rows, columns, jnp), x),
            out,
        )
    return out.astype(jnp.int32).reshape(position.shape)


def permute_host(words: np.ndarray, position: np.ndarray, size: int, epoch: np.ndarray) -> np.ndarray:
    """Returns what `permute` returns, in numpy: `words` are `key_words(key)`, all arrays [B].

    Args:
      words: key words of each position, uint32, as of `key_words`.
      position: place in the epoch, [B], below `size`.
      size: number of examples, N.
      epoch: of each position, [B].

    Returns:
      example numbers int32 [B], bit for bit those of `permute` on the device.
    """
    rows, columns = _grid(size)
    words = np.asarray(words, np.uint32)
    own = seeds(words, np.asarray(epoch).astype(np.uint32))
    out = _scramble(np.asarray(position).astype(np.uint32), own, rows, columns, np)
    while (outside := out >= size).any():
        out = np.where(outside, _scramble(out, own, rows, columns, np), out)
    return out.astype(np.int32)


def epoch_and_position(step: jax.Array, batch_size: int, size: int) -> tuple[jax.Array, jax.Array]:
    """Returns (t // size, t % size) for the examples t = step * batch_size + i of one step.

    t passes 2**31 in long runs and 64-bit integers are off, so t is never formed: step is written in binary and
    every power of two contributes a quotient and a remainder known in advance.

    Args:
      step: int32 scalar >= 0.
      batch_size: B, a Python int.
      size: number of examples, a Python int below 2**31.

    Returns:
      epoch uint32 [B] and position int32 [B].
    """
    step = jnp.asarray(step).astype(jnp.uint32)
    epoch, position = jnp.uint32(0), jnp.uint32(0)
    for bit in range(31):
        quotient, remainder = divmod(batch_size << bit, size)
        is_set = (step >> bit) & 1
        epoch += is_set * np.uint32(quotient & 0xFFFFFFFF)
        position += is_set * np.uint32(remainder)  # both < size < 2**31: the sum fits
        carry = (position >= np.uint32(size)).astype(jnp.uint32)
        epoch, position = epoch + carry, position - carry * np.uint32(size)
    ahead = position + jnp.arange(batch_size, dtype=jnp.uint32)
    return epoch + ahead // np.uint32(size), (ahead % np.uint32(size)).astype(jnp.int32)


def train_indices(key: jax.Array, step: jax.Array, batch_size: int, size: int) -> jax.Array:
    """Returns the examples of one step, int32 [B]: epochs follow each other without a gap and nothing is dropped.

    Example number t = step * batch_size + i is element t % size of permutation t // size.

    Args:
      key: of the shuffle, the same for the whole run.
      step: updates made so far, an int32 scalar.
      batch_size: B.
      size: number of examples, N; may be smaller than B.

    Returns:
      int32 [B]; a pure function of its arguments, so that a resumed run sees the examples it would have seen.
    """
    epoch, position = epoch_and_position(step, batch_size, size)
    return permute(key, position, size, epoch)
