"""What a network config is, and the activations that configs name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

Activation = Literal["relu", "leaky-relu", "tanh", "silu", "gelu", "softplus"]

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "leaky-relu": nn.leaky_relu,
    "tanh": jnp.tanh,
    "silu": nn.silu,
    "gelu": nn.gelu,
    "softplus": nn.softplus,
}


@dataclass(frozen=True)
class Network:
    """Base of the network configs: makes an encoder and a mirrored decoder.

    The encoder maps images [B, H, W, C] to [B, outputs]; the decoder maps codes [B, D] to [B, *out_shape]. Both
    return plain arrays: distributions, and noise, are the model's business.

    Attributes:
      autoregressive: whether the decoder is called as `(z, x)` and output (i, j) may depend on the pixels before it.
      noisy: whether the decoder takes `keys` [B], for dropout in training.
    """

    autoregressive: ClassVar[bool] = False

    @property
    def noisy(self) -> bool:
        return False

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Raises InputError if images of this (H, W, C) do not fit."""

    def encoder(self, outputs: int, dtype: jnp.dtype) -> nn.Module:
        """Returns the module image -> [B, outputs]."""
        raise TypeError(f"{type(self).__name__} must define encoder")

    def decoder(self, out_shape: tuple[int, int, int], dtype: jnp.dtype) -> nn.Module:
        """Returns the module code -> [B, *out_shape]."""
        raise TypeError(f"{type(self).__name__} must define decoder")
