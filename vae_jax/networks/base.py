"""What a network config is, and the activations that configs name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax.errors import InputError, option
from vae_jax.spec import ArraySpec

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

    The encoder maps data [B, *x.shape] to [B, outputs]; the decoder maps codes [B, D] to [B, *out_shape]. Both
    return plain arrays: distributions, and noise, are the model's business.

    Attributes:
      kinds: the kinds of data that it takes (see `spec.ArraySpec`).
      autoregressive: whether the decoder is called as `(z, x)` and output (i, j) may depend on the pixels before it.
      spatial: whether the code is a grid of vectors [B, h, w, n] (see `networks.spatial`), not one vector.
      noisy: whether the decoder takes `keys` [B], for dropout in training.
    """

    kinds: ClassVar[tuple[str, ...]] = ("image",)
    autoregressive: ClassVar[bool] = False
    spatial: ClassVar[bool] = False

    @property
    def noisy(self) -> bool:
        return False

    def check(self, x: ArraySpec) -> None:
        """Raises InputError if data of this kind or shape do not fit."""
        if x.kind not in self.kinds:
            raise InputError(
                f"model.network: {type(self).__name__} takes data of kind {' or '.join(self.kinds)}, but these are of "
                f"kind {x.kind}; choose {option('model.network', 'mlp')}"
            )

    def gives(self) -> frozenset[str]:
        """Returns the properties that other components may need (see `options.needs`)."""
        given = {
            "one pass": not self.autoregressive,
            "no noise": not self.noisy,
            "vector code": not self.spatial,
            "grid code": self.spatial,
        }
        return frozenset(name for name, it_does in given.items() if it_does)

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Returns (h, w) of the code of images of this shape, where it is a grid."""
        raise TypeError(f"{type(self).__name__} must define grid")

    def encoder(self, outputs: int, dtype: jnp.dtype) -> nn.Module:
        """Returns the module x [B, *x.shape] -> [B, outputs]."""
        raise TypeError(f"{type(self).__name__} must define encoder")

    def decoder(self, out_shape: tuple[int, ...], dtype: jnp.dtype) -> nn.Module:
        """Returns the module code -> [B, *out_shape]."""
        raise TypeError(f"{type(self).__name__} must define decoder")
