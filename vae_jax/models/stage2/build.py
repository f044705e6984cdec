"""The model of a second stage: the first stage's functions, with a prior in front of them and the loss of that prior.

The first stage is frozen: its variables are in the state, which the optimizer never sees, and no gradient reaches them.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax import prng, spaces
from vae_jax.model import Aux, Batch, ConditionFns, Context, Encoding, Metrics, Model, Params, PriorFns, State, Training
from vae_jax.models import observed
from vae_jax.models.condition import ENTRIES, Condition
from vae_jax.models.per_example import batch_mean
from vae_jax.models.stage2.base import Around, Choices, Generator
from vae_jax.models.stage2.coding import Coder
from vae_jax.models.stage2.sequential import Sequential
from vae_jax.spec import DataSpec

# Names in checkpoints; `tasks.first_stage` fills both entries before training starts.
FIRST, STATS = "first", "latents"  # entries of the state


class Parts(NamedTuple):
    """The components bound to the data.

    Attributes:
      first: the first stage.
      generator: the distribution over its latents.
      around: what the generator is built for.
      condition: makes the features c.
      drop: share of the training examples whose condition is hidden.
      spec: of the data.
    """

    first: Model
    generator: Generator
    around: Around
    condition: Condition
    drop: float
    spec: DataSpec


def model(parts: Parts) -> Model:
    """Returns the model of a second stage."""
    first, conditional = parts.first, parts.condition.on != "none"
    return Model(
        init=partial(init, parts),
        loss=partial(loss, parts),
        terms=partial(terms, parts),
        encode=partial(encode, parts),
        decode=partial(decode, parts),
        # Latents have no unit of the prior any more: it has learned where they are.
        about=first.about._replace(unit=None, takes_weight=True),
        training=Training(frozen=(FIRST, STATS) if parts.generator.of == "real" else (FIRST,)),
        prior=PriorFns(
            partial(sample, parts),
            conditional,
            parts.generator.takes,
            # Entropy coding needs p(z_i | z_<i), one place after another.
            partial(coder, parts) if isinstance(parts.generator, Sequential) else None,
        ),
        condition=condition(parts),
    )


def condition(parts: Parts) -> ConditionFns | None:
    """Returns the capability of a conditional generator; None without a condition.

    The first stage encodes and decodes without it. Where p(z) was learned beside p(z|c), examples may come without it.
    """
    found = parts.condition.functions(parts.spec)
    if found is None:
        return None
    return found._replace(features=partial(required, parts), is_required=parts.drop == 0)


def required(parts: Parts, params: Params, state: State, batch: Batch) -> jax.Array:
    """Returns the features of a batch, rows of zeros where it has none.

    Args:
      parts: of the model.
      params: of the model.
      state: of the model.
      batch: that may hold the condition.

    Returns:
      float32 [B, F].
    """
    del params, state
    found = features(parts, batch)
    assert found is not None
    return found


def features(parts: Parts, batch: Batch) -> jax.Array | None:
    """Returns the features [B, F] of a batch; None of a generator without a condition.

    An unknown label, or a batch without labels, is "no condition": a row of zeros.
    """
    if parts.condition.on == "none":
        return None
    # Only a network from which conditions were hidden in training has seen the row of zeros.
    if parts.drop and ENTRIES[parts.condition.on] not in batch:
        return jnp.zeros((jax.tree.leaves(dict(batch))[0].shape[0], parts.around.cond))
    return parts.condition.features(batch, parts.spec)


def init(parts: Parts, key: jax.Array, batch: Batch) -> tuple[Params, State]:
    """Returns the generator's parameters, in the one group `prior`, and a state whose first stage is untrained."""
    # Weights of the right shapes: those of the first stage's checkpoint replace them.
    params, state = parts.first.init(prng.site_key(key, "first"), batch)
    held: State = {FIRST: {"params": params} | ({"state": state} if state else {})}
    if parts.generator.of == "real":
        # Replaced, like the first stage, before training: the moments of its latents over the training split.
        n = parts.around.length
        held[STATS] = {"mean": jnp.zeros(n), "std": jnp.ones(n)}
    around = around_of(parts, held)
    return {"prior": parts.generator.init(prng.site_key(key, "generator"), around)}, held


def around_of(parts: Parts, state: State) -> Around:
    """Returns what the generator is built for, with the moments of the latents where it needs them."""
    stats = state.get(STATS)
    # The moments are traced, all else in `Around` is static.
    return parts.around if stats is None else parts.around._replace(stats=(stats["mean"], stats["std"]))


def frozen(state: State) -> tuple[Params, State]:
    """Returns parameters and state of the first stage."""
    # Also where a caller differentiates with respect to the state: nothing here may train it.
    held = jax.lax.stop_gradient(state[FIRST])
    return held["params"], held.get("state", {})


