"""Gated PixelCNN as a generator of the codes of one grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from vae_jax import spaces
from vae_jax.errors import InputError, option
from vae_jax.models.stage2.base import Around
from vae_jax.models.stage2.sequential import Sequential
from vae_jax.networks.pixelcnn import GatedPixelCNN, Kept
from vae_jax.options.ranges import AtLeast, Share


@dataclass(frozen=True)
class PixelCNN(Sequential):
    """Gated PixelCNN over one grid of codes [h, w, L] (arXiv:1606.05328).

    A code sees the codes above and left of it, as far as the layers reach, and those before it at its place.
    """

    hidden: Annotated[int, AtLeast(1)] = 128
    """Channels; the L codes of a place share them, so that L divides it."""
    layers: Annotated[int, AtLeast(1)] = 10
    """Gated layers. Each sees kernel // 2 codes further up and to the left."""
    kernel: Annotated[int, AtLeast(3)] = 5
    """Side of the window of a layer, odd."""
    dropout: Annotated[float, Share()] = 0.0
    """Probability that a channel of a gated layer is 0 in training."""

    def check(self, around: Around) -> None:
        super().check(around)
        levels = spaces.leaves(around.latents)
        # Windows need neighbors in two directions, which several levels or a row of codes do not have.
        if len(levels) > 1 or len(levels[0].shape) != 3:
            found = f"{len(levels)} levels" if len(levels) > 1 else f"of shape {levels[0].shape}"
            raise InputError(
                f"model.generator: PixelCNN takes one grid of codes [h, w, L], but the latents of the first stage are "
                f"{found}; choose {option('model.generator', 'transformer')}"
            )
        if self.kernel % 2 == 0:
            raise InputError(
                f"model.generator.kernel: a window of {self.kernel} has no middle; use "
                f"{option('model.generator.kernel', self.kernel + 1)}"
            )
        # Every code has a group of channels of its own, all of one width.
        places = levels[0].shape[-1]
        if self.hidden % places:
            up = -(-self.hidden // places) * places
            raise InputError(
                f"model.generator.hidden: {self.hidden} channels cannot be shared evenly by the {places} codes of a "
                f"place; use {option('model.generator.hidden', up)}"
            )

    def init(self, key: jax.Array, around: Around) -> dict[str, Any]:
        # Layers share their weights between places, so that one blank grid gives all shapes.
        z = jnp.zeros((1, *_shape(around)), jnp.int32)
        cond = jnp.zeros((1, around.cond)) if around.cond else None
        return dict(self._network(around).init(key, z, cond)["params"])

    def logits(
        self, params: Any, keys: jax.Array | None, z: jax.Array, cond: jax.Array | None, around: Around
    ) -> jax.Array:
        # Rows [B, n] to grids [B, h, w, L], and logits [B, h, w, L, K] back to [B, n, K].
        grid = z.reshape(-1, *_shape(around))
        logits = self._network(around).apply({"params": params}, grid, cond, keys)
        return jnp.asarray(logits).reshape(*z.shape, -1)

    def start(self, params: Any, n: int, cond: jax.Array | None, around: Around) -> Kept:
        del cond
        # Features enter with each row, in `above`.
        return self._call(params, around, "nothing", n)

    def step(
        self, params: Any, carry: Kept, code: jax.Array, place: jax.Array, cond: jax.Array | None, around: Around
    ) -> tuple[Kept, jax.Array]:
        _, width, levels = _shape(around)
        # The code before this one is in this row, or the last of the row above. At place 0 there is none: what is
        # written then is at the end of a row that `above` takes for none.
        before = (place - 1) % (width * levels)
        codes = carry.codes.reshape(code.shape[0], -1).at[:, before].set(code)
        carry = carry._replace(codes=codes.reshape(carry.codes.shape))

        # The vertical stack is computed once per row.
        carry = jax.lax.cond(
            place % (width * levels) == 0,
            lambda held: self._call(params, around, "above", held, place == 0, cond),
            lambda held: held,
            carry,
        )
        # Raster order: level fastest, then column, then row.
        column, level = place // levels % width, place % levels
        return self._call(params, around, "place", carry, column, level)

    def _network(self, around: Around) -> GatedPixelCNN:
        return GatedPixelCNN(
            around.codes, _shape(around), self.hidden, self.layers, self.kernel, self.dropout, around.dtype
        )

    def _call(self, params: Any, around: Around, method: str, *given: Any) -> Any:
        return self._network(around).apply({"params": params}, *given, method=method)


def _shape(around: Around) -> tuple[int, int, int]:
    """Returns (h, w, L) of the grid."""
    # `check` has made sure that there is one level, and that it is a grid.
    h, w, levels = spaces.leaves(around.latents)[0].shape
    return h, w, levels
