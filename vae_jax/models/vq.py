"""VQ-VAE: the code of an example is a grid of indices, and any quantizer makes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax import likelihoods, networks, prng, quantizers
from vae_jax.model import Context, Model, Params, State
from vae_jax.models import observed, quantized
from vae_jax.options.ranges import AtLeast
from vae_jax.quantizers import Quantized
from vae_jax.spec import DataSpec


@dataclass(frozen=True)
class VQVAE(quantized.Coded):
    """VQ-VAE (arXiv:1711.00937), with any quantizer."""

    features: Annotated[int, AtLeast(1)] = 64
    """Length D of the vectors that are quantized."""
    network: networks.Network = field(default_factory=networks.ResidualConv)
    """Encoder and decoder; its code must be a grid of vectors."""
    likelihood: likelihoods.PixelLikelihood = field(default_factory=likelihoods.Gaussian)
    """Distribution of pixels given the code."""
    quantizer: quantizers.Quantizer = field(default_factory=quantizers.VQ)
    """What replaces each vector by an entry of a finite set."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Compute type of the networks. Parameters, likelihoods and the quantizer stay float32."""

    name: ClassVar[str] = "vq"  # of the registry, for messages

    def build(self, spec: DataSpec) -> Model:
        """Returns the model: loss = -log p(x | q(f(x))) + the quantizer's cost, summed over the grid.

        Args:
          spec: the data.

        Returns:
          a Model with one parameter group, `vae`. Its latents are indices [h, w, L]; it has no prior of its own, for
          which a second stage is trained.

        Raises:
          InputError: components that do not go together, or not with these data.
        """
        shape, dtype = spec.x.shape, jnp.dtype(self.precision)
        self.check()
        self.network.check(spec.x)
        observed.check(spec, self.likelihood)
        # One vector for each place of the network's grid, and back to what p(x|z) is made of.
        level = quantized.level(self.quantizer, self.features, self.network.grid(shape))
        encoder = self.network.encoder(self.features, dtype)
        # Its channels are numbers of the likelihood: of a mixture many times those of x.
        decoder = self.network.decoder((*shape[:-1], self.likelihood.outputs(shape[-1])), dtype)
        return quantized.model(Parts(self.likelihood, level.space, (level,), encoder, decoder), spec)


@dataclass(frozen=True)
class Parts(quantized.Parts):
    """The components bound to the data.

    Attributes:
      encoder: module x -> vectors [B, h, w, D].
      decoder: module vectors [B, h, w, D] -> the numbers that p(x|z) is made of.
    """

    encoder: nn.Module
    decoder: nn.Module

    def init(self, key: jax.Array, x: jax.Array) -> dict[str, Any]:
        # Zeros of the shape of one example's entries, [1, h, w, D], in place of an encoded image.
        (level,) = self.levels
        z = jnp.zeros((1, *level.space.shape[:-1], level.features))
        return {
            "encoder": self.encoder.init(prng.site_key(key, "encoder"), x)["params"],
            "decoder": self.decoder.init(prng.site_key(key, "decoder"), z)["params"],
        }

    def infer(
        self, params: Params, state: State, x: jax.Array, key: jax.Array | None = None, ctx: Context | None = None
    ) -> tuple[Quantized, ...]:
        # Vectors [B, h, w, D], in the compute type of the networks.
        z = self.encoder.apply({"params": params["vae"]["encoder"]}, x)
        return (self.levels[0].quantize(params, state, jnp.asarray(z), key, ctx),)

    def outputs(self, params: Params, vectors: Sequence[jax.Array]) -> jax.Array:
        return jnp.asarray(self.decoder.apply({"params": params["vae"]["decoder"]}, vectors[0]))
