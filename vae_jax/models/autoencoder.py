"""Deterministic autoencoders: the baselines that a VAE has to be compared with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vae_jax import likelihoods, networks, prng
from vae_jax.model import NO_FACTS, Aux, Batch, Context, Encoding, Facts, Metrics, Model, Params, State


@dataclass(frozen=True)
class Autoencoder:
    """Autoencoder; with `corruption`, the denoising autoencoder (Vincent et al. 2008)."""

    latent_dim: int = 20
    """Number of code dimensions."""
    network: networks.Network = field(default_factory=networks.MLP)
    """Encoder and decoder; `linear` gives the linear autoencoder, whose optimum is PCA."""
    likelihood: likelihoods.PixelLikelihood = field(default_factory=likelihoods.Bernoulli)
    """The reconstruction loss is -log p(x|z) of this: Gaussian is squared error, Bernoulli is cross entropy."""
    corruption: Literal["none", "gaussian", "mask"] = "none"
    """Noise put on the encoder's input in training; the target stays clean."""
    corruption_level: float = 0.25
    """Standard deviation of the Gaussian noise, or the share of pixels masked to 0."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Compute type of the networks. Parameters and the loss stay float32."""

    def check(self) -> None:
        """Every combination works."""

    def build(self, image_shape: tuple[int, int, int], facts: Facts = NO_FACTS) -> Model:
        """Returns the model for images [H, W, C]; `facts` are not needed.

        Raises:
          InputError: the network cannot take this image size.
        """
        del facts
        return autoencoder(self, image_shape)


def autoencoder(config: Autoencoder, image_shape: tuple[int, int, int]) -> Model:
    """Returns the pure functions of a deterministic autoencoder: loss = -log p(x | z = f(x~)), x~ the corrupted x.

    Args:
      config: the components.
      image_shape: (H, W, C) of the data.

    Returns:
      a Model with one parameter group, `vae`; no `sample` and no `log_prob_bound`, as there is no prior.

    Raises:
      InputError: the network cannot take this image size.
    """
    config.network.check(image_shape)
    dtype = jnp.dtype(config.precision)
    likelihood = config.likelihood
    encoder = config.network.encoder(config.latent_dim, dtype)
    decoder = config.network.decoder((*image_shape[:2], likelihood.outputs(image_shape[-1])), dtype)

    def init(key: jax.Array, batch: Batch) -> tuple[Params, State]:
        z = jnp.zeros((1, config.latent_dim))
        group = {
            "encoder": encoder.init(prng.site_key(key, "encoder"), batch["image"][:1])["params"],
            "decoder": decoder.init(prng.site_key(key, "decoder"), z)["params"],
            "likelihood": likelihood.init_params(),
        }
        return {"vae": {k: v for k, v in group.items() if v}}, {"likelihood": likelihood.init_state()}

    def code(params: Params, x: jax.Array) -> jax.Array:
        return jnp.asarray(encoder.apply({"params": params["vae"]["encoder"]}, x), jnp.float32)

    def outputs(params: Params, z: jax.Array) -> jax.Array:
        return jnp.asarray(decoder.apply({"params": params["vae"]["decoder"]}, z), jnp.float32)

    def decode(params: Params, state: State, z: jax.Array, *, cond: jax.Array | None = None) -> Any:
        del cond
        return likelihood.build(outputs(params, z), params["vae"].get("likelihood", {}), state["likelihood"])

    def corrupt(key: jax.Array, x: jax.Array, ctx: Context) -> jax.Array:
        keys = prng.example_keys(prng.site_key(key, "corruption"), ctx.index)
        if config.corruption == "gaussian":
            return x + config.corruption_level * prng.normal(keys, x.shape[1:])
        if config.corruption == "mask":
            return jnp.where(prng.uniform(keys, x.shape[1:]) < config.corruption_level, 0.0, x)
        return x

    def loss(params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        x = batch["image"]
        if ctx.train:
            out, extra = outputs(params, code(params, corrupt(key, x, ctx))), params["vae"].get("likelihood", {})
            p_x, like_state = likelihood.fit(out, x, extra, state["likelihood"], ctx.axis_name)
        else:
            p_x, like_state = decode(params, state, code(params, x)), state["likelihood"]
        value = jnp.mean(-p_x.log_prob(x))
        metrics = {"loss": value, "distortion": value, "mse": jnp.mean(jnp.square(p_x.mean() - x))}
        return value, Aux({"likelihood": like_state}, metrics)

    def terms(params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context) -> Metrics:
        del key, ctx
        p_x = decode(params, state, code(params, batch["image"]))
        error = jnp.mean(jnp.square(p_x.mean() - batch["image"]), axis=(1, 2, 3))
        return {"distortion": -p_x.log_prob(batch["image"]), "mse": error}

    def encode(params: Params, state: State, keys: jax.Array | None, batch: Batch) -> Encoding:
        del state, keys
        return Encoding(code(params, batch["image"]))

    return Model(init, loss, terms, encode, decode)