def coded(parts: Parts, state: State, keys: jax.Array | None, batch: Batch) -> tuple[jax.Array, Encoding]:
    """Encodes a batch with the first stage.

    Args:
      parts: of the model.
      state: of the model.
      keys: one per example [B], to draw from q(z|x); None for its mean or mode.
      batch: of data.

    Returns:
      latents as vectors [B, n], int32 where they are codes, and the encoding that they are of.
    """
    params, held = frozen(state)
    # Codes are the most probable ones, so that log q(z|x) = 0, also of a quantizer that could draw them.
    encoding = parts.first.encode(params, held, None if parts.generator.of == "codes" else keys, batch)
    z = jax.lax.stop_gradient(spaces.vector(parts.around.latents, encoding.z))
    # Embeddings are looked up by int32; real vectors keep their type until they are normalized.
    return (z.astype(jnp.int32) if parts.generator.of == "codes" else z), encoding


def loss(
    parts: Parts, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context
) -> tuple[jax.Array, Aux]:
    """Returns the mean of what the generator minimizes, and what is logged; the state does not move."""
    keys = prng.example_keys(key, ctx.index)
    # 1. Latents of the first stage, drawn from q(z|x) where they are real vectors.
    z, _ = coded(parts, state, prng.site_keys(keys, "encode"), batch)
    # 2. The condition, hidden from some examples.
    cond = features(parts, batch)
    if cond is not None and ctx.train and parts.drop:
        shown = prng.uniform(prng.site_keys(keys, "drop"), ()) >= parts.drop
        cond = cond * shown[:, None]
    # 3. What is minimized, one number per example.
    found, extra = parts.generator.loss(
        params["prior"], prng.site_keys(keys, "generator"), z, cond, around_of(parts, state), ctx.train
    )
    weight = batch.get("weight")
    value = batch_mean(found, len(z), "model.generator", weight)
    metrics = {"loss": value, **extra}
    # Nats over all n places, and bits of one, which compare between grids of different sizes.
    if parts.generator.likelihood != "none" and parts.generator.of == "codes":
        metrics |= {"rate": jnp.mean(found), "bits_per_code": jnp.mean(found) / (z.shape[1] * jnp.log(2.0))}
    return value, Aux(state, metrics)


def terms(parts: Parts, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context) -> Metrics:
    """Returns the terms of both stages for each example; without a likelihood of z there is no rate, and no ELBO.

    log p(x) >= E_q[log p(x|z) + log p(z|c) - log q(z|x)], where the codes of a quantizer have log q(z|x) = 0.
    """
    # 1. One draw of z for each example, from the same keys as in the loss.
    (x, mask), keys = observed.data(batch), prng.example_keys(key, ctx.index)
    z, encoding = coded(parts, state, prng.site_keys(keys, "encode"), batch)
    p_x = decode(parts, params, state, encoding.z)
    # 2. -log p(x|z) in nats [B], summed over the observed entries.
    distortion = -observed.log_prob(p_x, x, mask)
    mean = parts.first.about.likelihood.matched(p_x.mean(), x)
    out = {"distortion": distortion, "mse": observed.mean_error(mean, x, mask)}
    # A density at points that the first stage may move as it likes bounds nothing: shrinking them raises it.
    if parts.generator.likelihood == "none" or (parts.generator.of == "real" and encoding.posterior is None):
        return out
    cond = features(parts, batch)
    rate = parts.generator.rate(params["prior"], prng.site_keys(keys, "generator"), z, cond, around_of(parts, state))
    # 3. Where z was drawn, log q(z|x) makes of -log p(z|c) one draw of the KL.
    if encoding.posterior is not None:
        rate = rate + encoding.posterior.log_prob(z)
    return {"elbo": -(distortion + rate), "rate": rate, **out}


def encode(parts: Parts, params: Params, state: State, keys: jax.Array | None, batch: Batch) -> Encoding:
    """Returns the first stage's encoding."""
    del params
    return parts.first.encode(*frozen(state), keys, batch)


def decode(parts: Parts, params: Params, state: State, z: Any, *, cond: jax.Array | None = None) -> Any:
    """Returns the first stage's p(x|z); the condition is that of the codes alone."""
    del params, cond
    return parts.first.decode(*frozen(state), z)


def sample(
    parts: Parts,
    params: Params,
    state: State,
    key: jax.Array,
    n: int,
    *,
    cond: jax.Array | None = None,
    temperature: float = 1.0,
    **choices: Any,
) -> Any:
    """Draws latents z ~ p(z|c).

    Args:
      parts: of the model.
      params: of the model.
      state: of the model.
      key: of all draws.
      n: how many.
      cond: features [n, F]; None without a condition.
      temperature: divides logits, or scales noise.
      choices: further fields of `Choices`.

    Returns:
      leaves [n, *shape], of the structure of the first stage's latents.
    """
    chosen = Choices(temperature, **choices)
    z = parts.generator.sample(params["prior"], key, n, cond, around_of(parts, state), chosen)
    # Vectors [n, length] back to the levels that the first stage decodes.
    return spaces.shaped(parts.around.latents, z)


def coder(parts: Parts, params: Params, state: State) -> Coder:
    """Returns the entropy coder of codes with p(z)."""
    return Coder(parts.generator, params["prior"], around_of(parts, state))
