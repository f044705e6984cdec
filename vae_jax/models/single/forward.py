"""One pass through a VAE, in the order of the maths: infer, draw, reweigh, split, score, rate, terms.

K posterior samples z_k ~ q(z|x) of each of B examples are arrays with leading axes [K, B]; the decoder sees them as one
batch of K * B. Everything is per example and in nats; nothing here takes a batch mean.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax import distributions as dist
from vae_jax import objectives, prng
from vae_jax.model import Batch, Context, Params, State
from vae_jax.models import observed
from vae_jax.models.importance import repeat
from vae_jax.models.per_example import per_example
from vae_jax.models.single import parts as vae
from vae_jax.models.single.parts import Parts


class Pass(NamedTuple):
    """The terms of one batch, the new running states by part, and the samples z [K * B, n] that were decoded."""

    terms: objectives.Terms
    state: State
    z: jax.Array


class Prior(NamedTuple):
    """p(z), its new running state, and the links that it was made with."""

    distribution: Any
    state: Any
    links: Any


class Plan(NamedTuple):
    """How the rate is obtained, and what that needs.

    Attributes:
      closed: KL(q || p) by latent variable [B, G] in closed form; None where the pair has none.
      exact: whether the rate is that closed form. An estimator that stops the density of q needs samples instead.
      weighs: whether log q(z_k|x) and log p(z_k) of the samples are needed.
    """

    closed: jax.Array | None
    exact: bool
    weighs: bool


class Scored(NamedTuple):
    """p(x|z_k) with leading axis K * B, the likelihood's new state, and log p(x|z_k) [K, B]."""

    likelihood: Any
    state: State
    log_p_x: jax.Array


def forward(parts: Parts, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context, k: int) -> Pass:
    """Returns the terms of one batch.

    Args:
      parts: of the model.
      params: of the model.
      state: of the model.
      key: of the step; every use has a site of its own.
      batch: `x` [B, *x.shape], and what the model is conditioned on.
      ctx: of the step.
      k: posterior samples per example, K.

    Returns:
      the terms that objectives read, and the new state of the parts that keep one.
    """
    c = parts.config
    (x, mask), features = observed.data(batch), c.condition.features(batch, parts.spec)
    # Outside training values count and gradients do not: the plain estimator gives the same values.
    estimator = c.gradient if ctx.train else objectives.Pathwise()

    # 1. Infer q(z|x) and set p(z) beside it. A score-function estimator draws exact codes: a relaxation is for pathwise
    #    gradients only.
    q = vae.infer(parts, params, x, features, ctx.step, ctx.train and not c.gradient.score, mask)
    prior = _prior(parts, params, state, prng.site_key(key, "prior"), x, features, ctx)
    p = prior.distribution
    plan = _plan(parts, estimator, q, p)

    # 2. Draw z_k ~ q(z|x), [K, B, n].
    keys = prng.example_keys(prng.site_key(key, "posterior"), ctx.index)
    z, log_q, noise = estimator.draw(keys, q, k, plan.weighs)
    if log_q is not None:
        per_example(log_q, z.shape[:2], "model.posterior", q)
    drops = prng.example_keys(prng.site_key(key, "dropout"), ctx.index) if ctx.train and c.network.noisy else None

    def score(params: Params, z: jax.Array) -> Scored:
        return _score(parts, params, state, z, x, mask, batch.get("weight"), features, drops, ctx)

    # 3. Reweigh the path of each sample (doubly reparameterized gradients).
    z, log_q = estimator.reweigh(z, log_q, q, c.objective, lambda z: score(params, z).log_p_x + vae.log_prior(p, z))

    # 4. Split what only the encoder learns from, where the objective has two bounds: its parameters aside, all stops.
    z, path = c.objective.split(
        z,
        lambda z: (
            score(jax.lax.stop_gradient(params), z).log_p_x,
            vae.log_prior(jax.lax.stop_gradient(p), z),
        ),
    )

    # 5. Score x under every decoded p(x|z_k), and z_k under the prior.
    scored = score(params, z)
    log_p_z = vae.log_prior(p, z) if plan.weighs and not c.posterior.deterministic else None

    # 6. Distortion and rate, with the gradient of the estimator.
    estimates = dict(state.get("gradient", {}))
    cost = _surrogate("distortion", -scored.log_p_x, estimator, q, log_q, noise, estimates, ctx)
    rate = _rate(parts, plan, estimator, q, log_q, log_p_z, noise, estimates, ctx)

    # 7. Terms, for the objective.
    terms = objectives.Terms(
        x=x,
        z=z[0],
        posterior=q,
        likelihood=scored.likelihood,
        distortion=jnp.mean(cost, 0),
        rate=jnp.zeros(x.shape[0]) if rate is None else rate,
        kl_per_dim=plan.closed if c.posterior.factorized and c.prior.factorized else None,
        prior=p,
        log_p_x=-cost,
        log_p_z=log_p_z,
        log_q=log_q if c.objective.importance else None,
        path=path,
        key=prng.site_key(key, "objective"),
        decode=lambda z: _decoded(parts, params, state, z, x, features),
        sample_prior=partial(vae.sample_prior, parts, params, state, prior.links, ctx),
        spec=parts.spec,
        mask=mask,
    )
    new = {"likelihood": scored.state, "prior": prior.state, "gradient": estimates}
    return Pass(terms, {name: value for name, value in new.items() if value}, z.reshape(k * x.shape[0], z.shape[-1]))


