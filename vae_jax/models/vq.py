"""VQ-VAE: the code of an example is a grid of indices, and any quantizer makes it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax import likelihoods, networks, prng, quantizers
from vae_jax.model import About, Aux, Batch, Context, Encoding, Metrics, Model, Params, State
from vae_jax.models import observed
from vae_jax.models.per_example import batch_mean
from vae_jax.options import needs
from vae_jax.options.needs import Need
from vae_jax.options.ranges import AtLeast
from vae_jax.quantizers import Quantized
from vae_jax.spaces import Codes
from vae_jax.spec import DataSpec


@dataclass(frozen=True)
class VQVAE:
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

    def check(self) -> None:
        """Raises InputError for components that do not go together."""
        known = {"network": networks.NETWORKS, "model": {"vq": type(self)}}
        needs.check({"network": self.network, "model": self}, known)
        self.quantizer.check(self.features)

    def needs(self) -> tuple[Need, ...]:
        """Returns what its components must give."""
        return (Need("network", ("grid code",)),)

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
        name = next((n for n, cls in likelihoods.LIKELIHOODS.items() if cls is type(self.likelihood)), "")
        observed.check(spec, self.likelihood, name or type(self.likelihood).__name__, False)
        encoder = self.network.encoder(self.features, dtype)
        decoder = self.network.decoder((*shape[:-1], self.likelihood.outputs(shape[-1])), dtype)
        sizes = self.quantizer.sizes
        space = Codes((*self.network.grid(shape), len(sizes)), max(sizes), sizes)
        parts = Parts(self, space, encoder, decoder)
        return Model(
            init=partial(init, parts),
            loss=partial(loss, parts),
            terms=partial(terms, parts),
            encode=partial(encode, parts),
            decode=partial(decode, parts),
            about=About(
                spec, space, self.likelihood, takes_mask=observed.takes(spec, self.likelihood), takes_weight=True
            ),
        )


@dataclass(frozen=True)
class Parts:
    """The components bound to the data.

    Attributes:
      config: the options.
      space: of the indices, [h, w, L].
      encoder: module x -> vectors [B, h, w, D].
      decoder: module vectors [B, h, w, D] -> the numbers that p(x|z) is made of.
    """

    config: VQVAE
    space: Codes
    encoder: nn.Module
    decoder: nn.Module

    @property
    def rate(self) -> float:
        """Nats that name one example's indices where all are equally likely: sum over the grid of ln K."""
        h, w, _ = self.space.shape
        return h * w * sum(math.log(size) for size in self.config.quantizer.sizes)


def init(parts: Parts, key: jax.Array, batch: Batch) -> tuple[Params, State]:
    """Returns the parameters, in the one group `vae`, and the states of quantizer and likelihood."""
    c, first = parts.config, batch["x"][:1]
    z = jnp.zeros((1, *parts.space.shape[:-1], c.features))
    group = {
        "encoder": parts.encoder.init(prng.site_key(key, "encoder"), c.likelihood.seen(first))["params"],
        "decoder": parts.decoder.init(prng.site_key(key, "decoder"), z)["params"],
        "quantizer": c.quantizer.init(prng.site_key(key, "quantizer"), c.features),
        "likelihood": c.likelihood.params_for(first.shape[1:]),
    }
    state = {
        "quantizer": c.quantizer.init_state(prng.site_key(key, "quantizer state"), c.features),
        "likelihood": c.likelihood.init_state(),
    }
    # Empty entries are left out, so that checkpoints hold no empty trees.
    return {"vae": {k: v for k, v in group.items() if v}}, {k: v for k, v in state.items() if v}


def quantized(
    parts: Parts,
    params: Params,
    state: State,
    x: jax.Array,
    key: jax.Array | None = None,
    ctx: Context | None = None,
) -> Quantized:
    """Returns what the quantizer makes of f(x).

    Args:
      parts: of the model.
      params: of the model.
      state: of the model.
      x: data [B, *x.shape], 0 where they are missing.
      key: of the noise of training.
      ctx: of the step; None outside of training.

    Returns:
      with leading axes [B, h, w].
    """
    mine = params["vae"]
    z = parts.encoder.apply({"params": mine["encoder"]}, parts.config.likelihood.seen(x))
    # Distances in float32 whatever the networks compute in.
    z = jnp.asarray(z, jnp.float32)
    return parts.config.quantizer.quantize(mine.get("quantizer", {}), state.get("quantizer", {}), z, key=key, ctx=ctx)


