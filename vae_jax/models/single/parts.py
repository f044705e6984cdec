"""The parts of a VAE: its components bound to the data, and the maps between x, q(z|x), z and p(x|z).

Inside a model latents are vectors [B, n]. Only `encode` and `decode` in `build.py` reshape them (see `spaces`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax import collectives, likelihoods, priors, prng
from vae_jax.errors import InputError, option
from vae_jax.model import Batch, Context, Params, State
from vae_jax.models import columns, observed
from vae_jax.models.per_example import per_example
from vae_jax.models.single.config import Components
from vae_jax.spaces import Space
from vae_jax.spec import DataSpec


@dataclass(frozen=True)
class Parts:
    """A VAE's components bound to the data.

    Attributes:
      config: the components.
      spec: the data.
      space: where the latents live.
      encoder: module x (with the condition) -> the numbers that q(z|x) is made of, [B, outputs].
      decoder: module z (with the condition) -> the numbers that p(x|z) is made of, [B, *x.shape[:-1], outputs].
    """

    config: Components
    spec: DataSpec
    space: Space
    encoder: nn.Module
    decoder: nn.Module


def bind(config: Components, spec: DataSpec) -> Parts:
    """Returns the parts of a VAE for these data.

    Raises:
      InputError: components that do not go together, or not with these data.
    """
    c, shape = config, spec.x.shape
    # First the components among themselves, then each against the data.
    c.check()
    c.network.check(spec.x)
    c.condition.check(spec)
    c.objective.check(spec)
    check_mask(c, spec)
    c = columns.bound(c, spec)
    if spec.x.kind not in c.prior.kinds:
        raise InputError(
            f"model.prior: {type(c.prior).__name__} makes data of kind {' or '.join(c.prior.kinds)}, but these are of "
            f"kind {spec.x.kind}; choose {option('model.prior', 'mog')}"
        )
    # The posterior says how many numbers q(z|x) takes, the likelihood how many each pixel's p(x|z) does.
    dtype = jnp.dtype(c.precision)
    encoder = c.network.encoder(c.posterior.outputs(c.latent_dim), dtype)
    decoder = c.network.decoder((*shape[:-1], c.likelihood.outputs(shape[-1])), dtype)
    return Parts(c, spec, c.posterior.latents(c.latent_dim), encoder, decoder)


def check_mask(config: Components, spec: DataSpec) -> None:
    """Raises InputError for components that cannot leave out what is missing, where the data have a mask."""
    c = config
    observed.check(spec, c.likelihood, c.mask_input)
    if c.network.autoregressive:
        # Every entry is predicted from those before it, which may be missing.
        spec.refuse_mask("an autoregressive decoder", f"choose {option('model.network', 'mlp')}")
    if c.prior.keeps_data:
        spec.refuse_mask("a prior that keeps training examples", f"choose {option('model.prior', 'mog')}")


def takes_mask(config: Components, spec: DataSpec) -> bool:
    """Says whether the model reads `batch["mask"]`, whether or not the training data have one."""
    return observed.takes(spec, config.likelihood) and not config.network.autoregressive


def init(parts: Parts, key: jax.Array, batch: Batch) -> tuple[Params, State]:
    """Returns the parameters by optimizer group, and the running state.

    The groups are `vae`, and `encoder` where the objective trains it apart. Entries that would be empty are left out,
    so that checkpoints hold no empty trees.
    """
    c, spec = parts.config, parts.spec
    # One example of each input is enough to shape the parameters.
    features = c.condition.features(batch, spec)
    first = None if features is None else features[:1]
    x, z = batch["x"][:1], jnp.zeros((1, parts.space.size))
    extra = (x,) if c.network.autoregressive else ()
    # A prior that encodes pseudo-inputs only needs their shape here: there are no encoder parameters yet.
    around = priors.Links(parts.space.size, spec.x.shape, lambda x: None, None, first, c.posterior.blocks(c.latent_dim))
    # A site per part: another part, or another choice of one, leaves the initial values of the others as they were.
    group = {
        "encoder": parts.encoder.init(prng.site_key(key, "encoder"), encoder_input(c, x, None, first))["params"],
        "decoder": parts.decoder.init(prng.site_key(key, "decoder"), c.condition.join_code(z, first), *extra)["params"],
        "posterior": c.posterior.init(prng.site_key(key, "flow"), c.latent_dim),
        "prior": c.prior.init(prng.site_key(key, "prior"), around),
        "likelihood": c.likelihood.params_for(spec.x.shape),
    }
    params: Params = {"vae": {name: value for name, value in group.items() if value}}
    # Whatever makes q(z|x) moves to a group of its own, with its own optimizer state and gate.
    if c.objective.separate_encoder:
        params["encoder"] = {name: params["vae"].pop(name) for name in ("encoder", "posterior") if group[name]}
    state = {
        "likelihood": c.likelihood.init_state(),
        "prior": c.prior.init_state(around),
        "objective": c.objective.init_state(),
        "gradient": c.gradient.init_state(),
    }
    return params, {name: value for name, value in state.items() if value}


def own(parts: Parts, params: Params, name: str) -> Any:
    """Returns the parameters of one part, wherever its optimizer group is; {} for a part without any."""
    if name in ("encoder", "posterior") and parts.config.objective.separate_encoder:
        return params["encoder"].get(name, {})
    return params["vae"].get(name, {})


def encoder_input(config: Components, x: jax.Array, mask: jax.Array | None, features: jax.Array | None) -> jax.Array:
    """Returns what the encoder sees, on its last axis: x, its mask if it may, and the features.

    Args:
      config: of the model.
      x: data [B, *x.shape], 0 where they are missing.
      mask: of what is observed, of the shape of x; None for all of it.
      features: of the condition [B, F], or None.

    Returns:
      x with more numbers on its last axis.
    """
    # x and its mask side by side; the features come last, as constant channels.
    seen = config.likelihood.seen(x)
    return config.condition.join_x(observed.with_mask(seen, mask) if config.mask_input else seen, features)


def infer(
    parts: Parts,
    params: Params,
    x: jax.Array,
    features: jax.Array | None,
    step: jax.Array,
    train: bool,
    mask: jax.Array | None = None,
) -> Any:
    """Returns q(z|x) over vectors [B, n].

    Args:
      parts: of the model.
      params: of the model.
      x: data [B, *x.shape].
      features: of the condition [B, F], or None.
      step: int32 scalar, for the schedules of relaxations.
      train: relaxed samples are for training only.
      mask: of what is observed [B, *x.shape], where x is 0 elsewhere; None for all of it.

    Returns:
      float32 whatever precision the network computes in.
    """
    # The network may compute in bfloat16; densities, and the KL above all, need float32.
    joined = encoder_input(parts.config, x, mask, features)
    out = parts.encoder.apply({"params": own(parts, params, "encoder")}, joined)
    return parts.config.posterior.build(own(parts, params, "posterior"), jnp.asarray(out, jnp.float32), step, train)


def outputs(
    parts: Parts,
    params: Params,
    z: jax.Array,
    features: jax.Array | None = None,
    x: jax.Array | None = None,
    keys: jax.Array | None = None,
    at: Any = None,
) -> jax.Array:
    """Returns what the decoder gives, float32 [N, *x.shape[:-1], outputs].

    Args:
      parts: of the model.
      params: of the model.
      z: latents as vectors [N, n].
      features: of the condition [B, F] with N a multiple of B, or None.
      x: the data [N, *x.shape] that an autoregressive decoder reads.
      keys: one per example, [N], of dropout; None drops nothing.
      at: (row, column) of the one pixel that an autoregressive decoder is to give; None for all.

    Returns:
      what the likelihood is built from; one row per latent.
    """
    c = parts.config
    extra: dict[str, Any] = {"x": x} if c.network.autoregressive else {}
    if keys is not None and c.network.noisy:
        extra["keys"] = keys
    if at is not None:
        extra["at"] = at
    # The condition goes in with the code, and the decoder's result is float32 again.
    joined = c.condition.join_code(z, features)
    return jnp.asarray(parts.decoder.apply({"params": own(parts, params, "decoder")}, joined, **extra), jnp.float32)


def decode(parts: Parts, params: Params, state: State, z: jax.Array, features: jax.Array | None) -> Any:
    """Returns p(x|z) of latents as vectors [N, n], outside training.

    Args:
      parts: of the model.
      params: of the model.
      state: of the model; the likelihood may keep a running variance in it.
      z: latents as vectors [N, n].
      features: of the condition [B, F] with N a multiple of B; None without a condition.

    Returns:
      a decoded distribution over data [N, *x.shape].

    Raises:
      InputError: a conditional model without features.
    """
    c = parts.config
    if features is None and c.condition.on != "none":
        raise InputError(f"this model is conditioned on {c.condition.on}: a code is decoded only with its features")
    mine, running = own(parts, params, "likelihood"), state.get("likelihood", {})
    if c.network.autoregressive:
        # Parameters and latents travel inside the Partial, a pytree: the likelihood can leave a traced function.
        net = jax.tree_util.Partial(_Given(parts), params, running, z, features)
        return likelihoods.AutoregressivePixels(net, jnp.zeros((z.shape[0], *parts.spec.x.shape)))
    return c.likelihood.build(outputs(parts, params, z, features), mine, running)


def log_prior(p: Any, z: jax.Array) -> jax.Array:
    """Returns log p(z_k) in nats [K, B] of samples z [K, B, n]; raises as `per_example`."""
    return per_example(jax.vmap(p.log_prob)(z), z.shape[:2], "model.prior", p)


@dataclass(frozen=True)
class _Given:
    """p(x_i | x_<i, z) of every pixel, or of the one `at` (row, column), by an autoregressive decoder."""

    parts: Parts

    def __call__(self, params: Params, running: Any, z: jax.Array, features: Any, x: jax.Array, at: Any = None) -> Any:
        # With `at` the network computes one pixel only: drawing an image takes one pass per pixel.
        out = outputs(self.parts, params, z, features, x, at=at)
        return self.parts.config.likelihood.build(out, own(self.parts, params, "likelihood"), running)


def links(
    parts: Parts,
    params: Params,
    step: jax.Array,
    features: jax.Array | None = None,
    x: jax.Array | None = None,
) -> priors.Links:
    """Returns what a prior may know of the model around it.

    Args:
      parts: of the model.
      params: of the model.
      step: int32 scalar, for schedules of the posterior.
      features: of the condition [B, F], or None.
      x: data of the batch [B, *x.shape] in training, else None.

    Returns:
      what every method of a prior takes as `links`.
    """
    c = parts.config

    # Without a condition, which pseudo-inputs and exemplars do not have, and without a relaxation.
    def inferred(images: jax.Array) -> Any:
        return infer(parts, params, images, None, step, False)

    return priors.Links(parts.space.size, parts.spec.x.shape, inferred, x, features, c.posterior.blocks(c.latent_dim))


def sample_prior(
    parts: Parts, params: Params, state: State, around: priors.Links, ctx: Context, key: jax.Array, n: int
) -> jax.Array:
    """Returns n draws z ~ p(z) that stand for the global batch, [n, D]: the same on every device.

    Args:
      parts: of the model.
      params: of the model.
      state: of the model.
      around: as of `links`, of the local batch.
      ctx: of the step.
      key: of all n draws.
      n: how many; static.

    Returns:
      float32 [n, D].
    """
    # Every device makes the draws of all, so it needs the conditions of the global batch.
    cond = None if around.cond is None else collectives.all_gather(around.cond, ctx.axis_name)
    mine, running = own(parts, params, "prior"), state.get("prior", {})
    return parts.config.prior.sample(mine, running, key, n, around._replace(cond=cond))
