"""Deterministic autoencoders: the baselines that a VAE has to be compared with."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax import likelihoods, networks, prng
from vae_jax.model import About, Aux, Batch, Context, Encoding, Metrics, Model, Params, State
from vae_jax.models import columns, observed
from vae_jax.models.per_example import weighted_mean
from vae_jax.options import needs
from vae_jax.options.needs import Need
from vae_jax.options.ranges import AtLeast, NotNegative
from vae_jax.spaces import Real
from vae_jax.spec import DataSpec


@dataclass(frozen=True)
class Autoencoder:
    """Autoencoder; with `corruption`, the denoising autoencoder (Vincent et al. 2008)."""

    latent_dim: Annotated[int, AtLeast(1)] = 20
    """Number of code dimensions."""
    network: networks.Network = field(default_factory=networks.MLP)
    """Encoder and decoder; `linear` gives the linear autoencoder, whose optimum is PCA."""
    likelihood: likelihoods.PixelLikelihood = field(default_factory=likelihoods.Bernoulli)
    """The reconstruction loss is -log p(x|z) of this: Gaussian is squared error, Bernoulli is cross entropy."""
    corruption: Literal["none", "gaussian", "mask"] = "none"
    """Noise put on the encoder's input in training; the target stays clean."""
    corruption_level: Annotated[float, NotNegative()] = 0.25
    """Standard deviation of the Gaussian noise, or the share of pixels masked to 0."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Compute type of the networks. Parameters and the loss stay float32."""
    mask_input: bool = False
    """Of data with missing values: the encoder also sees which entries are observed; those that are not are 0."""

    def check(self) -> None:
        """Raises InputError for a network that this model cannot take."""
        known = {"network": networks.NETWORKS, "model": {"ae": type(self)}}
        needs.check({"network": self.network, "model": self}, known)

    def needs(self) -> tuple[Need, ...]:
        """Returns what its components must give."""
        # It reads x once, and decodes a code without keys: an autoregressive or a noisy decoder would have neither.
        return tuple(Need("network", (what,)) for what in ("one pass", "no noise", "vector code"))

    def build(self, spec: DataSpec) -> Model:
        """Returns the model: loss = -log p(x | z = f(x~)), x~ the corrupted x.

        Args:
          spec: the data.

        Returns:
          a Model with one parameter group, `vae`, and no further capability: there is no prior.

        Raises:
          InputError: the network cannot take these data.
        """
        shape, dtype = spec.x.shape, jnp.dtype(self.precision)
        self.check()
        observed.check(spec, self.likelihood, self.mask_input)
        self.network.check(spec.x)
        # The encoder gives the code itself, not the parameters of a density; the decoder gives what p(x|z) is made of.
        encoder = self.network.encoder(self.latent_dim, dtype)
        bound = columns.bound(self, spec)
        decoder = self.network.decoder((*shape[:-1], bound.likelihood.outputs(shape[-1])), dtype)
        parts = Parts(bound, encoder, decoder)
        return Model(
            init=partial(init, parts),
            loss=partial(loss, parts),
            terms=partial(terms, parts),
            encode=partial(encode, parts),
            decode=partial(decode, parts),
            about=About(
                spec,
                Real((self.latent_dim,)),
                self.likelihood,
                takes_mask=observed.takes(spec, self.likelihood),
                takes_weight=True,
            ),
        )


@dataclass(frozen=True)
class Parts:
    """The components bound to the data: modules x -> z [B, D] and z -> the numbers that p(x|z) is made of."""

    config: Autoencoder
    encoder: nn.Module
    decoder: nn.Module


def init(parts: Parts, key: jax.Array, batch: Batch) -> tuple[Params, State]:
    """Returns the parameters, in the one group `vae`, and the likelihood's running state."""
    # One example is enough to shape the parameters. Sites by name: a new part leaves the others as they were.
    x, z = encoder_input(parts, batch["x"][:1], None), jnp.zeros((1, parts.config.latent_dim))
    group = {
        "encoder": parts.encoder.init(prng.site_key(key, "encoder"), x)["params"],
        "decoder": parts.decoder.init(prng.site_key(key, "decoder"), z)["params"],
        "likelihood": parts.config.likelihood.params_for(batch["x"].shape[1:]),
    }
    # Empty entries are left out, so that checkpoints hold no empty trees.
    return {"vae": {k: v for k, v in group.items() if v}}, {"likelihood": parts.config.likelihood.init_state()}


