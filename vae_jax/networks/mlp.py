"""Fully connected networks, and the linear one whose optimum is known in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from vae_jax.networks.base import ACTIVATIONS, Activation, Network
from vae_jax.networks.dropout import dropout
from vae_jax.options.ranges import EACH_AT_LEAST_ONE, Share


class DenseStack(nn.Module):
    """Dense layers with an activation between them, on the flattened input; the output is reshaped to `out_shape`.

    With `skip` every layer after the first also sees the input; with `keys` [B] hidden units drop out at `dropout`.
    """

    hidden: tuple[int, ...]
    out_shape: tuple[int, ...]
    activation: str
    dtype: jnp.dtype
    dropout: float = 0.0
    skip: bool = False

    @nn.compact
    def __call__(self, x, keys=None):
        act = ACTIVATIONS[self.activation]
        first = x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.hidden):
            x = act(nn.Dense(width, dtype=self.dtype, name=f"hidden_{i}")(x))
            x = dropout(x, keys, f"hidden_{i}", self.dropout)
            if self.skip:
                x = jnp.concatenate([x, jnp.asarray(first, x.dtype)], axis=-1)
        x = nn.Dense(math.prod(self.out_shape), dtype=self.dtype, name="out")(x)
        return x.reshape(x.shape[0], *self.out_shape)


@dataclass(frozen=True)
class MLP(Network):
    """Fully connected encoder and mirrored decoder (784-512-512-20 on MNIST with the defaults and latent 20)."""

    hidden: Annotated[tuple[int, ...], EACH_AT_LEAST_ONE] = (512, 512)
    """Widths of the encoder's hidden layers; the decoder has them in reverse."""
    activation: Activation = "relu"
    """Activation between layers."""
    decoder_hidden: Annotated[tuple[int, ...], EACH_AT_LEAST_ONE] = ()
    """Widths of the decoder's hidden layers, its capacity; empty mirrors the encoder."""
    dropout: Annotated[float, Share()] = 0.0
    """Share of the decoder's hidden units that drop out in training: a weaker decoder leans more on the code."""
    skip: bool = False
    """Skip-VAE: every decoder layer sees the code, not the first alone (arXiv:1807.04863)."""

    kinds: ClassVar[tuple[str, ...]] = ("image", "vector", "sequence")

    @property
    def noisy(self) -> bool:
        return self.dropout > 0.0

    def encoder(self, outputs: int, dtype: jnp.dtype) -> nn.Module:
        return DenseStack(self.hidden, (outputs,), self.activation, dtype)

    def decoder(self, out_shape: tuple[int, ...], dtype: jnp.dtype) -> nn.Module:
        widths = self.decoder_hidden or self.hidden[::-1]
        return DenseStack(widths, out_shape, self.activation, dtype, self.dropout, self.skip)


@dataclass(frozen=True)
class Linear(Network):
    """One affine map each way: a linear VAE is pPCA (arXiv:1911.02469), a linear autoencoder is PCA."""

    kinds: ClassVar[tuple[str, ...]] = ("image", "vector", "sequence")

    def encoder(self, outputs: int, dtype: jnp.dtype) -> nn.Module:
        return DenseStack((), (outputs,), "relu", dtype)

    def decoder(self, out_shape: tuple[int, ...], dtype: jnp.dtype) -> nn.Module:
        return DenseStack((), out_shape, "relu", dtype)
