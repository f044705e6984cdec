"""The single-latent VAE: one Gaussian code an image, with any network, likelihood, prior and objective."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vae_jax import distributions as dist
from vae_jax import networks, objectives, priors, prng
from vae_jax.model import Aux, Batch, Context, Encoding, Metrics, Model, Params, State


@dataclass(frozen=True)
class VAE:
    """Variational autoencoder with a diagonal Gaussian posterior (arXiv:1312.6114)."""

    latent_dim: int = 10
    """Number of latent dimensions."""
    network: networks.Network = field(default_factory=networks.MLP)
    """Encoder and decoder."""
    likelihood: dist.PixelLikelihood = field(default_factory=dist.Bernoulli)
    """Distribution of pixels given the code."""
    prior: priors.Normal = field(default_factory=priors.Normal)
    """Distribution of codes."""
    objective: objectives.Elbo = field(default_factory=objectives.Elbo)
    """What is minimised."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Compute type of the networks. Parameters, likelihoods and KL stay float32."""

    def build(self, image_shape: tuple[int, int, int]) -> Model:
        """Returns the model for images [H, W, C].

        Raises:
          InputError: the network cannot take this image size.
        """
        return vae(self, image_shape)


def vae(config: VAE, image_shape: tuple[int, int, int]) -> Model:
    """Returns the pure functions of a VAE: loss = E_q[-log p(x|z)] + beta KL(q(z|x) || p(z)).

    Args:
      config: the components.
      image_shape: (H, W, C) of the data.

    Returns:
      a Model with one parameter group, `vae`.

    Raises:
      InputError: the network cannot take this image size.
    """
    config.network.check(image_shape)
    dtype = jnp.dtype(config.precision)
    channels = config.likelihood.outputs(image_shape[-1])
    encoder = config.network.encoder(2 * config.latent_dim, dtype)
    decoder = config.network.decoder((*image_shape[:2], channels), dtype)
    prior, likelihood, objective = config.prior, config.likelihood, config.objective

    def init(key: jax.Array, batch: Batch) -> tuple[Params, State]:
        z = jnp.zeros((1, config.latent_dim))
        group = {
            "encoder": encoder.init(prng.site_key(key, "encoder"), batch["image"][:1])["params"],
            "decoder": decoder.init(prng.site_key(key, "decoder"), z)["params"],
            "prior": prior.init(prng.site_key(key, "prior"), config.latent_dim),
            "likelihood": likelihood.init_params(),
        }
        return {"vae": {k: v for k, v in group.items() if v}}, {"likelihood": likelihood.init_state()}

    def posterior(params: Params, x: jax.Array) -> dist.DiagGaussian:
        out = encoder.apply({"params": params["vae"]["encoder"]}, x)
        return dist.DiagGaussian(*jnp.split(jnp.asarray(out, jnp.float32), 2, axis=-1))

    def outputs(params: Params, z: jax.Array) -> jax.Array:
        return jnp.asarray(decoder.apply({"params": params["vae"]["decoder"]}, z), jnp.float32)

    def decode(params: Params, state: State, z: jax.Array, *, cond: jax.Array | None = None) -> Any:
        del cond
        return likelihood.build(outputs(params, z), params["vae"].get("likelihood", {}), state["likelihood"])

    def forward(params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context):
        x = batch["image"]
        q = posterior(params, x)
        z = q.sample(prng.example_keys(prng.site_key(key, "posterior"), ctx.index))
        if ctx.train:
            out, extra = outputs(params, z), params["vae"].get("likelihood", {})
            p_x, like_state = likelihood.fit(out, x, extra, state["likelihood"], ctx.axis_name)
        else:
            p_x, like_state = decode(params, state, z), state["likelihood"]
        kl_per_dim = prior.kl(params["vae"].get("prior", {}), q)
        terms = objectives.Terms(x, z, q, p_x, -p_x.log_prob(x), jnp.sum(kl_per_dim, -1), kl_per_dim)
        return terms, {"likelihood": like_state}

    def loss(params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        terms, new_state = forward(params, state, key, batch, ctx)
        per_example, extra = objective.loss(terms, ctx)
        value = jnp.mean(per_example)
        metrics = {
            "loss": value,
            "elbo": -jnp.mean(terms.distortion + terms.rate),
            "distortion": jnp.mean(terms.distortion),
            "rate": jnp.mean(terms.rate),
            "kl_per_dim": jnp.mean(terms.kl_per_dim, 0),
            # Moments of E[z|x], from which the log counts active units.
            "code_mean": jnp.mean(terms.posterior.mode(), 0),
            "code_square": jnp.mean(jnp.square(terms.posterior.mode()), 0),
            **extra,
        }
        return value, Aux(new_state, metrics)

    def terms(params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context) -> Metrics:
        t, _ = forward(params, state, key, batch, ctx._replace(train=False))
        # The reconstruction error is that of the mean code: what `reconstruct` shows.
        mean = decode(params, state, t.posterior.mode()).mean()
        return {
            "elbo": -(t.distortion + t.rate),
            "distortion": t.distortion,
            "rate": t.rate,
            "kl_per_dim": t.kl_per_dim,
            "mse": jnp.mean(jnp.square(mean - t.x), axis=(1, 2, 3)),
        }

    def encode(params: Params, state: State, keys: jax.Array | None, batch: Batch) -> Encoding:
        del state
        q = posterior(params, batch["image"])
        return Encoding(q.mode() if keys is None else q.sample(keys), q)

    def sample(params: Params, state: State, key, n: int, *, cond=None, temperature: float = 1.0) -> Any:
        z = prior.sample(params["vae"].get("prior", {}), key, n, config.latent_dim, temperature)
        return decode(params, state, z, cond=cond)

    def log_weight(params: Params, state: State, keys: jax.Array, q: dist.DiagGaussian, x: jax.Array) -> jax.Array:
        z = q.sample(keys)
        log_prior = prior.log_prob(params["vae"].get("prior", {}), z)
        return decode(params, state, z).log_prob(x) + log_prior - q.log_prob(z)

    def log_prob_bound(params: Params, state: State, key, batch: Batch, ctx: Context, k: int) -> jax.Array:
        q = posterior(params, batch["image"])
        keys = prng.example_keys(prng.site_key(key, "importance"), ctx.index)
        draw = functools.partial(log_weight, params, state, q=q, x=batch["image"])

        def body(carry: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
            return jnp.logaddexp(carry, draw(jax.vmap(jax.random.fold_in, (0, None))(keys, i))), None

        start = jnp.full(batch["image"].shape[0], -jnp.inf)
        total, _ = jax.lax.scan(body, start, jnp.arange(k))
        return total - jnp.log(k)

    return Model(init, loss, terms, encode, decode, sample, log_prob_bound, objective.hyper())