def outputs(parts: Parts, params: Params, z: jax.Array) -> jax.Array:
    """Returns what the decoder gives, float32 [N, *x.shape[:-1], outputs]."""
    return jnp.asarray(parts.decoder.apply({"params": params["vae"]["decoder"]}, z), jnp.float32)


def per_image(x: jax.Array) -> jax.Array:
    """Returns the sums over the grid, [B, h, w] -> [B]."""
    return jnp.sum(x, (1, 2))


def loss(
    parts: Parts, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context
) -> tuple[jax.Array, Aux]:
    """Returns the mean of -log p(x|z_q) + cost, the new states, and what is logged."""
    (x, mask), c = observed.data(batch), parts.config
    # 1. f(x) and what stands for it; averages of the codebook move in training.
    site = prng.site_key(key, "quantizer")
    out = quantized(parts, params, state, x, site, ctx)
    # 2. p(x|z_q), fitted to the batch where the likelihood does that.
    mine, running = params["vae"].get("likelihood", {}), state.get("likelihood", {})
    decoded = outputs(parts, params, out.z)
    if ctx.train:
        p_x, new = observed.fit(c.likelihood, decoded, x, mine, running, ctx.axis_name, mask, batch.get("weight"))
    else:
        p_x, new = c.likelihood.build(decoded, mine, running), running
    # 3. Nats per example, summed over pixels and over the grid; only here is the batch mean taken.
    distortion = -observed.log_prob(p_x, x, mask)
    value = batch_mean(distortion + per_image(out.cost), len(x), "model.quantizer", batch.get("weight"))
    metrics = {
        "loss": value,
        "elbo": -jnp.mean(distortion) - parts.rate,
        "distortion": jnp.mean(distortion),
        "rate": jnp.asarray(parts.rate, jnp.float32),
        "mse": jnp.mean(observed.mean_error(c.likelihood.matched(p_x.mean(), x), x, mask)),
        "quantization_error": jnp.mean(out.error, (0, 1, 2)),
        # Shares of the entries of each codebook, from which the log has usage and perplexity.
        "code_share": shares(out.indices, parts.space.codes),
        **{f"quantizer/{name}": jnp.mean(per_image(term)) for name, term in out.terms.items()},
    }
    states = {"quantizer": out.state, "likelihood": new}
    new_state = {name: value for name, value in states.items() if value}
    return value, Aux(new_state, metrics, {"z": out.z.reshape(len(x), -1), "likelihood": p_x})


def shares(indices: jax.Array, codes: int) -> jax.Array:
    """Returns how often each entry of each codebook was chosen, float32 [L, K], rows of sum 1.

    Args:
      indices: int32 [..., L].
      codes: number of entries K.
    """
    flat = indices.reshape(-1, indices.shape[-1])
    counts = jax.vmap(lambda index: jnp.zeros(codes).at[index].add(1.0), 1)(flat)
    return counts / len(flat)


def terms(parts: Parts, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context) -> Metrics:
    """Returns the terms of each example, as `Model.terms` says; the rate is that of uniform indices."""
    del key
    x, mask = observed.data(batch)
    out = quantized(parts, params, state, x, ctx=ctx._replace(train=False))
    mine, running = params["vae"].get("likelihood", {}), state.get("likelihood", {})
    p_x = parts.config.likelihood.build(outputs(parts, params, out.z), mine, running)
    distortion, rate = -observed.log_prob(p_x, x, mask), jnp.full(len(x), parts.rate, jnp.float32)
    mean = parts.config.likelihood.matched(p_x.mean(), x)
    error = observed.mean_error(mean, x, mask)
    # Of one codebook [B], of several a tuple of these: levels have names of their own.
    by_level = tuple(jnp.mean(out.error[..., i], (1, 2)) for i in range(out.error.shape[-1]))
    found = {"elbo": -(distortion + rate), "distortion": distortion, "rate": rate, "mse": error}
    return found | {"quantization_error": by_level[0] if len(by_level) == 1 else by_level}


def encode(parts: Parts, params: Params, state: State, keys: jax.Array | None, batch: Batch) -> Encoding:
    """Returns indices, int32 [B, h, w, L]; they are not drawn."""
    del keys
    return Encoding(quantized(parts, params, state, observed.data(batch)[0]).indices)


def decode(parts: Parts, params: Params, state: State, z: jax.Array, *, cond: jax.Array | None = None) -> Any:
    """Returns p(x|z) of indices [N, h, w, L]."""
    del cond
    c, mine = parts.config, params["vae"]
    vectors = c.quantizer.embed(mine.get("quantizer", {}), state.get("quantizer", {}), z)
    return c.likelihood.build(outputs(parts, params, vectors), mine.get("likelihood", {}), state.get("likelihood", {}))