def _prior(
    parts: Parts,
    params: Params,
    state: State,
    key: jax.Array,
    x: jax.Array,
    features: jax.Array | None,
    ctx: Context,
) -> Prior:
    """Returns p(z) of this step; in training its running state moves."""
    links = vae.links(parts, params, ctx.step, features, x)
    mine, running = vae.own(parts, params, "prior"), state.get("prior", {})
    # Running states (buffers, normalizers) move in training only: an evaluation leaves the model as it was.
    if ctx.train:
        return Prior(*parts.config.prior.fit(mine, running, key, links, ctx), links)
    return Prior(parts.config.prior.distribution(mine, running, links), running, links)


def _plan(parts: Parts, estimator: objectives.Pathwise, q: Any, p: Any) -> Plan:
    """Returns how the rate of this pair is obtained under this estimator."""
    c = parts.config
    closed = None if c.posterior.deterministic else dist.closed_kl(q, p)
    exact = closed is not None and not estimator.stops_density
    sampled = not (exact or c.posterior.deterministic)
    # log q and log p of each z_k: for weights, for score functions, and for a rate without a closed form.
    return Plan(closed, exact, c.objective.importance or estimator.score or sampled)


def _score(
    parts: Parts,
    params: Params,
    state: State,
    z: jax.Array,
    x: jax.Array,
    mask: jax.Array | None,
    weight: jax.Array | None,
    features: jax.Array | None,
    drops: jax.Array | None,
    ctx: Context,
) -> Scored:
    """Returns p(x|z_k) of samples z [K, B, n].

    Args:
      parts: of the model.
      params: of the model.
      state: of the model.
      z: samples [K, B, n].
      x: data [B, *x.shape].
      mask: of what is observed, of the shape of x; None for all of it.
      weight: of the loss of each example, [B]; None weighs all alike.
      features: of the condition [B, F], or None.
      drops: keys [B] of dropout: all samples of an example drop the same units; None drops none.
      ctx: of the step.
    """
    k, b = z.shape[:2]
    # [K * B, ...], one whole batch after the other: the decoder needs no sample axis.
    tiled = repeat(x, k)
    each = drops if k == 1 or drops is None else jnp.tile(drops, k)
    cond = None if features is None else repeat(features, k)
    out = vae.outputs(parts, params, z.reshape(k * b, -1), cond, tiled, each)
    mine, old = vae.own(parts, params, "likelihood"), state.get("likelihood", {})
    seen = None if mask is None else repeat(mask, k)
    if ctx.train:
        # Each sample of an example has the example's weight, as in the loss, which takes their mean.
        weights = None if weight is None else repeat(weight, k)
        p_x, new = observed.fit(parts.config.likelihood, out, tiled, mine, old, ctx.axis_name, seen, weights)
    else:
        p_x, new = parts.config.likelihood.build(out, mine, old), old
    # Summed over the axes of x, in nats, and back to [K, B].
    log_p_x = per_example(observed.log_prob(p_x, tiled, seen), (k * b,), "model.likelihood", p_x)
    return Scored(p_x, new, log_p_x.reshape(k, b))


def _surrogate(
    name: str,
    cost: jax.Array,
    estimator: objectives.Pathwise,
    q: Any,
    log_q: jax.Array | None,
    noise: Any,
    estimates: dict[str, Any],
    ctx: Context,
) -> jax.Array:
    """Returns the cost [K, B] with the estimator's gradient; in training its baseline in `estimates` moves."""
    cost, new = estimator.surrogate(name, cost, q, log_q, noise, estimates.get(name, {}), ctx)
    # Baselines move in training only.
    if ctx.train and estimates:
        estimates[name] = new
    return cost


def _rate(
    parts: Parts,
    plan: Plan,
    estimator: objectives.Pathwise,
    q: Any,
    log_q: jax.Array | None,
    log_p_z: jax.Array | None,
    noise: Any,
    estimates: dict[str, Any],
    ctx: Context,
) -> jax.Array | None:
    """Returns KL(q || p) [B]: in closed form, else the mean of log q - log p over the samples; None of a point."""
    if parts.config.posterior.deterministic:
        return None
    # [B, G] -> [B], without sampling noise.
    if plan.exact:
        assert plan.closed is not None
        return jnp.sum(plan.closed, -1)
    assert log_q is not None
    assert log_p_z is not None
    return jnp.mean(_surrogate("rate", log_q - log_p_z, estimator, q, log_q, noise, estimates, ctx), 0)


def _decoded(parts: Parts, params: Params, state: State, z: jax.Array, x: jax.Array, features: jax.Array | None) -> Any:
    """Returns p(x|z) of further latents [N, n], for objectives that decode some of their own."""
    # No dropout, and the running state as it is: further passes are for penalties, and fit nothing.
    out = vae.outputs(parts, params, z, features, x)
    return parts.config.likelihood.build(out, vae.own(parts, params, "likelihood"), state.get("likelihood", {}))
