"""Fully connected networks, and the linear one whose optimum is known in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp

from vae_jax.networks.base import ACTIVATIONS, Activation, Network


class DenseStack(nn.Module):
    """Dense layers with an activation between them, on the flattened input; the output is reshaped to `out_shape`."""

    hidden: tuple[int, ...]
    out_shape: tuple[int, ...]
    activation: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        act = ACTIVATIONS[self.activation]
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.hidden):
            x = act(nn.Dense(width, dtype=self.dtype, name=f"hidden_{i}")(x))
        x = nn.Dense(math.prod(self.out_shape), dtype=self.dtype, name="out")(x)
        return x.reshape(x.shape[0], *self.out_shape)


@dataclass(frozen=True)
class MLP(Network):
    """Fully connected encoder and mirrored decoder (784-512-512-20 on MNIST with the defaults and latent 20)."""

    hidden: tuple[int, ...] = (512, 512)
    """Widths of the encoder's hidden layers; the decoder has them in reverse."""
    activation: Activation = "relu"
    """Activation between layers."""

    def encoder(self, outputs: int, dtype: jnp.dtype) -> nn.Module:
        return DenseStack(self.hidden, (outputs,), self.activation, dtype)

    def decoder(self, out_shape: tuple[int, int, int], dtype: jnp.dtype) -> nn.Module:
        return DenseStack(self.hidden[::-1], out_shape, self.activation, dtype)


@dataclass(frozen=True)
class Linear(Network):
    """One affine map each way: a linear VAE is pPCA (arXiv:1911.02469), a linear autoencoder is PCA."""

    def encoder(self, outputs: int, dtype: jnp.dtype) -> nn.Module:
        return DenseStack((), (outputs,), "relu", dtype)

    def decoder(self, out_shape: tuple[int, int, int], dtype: jnp.dtype) -> nn.Module:
        return DenseStack((), out_shape, "relu", dtype)