def encoder_input(parts: Parts, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Returns what the encoder sees: x with 0 where it is missing, and beside it the mask if it may."""
    seen = parts.config.likelihood.seen(x)
    return observed.with_mask(seen, mask) if parts.config.mask_input else seen


def code(parts: Parts, params: Params, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Returns z = f(x), float32 [B, D].

    Args:
      parts: of the model.
      params: of the model.
      x: data [B, *x.shape], 0 where they are missing.
      mask: of what is observed, of the shape of x; None for all of it.

    Returns:
      the code itself, not the parameters of a density.
    """
    seen = encoder_input(parts, x, mask)
    # The networks may compute in bfloat16; what follows sums over all pixels and needs float32.
    return jnp.asarray(parts.encoder.apply({"params": params["vae"]["encoder"]}, seen), jnp.float32)


def outputs(parts: Parts, params: Params, z: jax.Array) -> jax.Array:
    """Returns what the decoder gives, float32 [N, *x.shape[:-1], outputs]."""
    return jnp.asarray(parts.decoder.apply({"params": params["vae"]["decoder"]}, z), jnp.float32)


def decode(parts: Parts, params: Params, state: State, z: jax.Array, *, cond: jax.Array | None = None) -> Any:
    """Returns p(x|z) of codes [N, D]."""
    del cond
    mine = params["vae"].get("likelihood", {})
    return parts.config.likelihood.build(outputs(parts, params, z), mine, state["likelihood"])


def corrupt(parts: Parts, key: jax.Array, x: jax.Array, mask: jax.Array | None, ctx: Context) -> jax.Array:
    """Returns x~, keyed per example.

    Args:
      parts: of the model.
      key: of the step; the noise has a site of its own.
      x: data [B, *x.shape].
      mask: of what is observed; noise on what is missing would look like data.
      ctx: of the step.

    Returns:
      of the shape of x; x itself without corruption.
    """
    # Noise is keyed by the example's index in the global batch, so that it does not depend on the devices.
    c, keys = parts.config, prng.example_keys(prng.site_key(key, "corruption"), ctx.index)
    if c.corruption == "gaussian":
        noisy = x + c.corruption_level * prng.normal(keys, x.shape[1:])
        return noisy if mask is None else jnp.where(mask, noisy, 0.0)
    # No rescaling by 1 / (1 - level), unlike dropout: a masked pixel is a black one.
    if c.corruption == "mask":
        return jnp.where(prng.uniform(keys, x.shape[1:]) < c.corruption_level, 0.0, x)
    return x


def loss(
    parts: Parts, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context
) -> tuple[jax.Array, Aux]:
    """Returns the mean of -log p(x | f(x~)), the likelihood's new state, and what is logged."""
    (x, mask), likelihood = observed.data(batch), parts.config.likelihood
    # 1. Code and p(x|z). In training the encoder sees x~ and the likelihood's running state moves.
    z = code(parts, params, corrupt(parts, key, x, mask, ctx) if ctx.train else x, mask)
    if ctx.train:
        out, mine = outputs(parts, params, z), params["vae"].get("likelihood", {})
        # Not `build`: a likelihood may fit numbers of its own to the batch, as sigma-VAE does.
        old = state["likelihood"]
        p_x, like_state = observed.fit(likelihood, out, x, mine, old, ctx.axis_name, mask, batch.get("weight"))
    else:
        p_x, like_state = decode(parts, params, state, z), state["likelihood"]
    # 2. The target is the clean x. Nats per example, summed over pixels; only here is the batch mean taken.
    cost, weight = -observed.log_prob(p_x, x, mask), batch.get("weight")
    value = weighted_mean(cost, weight)
    # Of all that is observed in the batch; see `observed.mean_error` for the factor.
    error = jnp.square(likelihood.matched(p_x.mean(), x) - x)
    if mask is None:
        error = jnp.mean(error)
    else:
        share = mask.size / jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)
        error = jnp.mean(jnp.where(mask, error, 0.0)) * share
    metrics = {"loss": value, "distortion": value if weight is None else jnp.mean(cost), "mse": error}
    return value, Aux({"likelihood": like_state}, metrics, {"z": z, "likelihood": p_x})


def terms(parts: Parts, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context) -> Metrics:
    """Returns distortion and squared error of each example."""
    del key, ctx
    # The clean input in any context; both results are per example, [B].
    x, mask = observed.data(batch)
    p_x = decode(parts, params, state, code(parts, params, x, mask))
    mean = parts.config.likelihood.matched(p_x.mean(), x)
    return {"distortion": -observed.log_prob(p_x, x, mask), "mse": observed.mean_error(mean, x, mask)}


def encode(parts: Parts, params: Params, state: State, keys: jax.Array | None, batch: Batch) -> Encoding:
    """Returns the codes; there is no posterior to draw from."""
    del state, keys
    return Encoding(code(parts, params, *observed.data(batch)))
