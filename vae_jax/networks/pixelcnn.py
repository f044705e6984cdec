"""Gated PixelCNN over a grid of codes: all places in one pass, or one place after another from what it keeps."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.networks.dropout import dropout

_WEIGHTS = nn.initializers.lecun_normal()


class Kept(NamedTuple):
    """What the rows and columns before a place have left for it; C channels, r = kernel // 2.

    Attributes:
      codes: of the row of this place, int32 [B, w, L].
      above: what each vertical layer reads of the r rows above this one, [B, r, w, C] each.
      down: what each horizontal layer receives from the rows above, [B, w, 2 C] each.
      left: what each horizontal layer but the first, which reads the codes, reads of this row, behind r columns of
        zeros, [B, r + w, C] each.
    """

    codes: jax.Array
    above: tuple[jax.Array, ...]
    down: tuple[jax.Array, ...]
    left: tuple[jax.Array, ...]


class Grouped(nn.Module):
    """A dense layer whose channels are in groups: group l reads the groups up to l, or before l, and no others.

    `halves` blocks of output channels are each divided into all groups: those of a gate's two sides.
    """

    features: int
    groups: int
    before: bool = False
    halves: int = 1
    dtype: Any = jnp.float32
    kernel_init: Any = _WEIGHTS

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """y = x (W * mask) + b, x [..., C] to [..., features]."""
        source = np.repeat(np.arange(self.groups), x.shape[-1] // self.groups)
        target = np.tile(np.repeat(np.arange(self.groups), self.features // self.groups // self.halves), self.halves)
        mask = source[:, None] < target if self.before else source[:, None] <= target
        kernel = self.param("kernel", self.kernel_init, mask.shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        # What is masked meets a weight of exactly 0, so that it changes no bit of the sum.
        y = x @ jnp.where(mask, kernel, 0.0).astype(self.dtype)
        return y + bias.astype(self.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


class GatedLayer(nn.Module):
    """One layer of both stacks (arXiv:1606.05328, figure 2).

    Attributes:
      hidden: channels C.
      groups: number L of codes at a place, each of which has C / L channels of the horizontal stack.
      first: whether it reads the codes themselves: of its own row the vertical stack then reads nothing, and group l of
        the horizontal stack no code l.
    """

    hidden: int
    groups: int
    first: bool
    dtype: Any

    def setup(self):
        wide, free = 2 * self.hidden, {"use_bias": False, "dtype": self.dtype}
        self.rows = nn.Dense(wide, dtype=self.dtype)
        self.down = nn.Dense(wide, **free)
        self.columns = nn.Dense(wide, **free)
        # With one code at a place, the first layer has nothing of the place itself to read.
        self.here = Grouped(wide, self.groups, self.first, 2, self.dtype) if self.groups > 1 or not self.first else None
        self.out = Grouped(self.hidden, self.groups, dtype=self.dtype)
        # Without a bias: features of zeros stand for "no condition" and add nothing.
        self.row_cond, self.column_cond = nn.Dense(wide, **free), nn.Dense(wide, **free)

    def vertical(self, window: jax.Array, cond: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Returns (vertical features [..., C], what the horizontal stack receives [..., 2 C]) of windows of rows."""
        wide = self.rows(window)
        if cond is not None:
            wide = wide + _spread(self.row_cond(cond), wide)
        down = self.down(wide)
        if cond is not None:
            down = down + _spread(self.column_cond(cond), down)
        return _gate(wide), down

    def horizontal(self, window: jax.Array, x: jax.Array, down: jax.Array) -> jax.Array:
        """Returns the gated features [..., C] of what is left of places, the places themselves, and what is above."""
        wide = self.columns(window) + down
        return _gate(wide if self.here is None else wide + self.here(x))

    def add(self, x: jax.Array, gated: jax.Array) -> jax.Array:
        """Returns the input of the next layer."""
        # No residual past the first layer: its input is the very code that must not be seen.
        return self.out(gated) if self.first else x + self.out(gated)


