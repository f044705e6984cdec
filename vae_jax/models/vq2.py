"""VQ-VAE-2: two grids of codes, of which the coarse one is quantized first and the fine one given it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax import likelihoods, networks, prng, quantizers
from vae_jax.model import Context, Model, Params, State
from vae_jax.models import observed, quantized
from vae_jax.networks.convolution import Conv
from vae_jax.options.ranges import AtLeast
from vae_jax.quantizers import Quantized
from vae_jax.spec import DataSpec


class Levels(NamedTuple):
    """One value for each level, coarse to fine: the order in which a second stage generates codes."""

    top: Any
    bottom: Any


@dataclass(frozen=True)
class VQVAE2(quantized.Coded):
    """Two-level VQ-VAE-2 (arXiv:1906.00446): top codes for what is global, bottom codes for detail."""

    features: Annotated[int, AtLeast(1)] = 64
    """Length D of the vectors that are quantized, at both levels."""
    network: networks.Network = field(default_factory=networks.ResidualConv)
    """Encoder to the bottom grid, and the decoder; its code must be a grid of vectors."""
    top_stages: Annotated[int, AtLeast(1)] = 1
    """How many times the bottom grid is halved for the top one."""
    top_hidden: Annotated[int, AtLeast(2)] = 128
    """Channels between the two grids."""
    top_blocks: Annotated[int, AtLeast(0)] = 2
    """Residual blocks on either side between the two grids, a quarter of the channels wide."""
    likelihood: likelihoods.PixelLikelihood = field(default_factory=likelihoods.Gaussian)
    """Distribution of pixels given the codes."""
    quantizer: quantizers.Quantizer = field(default_factory=quantizers.VQ)
    """What replaces each vector by an entry of a finite set; each level has parameters and a state of its own."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Compute type of the networks. Parameters, likelihoods and quantizers stay float32."""

    name: ClassVar[str] = "vq2"  # of the registry, for messages

    def build(self, spec: DataSpec) -> Model:
        """Returns the model: loss = -log p(x | q_top, q_bottom) + the quantizers' costs, summed over both grids.

        Args:
          spec: the data.

        Returns:
          a Model with one parameter group, `vae`. Its latents are `Levels` of indices [h, w, L]; it has no prior of its
          own, for which a second stage is trained.

        Raises:
          InputError: components that do not go together, or not with these data.
        """
        shape, dtype, features = spec.x.shape, jnp.dtype(self.precision), self.features
        self.check()
        self.network.check(spec.x)
        observed.check(spec, self.likelihood)
        # Bottom and top grid, [h, w] and [t, u]. Between them the net of images once more, on features.
        fine = self.network.grid(shape)
        networks.check_halvings(self.top_stages, fine, "model.top_stages", "a bottom grid")
        between = networks.ResidualConv(self.top_hidden, self.top_stages, self.top_blocks, max(self.top_hidden // 4, 1))
        # One config, two codebooks: each level has parameters and a state of its own name.
        levels = Levels(
            quantized.level(self.quantizer, features, between.grid(fine), "top"),
            quantized.level(self.quantizer, features, fine, "bottom"),
        )
        return quantized.model(
            Parts(
                self.likelihood,
                Levels(*(level.space for level in levels)),
                levels,
                bottom_encoder=self.network.encoder(self.top_hidden, dtype),
                top_encoder=between.encoder(features, dtype),
                top_decoder=between.decoder((*fine, features), dtype),
                join=Conv(features, kernel=1, stride=1, dtype=dtype),
                decoder=self.network.decoder((*shape[:-1], self.likelihood.outputs(shape[-1])), dtype),
            ),
            spec,
        )


@dataclass(frozen=True)
class Parts(quantized.Parts):
    """The components bound to the data: bottom grid [h, w], top grid [t, u].

    Attributes:
      bottom_encoder: module x -> features [B, h, w, C].
      top_encoder: module features [B, h, w, C] -> vectors [B, t, u, D].
      top_decoder: module entries [B, t, u, D] -> what they say of the bottom grid, [B, h, w, D].
      join: module of both side by side, [B, h, w, C + D] -> vectors [B, h, w, D].
      decoder: module of both levels at the bottom grid, [B, h, w, 2 D] -> the numbers that p(x|z) is made of.
    """

    bottom_encoder: nn.Module
    top_encoder: nn.Module
    top_decoder: nn.Module
    join: nn.Module
    decoder: nn.Module

    def _apply(self, params: Params, part: str, x: jax.Array) -> jax.Array:
        # A part's attribute and its entry in the parameters have one name.
        return jnp.asarray(getattr(self, part).apply({"params": params["vae"][part]}, x))

    def init(self, key: jax.Array, x: jax.Array) -> dict[str, Any]:
        top, _ = self.levels
        made: dict[str, Any] = {}

        def first(part: str, given: jax.Array) -> jax.Array:
            # Outputs are kept for their shapes, which later parts are given.
            out, made_of = getattr(self, part).init_with_output(prng.site_key(key, part), given)
            made[part] = made_of["params"]
            return out

        # In the order of `infer`, on zeros of the shapes of the entries.
        features = first("bottom_encoder", x)
        first("top_encoder", features)
        seen = first("top_decoder", jnp.zeros((1, *top.space.shape[:-1], top.features)))
        entries = first("join", jnp.concatenate([features, seen], -1))
        first("decoder", jnp.concatenate([seen, entries], -1))
        return made

    def infer(
        self, params: Params, state: State, x: jax.Array, key: jax.Array | None = None, ctx: Context | None = None
    ) -> tuple[Quantized, ...]:
        top, bottom = self.levels
        # 1. What is global, from the features of the bottom grid.
        features = self._apply(params, "bottom_encoder", x)
        coarse = top.quantize(params, state, self._apply(params, "top_encoder", features), key, ctx)
        # The gradient of what the bottom makes of them reaches the top vectors through `coarse.z`.
        # 2. The bottom codes see the entries of the top, and so need not say it again.
        seen = self._apply(params, "top_decoder", coarse.z)
        # In one type: float32 entries would promote the features, and double their memory.
        both = jnp.concatenate([features, seen.astype(features.dtype)], -1)
        return coarse, bottom.quantize(params, state, self._apply(params, "join", both), key, ctx)

    def outputs(self, params: Params, vectors: Sequence[jax.Array]) -> jax.Array:
        coarse, fine = vectors
        # The features that the bottom codes have seen: one module brings the top grid to the bottom's size for both.
        seen = jnp.asarray(self._apply(params, "top_decoder", coarse), jnp.float32)
        # [B, h, w, 2 D]: fine entries alone would lack what the top codes hold.
        return self._apply(params, "decoder", jnp.concatenate([seen, fine], -1))
