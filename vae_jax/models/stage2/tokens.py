"""Generators whose network is a transformer over the codes, one token per place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from vae_jax.models.stage2.base import Around, Generator
from vae_jax.networks.transformer import CodeTransformer, check_heads
from vae_jax.options.ranges import AtLeast, Share


@dataclass(frozen=True)
class Tokens(Generator):
    """Base: the options of the transformer."""

    width: Annotated[int, AtLeast(1)] = 128
    """Length of a token's vector."""
    depth: Annotated[int, AtLeast(1)] = 4
    """Number of blocks."""
    heads: Annotated[int, AtLeast(1)] = 4
    """Heads of attention; they divide the width."""
    dropout: Annotated[float, Share()] = 0.1
    """Share of what a block adds to a token that drops out in training."""

    # Fixed by the subclass: with the mask the product over places is a probability, without it not.
    causal: ClassVar[bool] = False

    def check(self, around: Around) -> None:
        super().check(around)
        check_heads(self.heads, self.width, "model.generator.heads")

    def module(self, around: Around) -> CodeTransformer:
        """Returns the network for these latents."""
        # Made anew by each call: a flax module holds no arrays, only what it is built from.
        return CodeTransformer(
            around.books,
            around.codes,
            around.cond,
            self.width,
            self.depth,
            self.heads,
            self.dropout,
            self.causal,
            jnp.dtype(around.dtype),
        )

    def init(self, key: jax.Array, around: Around) -> dict[str, Any]:
        # One row: positions and codebooks decide the shapes of the parameters, the batch does not.
        z = jnp.zeros((1, around.length), jnp.int32)
        cond = jnp.zeros((1, around.cond)) if around.cond else None
        return dict(self.module(around).init(key, z, cond)["params"])