class GatedPixelCNN(nn.Module):
    """Logits of codes in raster order, the L codes of a place one after another.

    The vertical stack sees all rows above a place, the horizontal one what is left of it and the codes before at the
    place itself; between them nothing that comes earlier is out of sight, once there are layers enough.

    `above` and `place` compute what `__call__` does for one row and one place, from what the rows and columns before
    have left in a `Kept`.
    """

    codes: int
    shape: tuple[int, int, int]
    hidden: int
    layers: int
    kernel: int
    dropout: float
    dtype: Any

    def setup(self):
        groups = self.shape[-1]
        table = (groups, self.codes, self.hidden // groups)
        self.embedding = self.param("embedding", nn.initializers.normal(1.0), table, jnp.float32)
        self.stack = [GatedLayer(self.hidden, groups, i == 0, self.dtype) for i in range(self.layers)]
        self.head = Grouped(self.hidden, groups, dtype=self.dtype)
        # Small logits at the start: nearly uniform codes.
        small = nn.initializers.variance_scaling(0.01, "fan_in", "normal")
        self.logits = Grouped(groups * self.codes, groups, dtype=self.dtype, kernel_init=small)

    def __call__(self, z: jax.Array, cond: jax.Array | None, keys: jax.Array | None = None) -> jax.Array:
        """Returns the logits of all places, float32 [B, h, w, L, K].

        Args:
          z: codes, int32 [B, h, w, L].
          cond: features [B, F]; None without a condition.
          keys: one per example [B], for dropout; None outside training.
        """
        reach = self.kernel // 2
        rows = columns = self._embed(z)
        for i, layer in enumerate(self.stack):
            padded = jnp.pad(rows, ((0, 0), (reach, 0), (0, 0), (0, 0)))
            rows, down = layer.vertical(self._windows(padded[:, :-1] if i == 0 else padded, i == 0), cond)
            left = jnp.pad(columns, ((0, 0), (0, 0), (reach, 0), (0, 0)))
            left = jnp.concatenate([left[:, :, j : j + self.shape[1]] for j in range(reach)], -1)
            gated = layer.horizontal(left, columns, down)
            columns = layer.add(columns, dropout(gated, keys, f"layer {i}", self.dropout))
        return self._logits(columns)

    def nothing(self, n: int) -> Kept:
        """Returns what is kept before the first row of n examples."""
        _, width, levels = self.shape
        reach, hidden = self.kernel // 2, self.hidden

        def zeros(*shape: int) -> tuple[jax.Array, ...]:
            return (jnp.zeros((n, *shape), self.dtype),) * self.layers

        codes = jnp.zeros((n, width, levels), jnp.int32)
        return Kept(codes, zeros(reach, width, hidden), zeros(width, 2 * hidden), zeros(reach + width, hidden)[1:])

    def above(self, kept: Kept, first: jax.Array, cond: jax.Array | None) -> Kept:
        """Returns what is kept at the start of a row.

        Args:
          kept: of the row before, with all its codes.
          first: bool scalar, whether there is no row before.
          cond: as of `__call__`.
        """
        # Outside the grid are zeros, not code 0.
        done = jnp.where(first, 0.0, self._embed(kept.codes))
        above, downs = [jnp.concatenate([kept.above[0], done[:, None]], 1)[:, 1:]], []
        rows = above[0]
        for i, layer in enumerate(self.stack):
            row, down = layer.vertical(self._windows(rows, i == 0)[:, 0], cond)
            downs.append(down)
            if i + 1 < self.layers:
                rows = jnp.concatenate([kept.above[i + 1], row[:, None]], 1)
                above.append(rows[:, 1:])
        left = tuple(jnp.zeros_like(x) for x in kept.left)
        return Kept(jnp.zeros_like(kept.codes), tuple(above), tuple(downs), left)

    def place(self, kept: Kept, column: jax.Array, level: jax.Array) -> tuple[Kept, jax.Array]:
        """Returns what is kept after a place was computed, and its logits, float32 [B, K].

        Args:
          kept: of this row, with the codes before this one.
          column: int32 scalar, 0 to w - 1.
          level: int32 scalar, 0 to L - 1.
        """
        reach = self.kernel // 2

        def at(x: jax.Array, start: jax.Array, length: int) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(x, start, length, 1).reshape(x.shape[0], -1)

        row = jnp.pad(self._embed(kept.codes), ((0, 0), (reach, 0), (0, 0)))
        x, lefts = at(row, column + reach, 1), [row]
        for i, (layer, down) in enumerate(zip(self.stack, kept.down)):
            x = layer.add(x, layer.horizontal(at(lefts[i], column, reach), x, at(down, column, 1)))
            if i + 1 < self.layers:
                lefts.append(jax.lax.dynamic_update_slice_in_dim(kept.left[i], x[:, None], column + reach, 1))
        # The groups of all levels are computed each time, of which those up to this level know the codes they read;
        # what the last level leaves in `left` is right.
        logits = jax.lax.dynamic_index_in_dim(self._logits(x), level, 1, keepdims=False)
        return kept._replace(left=tuple(lefts[1:])), logits

    def _embed(self, z: jax.Array) -> jax.Array:
        """Returns codes [..., L] as channels [..., C], C / L for each."""
        each = [self.embedding[level][z[..., level]] for level in range(z.shape[-1])]
        return jnp.concatenate(each, -1).astype(self.dtype)

    def _windows(self, rows: jax.Array, first: bool) -> jax.Array:
        """Returns `deep` rows and `kernel` columns around each place: [B, R, w, C] to [B, R - deep + 1, w, M].

        `deep` is kernel // 2, the rows above, and one more where the row itself is read too.
        """
        reach = self.kernel // 2
        deep = reach if first else reach + 1
        x = jnp.pad(rows, ((0, 0), (0, 0), (reach, reach), (0, 0)))
        # Concatenations and one matrix product: gradients of masked convolutions are slow on CPU.
        near = jnp.concatenate([x[:, :, j : j + self.shape[1]] for j in range(self.kernel)], -1)
        return jnp.concatenate([near[:, i : i + rows.shape[1] - deep + 1] for i in range(deep)], -1)

    def _logits(self, x: jax.Array) -> jax.Array:
        """Returns [..., C] as logits, float32 [..., L, K]."""
        logits = self.logits(nn.relu(self.head(nn.relu(x))))
        return logits.astype(jnp.float32).reshape(*x.shape[:-1], self.shape[-1], self.codes)


def _gate(x: jax.Array) -> jax.Array:
    """Returns tanh(a) sigmoid(b) of [..., 2 C]."""
    a, b = jnp.split(x, 2, -1)
    return jnp.tanh(a) * nn.sigmoid(b)


def _spread(x: jax.Array, like: jax.Array) -> jax.Array:
    """Returns [B, C] with as many axes as `like`, all of length 1 between the two."""
    return x.reshape(x.shape[0], *(1,) * (like.ndim - 2), x.shape[-1])
