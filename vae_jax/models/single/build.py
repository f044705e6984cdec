"""The single-latent VAE: any posterior, prior, likelihood, network, objective and gradient estimator.

`VAE.build` wires functions of `parts` and `forward` into a `Model`; what they compute is in these modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.distributions.categorical import expected_code
from vae_jax.model import (
    About,
    Aux,
    Batch,
    Context,
    DensityFns,
    Encoding,
    Joint,
    Metrics,
    Model,
    Params,
    PriorFns,
    State,
    Training,
)
from vae_jax.models import observed
from vae_jax.models.importance import importance_bound, repeat, samples_at_once
from vae_jax.models.per_example import batch_mean
from vae_jax.models.single import parts as vae
from vae_jax.models.single.config import Components
from vae_jax.models.single.critic import critic
from vae_jax.models.single.forward import forward
from vae_jax.models.single.parts import Parts
from vae_jax.models.wrappers import with_adversary
from vae_jax.objectives import Adversarial
from vae_jax.spec import DataSpec


@dataclass(frozen=True)
class VAE(Components):
    """Variational autoencoder with one code per example (arXiv:1312.6114)."""

    def build(self, spec: DataSpec) -> Model:
        """Returns the model: loss = objective(E_q[-log p(x|z)], KL(q(z|x) || p(z)), ...).

        Args:
          spec: the data.

        Returns:
          a Model with the parameter group `vae`, and `critic` or `encoder` where the objective has them.

        Raises:
          InputError: components that do not go together, or not with these data.
        """
        c, parts = self, vae.bind(self, spec)
        point = c.posterior.deterministic
        # A Wasserstein autoencoder holds even point codes at the prior, so that it can be sampled from.
        prior = PriorFns(partial(sample, parts), c.prior.conditional) if c.objective.rateless or not point else None
        # A point has no density, hence no bound and no log q(z|x); log p(x, z) exists wherever there is a prior.
        density = DensityFns(
            None if point else partial(bound, parts),
            None if prior is None else partial(joint, parts),
            c.posterior.has_log_prob and not point,
        )
        model = Model(
            init=partial(vae.init, parts),
            loss=partial(loss, parts),
            terms=partial(terms, parts),
            encode=partial(encode, parts),
            decode=partial(decode, parts),
            # An objective that couples examples has terms of the whole batch, which no weight of one belongs to.
            about=About(
                spec, parts.space, c.likelihood, c.prior.unit(), vae.takes_mask(c, spec), not c.objective.couples
            ),
            training=Training(c.objective.hyper(), c.objective.gates()),
            prior=prior,
            density=density if c.likelihood.normalized and (density.bound or density.joint) else None,
            condition=c.condition.functions(spec),
        )
        # A critic on z adds its parameter group and both of its terms from outside.
        return with_adversary(model, critic(parts, c.objective)) if isinstance(c.objective, Adversarial) else model


def loss(
    parts: Parts, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context
) -> tuple[jax.Array, Aux]:
    """Returns the mean of what the objective makes of the terms, the new state, and what is logged."""
    c = parts.config
    # 1. Terms of the batch, with as many samples as objective or estimator need.
    t, new_state, z = forward(parts, params, state, key, batch, ctx, max(c.objective.samples, c.gradient.samples))
    # 2. What is minimized, [B] in nats.
    per_example, extra, objective_state = c.objective.step(t, ctx, state.get("objective", {}))
    if objective_state:
        new_state["objective"] = objective_state
    # 3. The only batch mean, and what is logged: unweighted terms in nats.
    what = f"model.objective: {type(c.objective).__name__}"
    value = batch_mean(per_example, len(t.x), what, batch.get("weight"))
    code = expected_code(t.posterior)
    metrics = {
        "loss": value,
        "elbo": -jnp.mean(t.distortion + t.rate),
        "distortion": jnp.mean(t.distortion),
        "rate": jnp.mean(t.rate),
        # Moments of the code, from which the log counts active units.
        "code_mean": jnp.mean(code, 0),
        "code_square": jnp.mean(jnp.square(code), 0),
        **extra,
    }
    if t.kl_per_dim is not None:
        metrics["kl_per_dim"] = jnp.mean(t.kl_per_dim, 0)
    if c.posterior.deterministic:  # a point has no rate, so that there is no ELBO either
        del metrics["elbo"], metrics["rate"]
    return value, Aux(new_state, metrics, {"z": z, "likelihood": t.likelihood})


def terms(parts: Parts, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context) -> Metrics:
    """Returns the terms of each example, as `Model.terms` says."""
    c = parts.config
    # One sample, no training noise, exact codes: running states stay as they are.
    t = forward(parts, params, state, key, batch, ctx._replace(train=False), 1).terms
    x, mask = observed.data(batch)
    # The reconstruction error is that of the mean code: what `reconstruct` shows. An autoregressive decoder would need
    # one pass per pixel for that; its error is the one-step one, with the true pixels before.
    decoded = vae.decode(parts, params, state, t.posterior.mode(), c.condition.features(batch, parts.spec))
    mean = c.likelihood.matched((decoded.given(t.x) if c.network.autoregressive else decoded).mean(), t.x)
    out = {"distortion": t.distortion, "mse": observed.mean_error(mean, x, mask)}
    if not c.posterior.deterministic:
        out |= {"elbo": -(t.distortion + t.rate), "rate": t.rate}
    return out if t.kl_per_dim is None else out | {"kl_per_dim": t.kl_per_dim}


def encode(parts: Parts, params: Params, state: State, keys: jax.Array | None, batch: Batch) -> Encoding:
    """Returns latents [B, *space.shape], the mode of q(z|x) or a draw, and q(z|x) over vectors."""
    del state
    features = parts.config.condition.features(batch, parts.spec)
    # Schedules apply in training only, so step 0 suffices.
    x, mask = observed.data(batch)
    q = vae.infer(parts, params, x, features, jnp.zeros((), jnp.int32), False, mask)
    z = q.mode() if keys is None else q.sample(keys)
    return Encoding(parts.space.shaped(z), None if parts.config.posterior.deterministic else q)


def decode(parts: Parts, params: Params, state: State, z: jax.Array, *, cond: jax.Array | None = None) -> Any:
    """Returns p(x|z) of latents [N, *space.shape]."""
    return vae.decode(parts, params, state, parts.space.vector(z), cond)


def sample(
    parts: Parts,
    params: Params,
    state: State,
    key: jax.Array,
    n: int,
    *,
    cond: jax.Array | None = None,
    temperature: float = 1.0,
) -> jax.Array:
    """Returns latents z ~ p(z), or p(z|cond), [n, *space.shape]."""
    # No x: outside training a prior reads the encoder, the condition and its own state, never a batch.
    around = vae.links(parts, params, jnp.zeros((), jnp.int32), cond)
    mine, running = vae.own(parts, params, "prior"), state.get("prior", {})
    return parts.space.shaped(parts.config.prior.sample(mine, running, key, n, around, temperature))


def bound(parts: Parts, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context, k: int) -> jax.Array:
    """Returns the importance-weighted bound on log p(x) in nats [B]; see `importance.importance_bound`."""
    c = parts.config
    (x, mask), features = observed.data(batch), c.condition.features(batch, parts.spec)
    q = vae.infer(parts, params, x, features, ctx.step, False, mask)
    links = vae.links(parts, params, ctx.step, features)
    # q and p do not depend on the sample: they are computed once, outside the loop.
    p = c.prior.distribution(vae.own(parts, params, "prior"), state.get("prior", {}), links)
    keys = prng.example_keys(prng.site_key(key, "importance"), ctx.index)
    # As many samples at a time as memory allows, and no more than the last step can use.
    b, steps = x.shape[0], -(-k // min(k, samples_at_once(x.shape)))
    width = -(-k // steps)
    tiled, cond = repeat(x, width), None if features is None else repeat(features, width)
    seen = None if mask is None else repeat(mask, width)

    def log_weights(number: jax.Array) -> jax.Array:
        # z [width, B, n] and log q [width, B]; a sample's noise depends on its number alone.
        z, log_q = jax.vmap(q.sample_and_log_prob)(prng.sample_keys(keys, number))
        p_x = vae.decode(parts, params, state, z.reshape(width * b, -1), cond)
        # log p(x|z) + log p(z) - log q(z|x) in nats, [width, B].
        return observed.log_prob(p_x, tiled, seen).reshape(width, b) + vae.log_prior(p, z) - log_q

    return importance_bound(log_weights, b, k, width)


def joint(parts: Parts, params: Params, state: State, batch: Batch) -> Joint:
    """Returns log p(z) and log p(x|z) of the examples of a batch, as functions of z [B, n]."""
    c = parts.config
    (x, mask), features = observed.data(batch), c.condition.features(batch, parts.spec)
    mine, running = vae.own(parts, params, "prior"), state.get("prior", {})

    # The prior may depend on the condition, of the whole batch or of one example.
    def around(cond: jax.Array | None) -> Any:
        return vae.links(parts, params, jnp.zeros((), jnp.int32), cond)

    def drawn(key: jax.Array, cond: jax.Array | None) -> jax.Array:
        # One draw per key: examples of a batch stay independent of each other and of their number.
        return c.prior.sample(mine, running, key, 1, around(None if cond is None else cond[None]))[0]

    return Joint(
        c.prior.distribution(mine, running, around(features)),
        lambda z: observed.log_prob(vae.decode(parts, params, state, z, features), x, mask),
        lambda keys: jax.vmap(drawn, (0, None if features is None else 0))(keys, features),
        lambda keys, z: {"x": vae.decode(parts, params, state, z, features).sample(keys)},
    )
