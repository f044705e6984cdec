"""Transformers over rows of codes: causal, one place after another, or with all places in sight."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.errors import InputError, option
from vae_jax.networks.dropout import dropout

_SMALL = nn.initializers.normal(0.02)  # embeddings and head: the first logits are near 0, all codes equally likely


def check_heads(heads: int, width: int, name: str) -> None:
    """Checks that the heads of attention share a token evenly.

    Args:
      heads: how many.
      width: of a token.
      name: option that says how many heads.

    Raises:
      InputError: they do not divide the width.
    """
    if width % heads:
        raise InputError(
            f"{name}: {heads} heads do not divide a width of {width}; use {option(name, fitting(heads, width))}"
        )


def fitting(wanted: int, *sizes: int) -> int:
    """Returns the number that divides all sizes and is nearest to `wanted`, by their ratio."""
    largest = math.gcd(*sizes)
    return min((n for n in range(1, largest + 1) if not largest % n), key=lambda n: abs(math.log(n / wanted)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), on tokens [B, T, width].

    What is added starts at 1 / sqrt(2 depth) of the usual size, so that the sum over all blocks does not grow with
    their number. `mlp` is the width of the hidden layer over that of a token.
    """

    width: int
    heads: int
    depth: int
    dropout: float
    causal: bool
    dtype: jnp.dtype
    mlp: int = 4

    def setup(self):
        added = nn.initializers.variance_scaling(0.5 / self.depth, "fan_in", "truncated_normal")
        self.norm_attention = nn.LayerNorm(dtype=self.dtype)
        self.qkv = nn.Dense(3 * self.width, dtype=self.dtype)
        self.mix = nn.Dense(self.width, dtype=self.dtype, kernel_init=added)
        self.norm_mlp = nn.LayerNorm(dtype=self.dtype)
        self.up = nn.Dense(self.mlp * self.width, dtype=self.dtype)
        self.down = nn.Dense(self.width, dtype=self.dtype, kernel_init=added)

    def __call__(self, x, keys=None):
        q, k, v = self._heads(x)
        seen = jax.nn.dot_product_attention(q, k, v, is_causal=self.causal)
        return self._rest(x, seen, keys)

    def step(self, x, cache, place):
        """Returns the token at `place` [B, 1, width], and the cache with its key and value.

        Args:
          x: the token, [B, 1, width].
          cache: keys and values of the places before, [B, T, heads, width / heads] each.
          place: int32 scalar.
        """
        q, *new = self._heads(x)
        k, v = (jax.lax.dynamic_update_slice(old, one, (0, place, 0, 0)) for old, one in zip(cache, new, strict=True))
        # Shapes are static: places after this one are there, and masked.
        before = (jnp.arange(k.shape[1]) <= place)[None, None, None, :]
        return self._rest(x, jax.nn.dot_product_attention(q, k, v, mask=before), None), (k, v)

    def _heads(self, x):
        """Returns query, key and value, [B, T, heads, width / heads] each."""
        parts = jnp.split(self.qkv(self.norm_attention(x)), 3, -1)
        return [part.reshape(*x.shape[:2], self.heads, self.width // self.heads) for part in parts]

    def _rest(self, x, seen, keys):
        """Returns the block's output from what its attention has seen, [B, T, heads, width / heads]."""
        # Sites by the block's name: every block drops units of its own.
        x = x + dropout(self.mix(seen.reshape(x.shape)), keys, f"{self.name}/attention", self.dropout)
        hidden = self.down(nn.gelu(self.up(self.norm_mlp(x))))
        return x + dropout(hidden, keys, f"{self.name}/mlp", self.dropout)


class CodeTransformer(nn.Module):
    """Logits of the code at each of T places, float32 [B, T, K], from codes z [B, T] and features [B, F].

    Causal: the logits of place i depend on the codes before i. Else: those of every place depend on all codes that are
    not masked; at a masked place stands the learned vector `blank` in place of the code, whatever this is.

    Attributes:
      books: number of the codebook that the code at each place is of; each has an embedding and a head of its own.
      codes: K, the size of the largest codebook.
      features: F, 0 without a condition. Features of 0 add nothing: they are "no condition".
      width: of a token.
      depth: number of blocks.
      heads: of attention; they divide the width.
      dropout: probability that an entry of what a block adds is dropped.
      causal: see above.
      dtype: in which the blocks compute; parameters and logits are float32.
    """

    books: tuple[int, ...]
    codes: int
    features: int
    width: int
    depth: int
    heads: int
    dropout: float
    causal: bool
    dtype: jnp.dtype

    def setup(self):
        books = max(self.books) + 1
        self.table = self.param("table", _SMALL, (books * self.codes, self.width))
        self.blank = self.param("blank", _SMALL, (self.width,))
        self.position = self.param("position", _SMALL, (len(self.books), self.width))
        if self.features:
            self.condition = nn.Dense(self.width, use_bias=False, dtype=self.dtype)
        shape = (self.width, self.heads, self.depth, self.dropout, self.causal, self.dtype)
        self.blocks = [Block(*shape) for _ in range(self.depth)]
        self.norm = nn.LayerNorm(dtype=jnp.float32)
        self.head = self.param("head", _SMALL, (books, self.width, self.codes))
        self.bias = self.param("bias", nn.initializers.zeros, (books, self.codes))

    def __call__(self, z, cond, masked=None, keys=None):
        """Returns the logits of all places, float32 [B, T, K].

        Args:
          z: int32 [B, T].
          cond: features [B, F]; None without a condition.
          masked: bool [B, T], the places whose codes are hidden; None where `causal`, or hides nothing.
          keys: one per example [B] for dropout; None outside training.
        """
        x = self.table[z + self.codes * jnp.asarray(self.books, jnp.int32)[None]]
        blank = jnp.broadcast_to(self.blank, x.shape)
        if self.causal:
            # Place i reads the code before it; the first reads `blank`.
            x = jnp.concatenate([blank[:, :1], x[:, :-1]], 1)
        elif masked is not None:
            x = jnp.where(masked[..., None], blank, x)
        x = self._tokens(x + self.position[None], cond)
        for block in self.blocks:
            x = block(x, keys)
        return self._logits(x)

    def cache(self, batch):
        """Returns what `step` carries before the first place: zeros for keys and values of every block."""
        zeros = jnp.zeros((batch, len(self.books), self.heads, self.width // self.heads), self.dtype)
        return tuple((zeros, zeros) for _ in range(self.depth))

    def step(self, code, place, cond, cache):
        """Returns the cache after a code, and the logits of the place after it: those of a causal `__call__`.

        Args:
          code: int32 [B], the code at `place - 1`; of no meaning at place 0.
          place: int32 scalar.
          cond: features [B, F]; None without a condition.
          cache: of the steps before.

        Returns:
          the cache, and logits float32 [B, K].
        """
        book = jnp.asarray(self.books, jnp.int32)
        x = jnp.where(place == 0, self.blank[None], self.table[code + self.codes * book[place - 1]])
        x = self._tokens((x + self.position[place][None])[:, None], cond)
        new = []
        for block, held in zip(self.blocks, cache, strict=True):
            x, held = block.step(x, held, place)
            new.append(held)
        return tuple(new), self._scores(self.norm(x), book[place])[:, 0]

    def _tokens(self, x, cond):
        """Returns tokens [B, T, width] with the condition added."""
        x = jnp.asarray(x, self.dtype)
        return x if cond is None or not self.features else x + self.condition(cond)[:, None]

    def _logits(self, x):
        """Returns the logits of all places, of tokens [B, T, width]."""
        x, books = self.norm(x), np.asarray(self.books)
        if not books.any():
            return self._scores(x, 0)
        # The places of each codebook in one product, and all of them back in their order.
        places = [np.flatnonzero(books == book) for book in range(max(self.books) + 1)]
        scores = jnp.concatenate([self._scores(x[:, where], book) for book, where in enumerate(places)], 1)
        return scores[:, np.argsort(np.concatenate(places))]

    def _scores(self, x, book):
        """Returns logits [B, T, K] of tokens that all belong to one codebook."""
        return x @ self.head[book] + self.bias[book][None, None]
