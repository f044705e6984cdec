"""The single-latent VAE: any posterior, prior, likelihood, network, objective and gradient estimator."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax import collectives, likelihoods, networks, objectives, posteriors, priors, prng
from vae_jax import distributions as dist
from vae_jax.distributions.categorical import expected_code
from vae_jax.errors import InputError
from vae_jax.model import NO_FACTS, Aux, Batch, Context, Encoding, Facts, Joint, Metrics, Model, Params, State
from vae_jax.models.condition import Condition
from vae_jax.models.pairs import check_pairs

# Images decoded at a time by the IW bound, and their pixels together: 4000 images of 28 x 28.
BOUND_ROWS, BOUND_PIXELS = 4000, 4000 * 28 * 28


@dataclass(frozen=True)
class VAE:
    """Variational autoencoder with one code an image (arXiv:1312.6114)."""

    latent_dim: int = 10
    """Number of latent dimensions (of latent variables, where each is a category)."""
    network: networks.Network = field(default_factory=networks.MLP)
    """Encoder and decoder."""
    likelihood: likelihoods.PixelLikelihood = field(default_factory=likelihoods.Bernoulli)
    """Distribution of pixels given the code."""
    prior: priors.Prior = field(default_factory=priors.Normal)
    """Distribution of codes."""
    objective: objectives.Objective = field(default_factory=objectives.Elbo)
    """What is minimised."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Compute type of the networks. Parameters, likelihoods and KL stay float32."""
    posterior: posteriors.Posterior = field(default_factory=posteriors.Diagonal)
    """Distribution of codes given an image."""
    gradient: objectives.Pathwise = field(default_factory=objectives.Pathwise)
    """Estimator of the gradient through the posterior sample."""
    condition: Condition = field(default_factory=Condition)
    """What the model is told besides the image."""

    def check(self) -> None:
        """Raises InputError for components that cannot work together."""
        check_pairs(self)

    def build(self, image_shape: tuple[int, int, int], facts: Facts = NO_FACTS) -> Model:
        """Returns the model for images [H, W, C].

        Args:
          image_shape: (H, W, C) of the data.
          facts: what else is known of the training data.

        Raises:
          InputError: components that do not go together, or with these data.
        """
        return vae(self, image_shape, facts)


class _Draw(NamedTuple):
    """One pass through the model: the terms, and the new running states."""

    terms: objectives.Terms
    state: State


def vae(config: VAE, image_shape: tuple[int, int, int], facts: Facts = NO_FACTS) -> Model:
    """Returns the pure functions of a VAE: loss = objective(E_q[-log p(x|z)], KL(q(z|x) || p(z)), ...).

    Args:
      config: the components.
      image_shape: (H, W, C) of the data.
      facts: what else is known of the training data.

    Returns:
      a Model with the parameter group `vae`, and `critic` or `encoder` where the objective has them.

    Raises:
      InputError: components that do not go together, or with these data.
    """
    c = config
    check_pairs(c)
    c.network.check(image_shape)
    c.condition.check(facts)
    c.objective.check(facts)
    dtype = jnp.dtype(c.precision)
    posterior, prior, likelihood, objective, gradient = c.posterior, c.prior, c.likelihood, c.objective, c.gradient
    channels = likelihood.outputs(image_shape[-1])
    code_dim = posterior.code_dim(c.latent_dim)
    encoder = c.network.encoder(posterior.outputs(c.latent_dim), dtype)
    decoder = c.network.decoder((*image_shape[:2], channels), dtype)

    def part(params: Params, name: str) -> Any:
        if name in ("encoder", "posterior") and objective.separate_encoder:
            return params["encoder"].get(name, {})
        return params["vae"].get(name, {})

    def links(params: Params, step: jax.Array, features=None, x=None) -> priors.Links:
        def inferred(images: jax.Array) -> Any:
            return infer(params, images, None, step, False)

        return priors.Links(code_dim, image_shape, inferred, x, features, posterior.blocks(c.latent_dim))

    def everywhere(around: priors.Links, ctx: Context) -> priors.Links:
        # Draws of the prior for the global batch: under the conditions of all its examples.
        return around._replace(cond=None if around.cond is None else collectives.all_gather(around.cond, ctx.axis_name))

    def init(key: jax.Array, batch: Batch) -> tuple[Params, State]:
        features = c.condition.features(batch, facts)
        first = None if features is None else features[:1]
        x, z = batch["image"][:1], jnp.zeros((1, code_dim))
        extra = (x,) if c.network.autoregressive else ()
        blocks = posterior.blocks(c.latent_dim)
        around = priors.Links(code_dim, image_shape, lambda images: None, None, first, blocks)
        joined = c.condition.join_code(z, first)
        group = {
            "encoder": encoder.init(prng.site_key(key, "encoder"), c.condition.join_image(x, first))["params"],
            "decoder": decoder.init(prng.site_key(key, "decoder"), joined, *extra)["params"],
            "posterior": posterior.init(prng.site_key(key, "flow"), c.latent_dim),
            "prior": prior.init(prng.site_key(key, "prior"), around),
            "likelihood": likelihood.init_params(),
        }
        params: Params = {"vae": {k: v for k, v in group.items() if v}}
        if objective.separate_encoder:
            params["encoder"] = {name: params["vae"].pop(name) for name in ("encoder", "posterior") if group[name]}
        critic = objective.init(prng.site_key(key, "critic"), code_dim)
        if critic:
            params["critic"] = critic
        state = {
            "likelihood": likelihood.init_state(),
            "prior": prior.init_state(around),
            "objective": objective.init_state(),
            "gradient": gradient.init_state(),
        }
        return params, {k: v for k, v in state.items() if v}

    def infer(params: Params, x: jax.Array, features: jax.Array | None, step: jax.Array, train: bool) -> Any:
        out = encoder.apply({"params": part(params, "encoder")}, c.condition.join_image(x, features))
        return posterior.build(part(params, "posterior"), jnp.asarray(out, jnp.float32), step, train)

    def outputs(params: Params, z: jax.Array, features=None, x=None, keys=None, at=None) -> jax.Array:
        extra: dict[str, Any] = {"x": x} if c.network.autoregressive else {}
        if keys is not None and c.network.noisy:
            extra["keys"] = keys
        if at is not None:
            extra["at"] = at
        out = decoder.apply({"params": part(params, "decoder")}, c.condition.join_code(z, features), **extra)
        return jnp.asarray(out, jnp.float32)

    def given(params: Params, running: Any, z: jax.Array, features: Any, x: jax.Array, at: Any = None) -> Any:
        """Returns p(x_i | x_<i, z) of every pixel, or of the one `at` (row, column), for an autoregressive decoder."""
        return likelihood.build(outputs(params, z, features, x, at=at), part(params, "likelihood"), running)

    def decode(params: Params, state: State, z: jax.Array, *, cond: jax.Array | None = None) -> Any:
        if cond is None and c.condition.on != "none":
            raise InputError(f"this model is conditioned on {c.condition.on}: a code is decoded only with its features")
        own, running = part(params, "likelihood"), state.get("likelihood", {})
        if c.network.autoregressive:
            net = jax.tree_util.Partial(given, params, running, z, cond)
            return likelihoods.AutoregressivePixels(net, jnp.zeros((len(z), *image_shape)))
        return likelihood.build(outputs(params, z, cond), own, running)

    def forward(params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context, k: int) -> _Draw:
        x, features = batch["image"], c.condition.features(batch, facts)
        b = x.shape[0]
        # A score-function estimator draws exact codes: a relaxation is for pathwise gradients only.
        q = infer(params, x, features, ctx.step, ctx.train and not gradient.score)
        around = links(params, ctx.step, features, x)
        running = state.get("prior", {})
        if ctx.train:
            p, prior_state = prior.fit(part(params, "prior"), running, prng.site_key(key, "prior"), around, ctx)
        else:
            p, prior_state = prior.distribution(part(params, "prior"), running, around), running
        closed = None if posterior.deterministic else dist.closed_kl(q, p)
        estimator = gradient if ctx.train else objectives.Pathwise()
        exact_rate = closed is not None and not estimator.stops_density
        weigh = objective.importance or estimator.score or not (exact_rate or posterior.deterministic)

        keys = prng.example_keys(prng.site_key(key, "posterior"), ctx.index)
        z, log_q, noise = estimator.draw(keys, q, k, weigh and not estimator.stops_density)
        if weigh and estimator.stops_density:
            log_q = jax.vmap(jax.lax.stop_gradient(q).log_prob)(z)
        drops = prng.example_keys(prng.site_key(key, "dropout"), ctx.index) if ctx.train and c.network.noisy else None

        def pixels(params: Params, z: jax.Array) -> tuple[Any, State, jax.Array]:
            """Returns p(x|z_k) with leading axis K * B, the likelihood's new state, and log p(x|z_k) [K, B]."""
            images = _repeat(x, k)
            each = drops if k == 1 or drops is None else jnp.tile(drops, k)
            told = None if features is None else _repeat(features, k)
            out = outputs(params, z.reshape(k * b, -1), told, images, each)
            own, old = part(params, "likelihood"), state.get("likelihood", {})
            if ctx.train:
                p_x, new = likelihood.fit(out, images, own, old, ctx.axis_name)
            else:
                p_x, new = likelihood.build(out, own, old), old
            return p_x, new, p_x.log_prob(images).reshape(k, b)

        if estimator.scales_path:
            assert log_q is not None
            log_w = pixels(params, z)[2] + jax.vmap(p.log_prob)(z) - log_q
            factor = objective.path_factor(jax.lax.stop_gradient(log_w))[..., None]
            z = jax.lax.stop_gradient(z) + factor * (z - jax.lax.stop_gradient(z))
            log_q = jax.vmap(jax.lax.stop_gradient(q).log_prob)(z)
        path = None
        if objective.splits:
            # What only the encoder learns from. The compiler shares the forward pass with what the decoder learns from.
            path = pixels(jax.lax.stop_gradient(params), z)[2], jax.vmap(jax.lax.stop_gradient(p).log_prob)(z)
            z = jax.lax.stop_gradient(z)
        p_x, like_state, log_p_x = pixels(params, z)
        if posterior.deterministic:
            rate, log_p_z = jnp.zeros(b), None
        else:
            log_p_z = jax.vmap(p.log_prob)(z) if weigh else None
        estimates = dict(state.get("gradient", {}))
        cost, new = estimator.surrogate("distortion", -log_p_x, q, log_q, noise, estimates.get("distortion", {}), ctx)
        if ctx.train and estimates:
            estimates["distortion"] = new
        if exact_rate:
            assert closed is not None
            rate = jnp.sum(closed, -1)
        elif not posterior.deterministic:
            assert log_q is not None
            assert log_p_z is not None
            drawn = log_q - log_p_z
            drawn, new = estimator.surrogate("rate", drawn, q, log_q, noise, estimates.get("rate", {}), ctx)
            rate = jnp.mean(drawn, 0)
            if ctx.train and estimates:
                estimates["rate"] = new
        terms = objectives.Terms(
            x=x,
            z=z[0],
            posterior=q,
            likelihood=p_x,
            distortion=jnp.mean(cost, 0),
            rate=rate,
            kl_per_dim=closed if posterior.factorised and prior.factorised else None,
            prior=p,
            log_p_x=-cost,
            log_p_z=log_p_z,
            log_q=log_q if objective.importance else None,
            path=path,
            key=prng.site_key(key, "objective"),
            decode=lambda z: likelihood.build(
                outputs(params, z, features, x), part(params, "likelihood"), state.get("likelihood", {})
            ),
            sample_prior=lambda key, n: prior.sample(part(params, "prior"), running, key, n, everywhere(around, ctx)),
            facts=facts,
        )
        parts = {"likelihood": like_state, "prior": prior_state, "gradient": estimates}
        return _Draw(terms, {name: value for name, value in parts.items() if value})

    def loss(params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        terms, new_state = forward(params, state, key, batch, ctx, max(objective.samples, gradient.samples))
        running = state.get("objective", {})
        per_example, extra, objective_state = objective.step(terms, ctx, running, params.get("critic", {}))
        if objective_state:
            new_state["objective"] = objective_state
        value = jnp.mean(per_example)
        code = expected_code(terms.posterior)
        metrics = {
            "loss": value,
            "elbo": -jnp.mean(terms.distortion + terms.rate),
            "distortion": jnp.mean(terms.distortion),
            "rate": jnp.mean(terms.rate),
            # Moments of the code, from which the log counts active units.
            "code_mean": jnp.mean(code, 0),
            "code_square": jnp.mean(jnp.square(code), 0),
            **extra,
        }
        if terms.kl_per_dim is not None:
            metrics["kl_per_dim"] = jnp.mean(terms.kl_per_dim, 0)
        if posterior.deterministic:
            del metrics["elbo"], metrics["rate"]
        return value, Aux(new_state, metrics)

    def terms(params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context) -> Metrics:
        t, _ = forward(params, state, key, batch, ctx._replace(train=False), 1)
        # The reconstruction error is that of the mean code: what `reconstruct` shows. An autoregressive decoder would
        # need a pass a pixel for that; its error is the one-step one, with the true pixels before.
        decoded = decode(params, state, t.posterior.mode(), cond=c.condition.features(batch, facts))
        mean = (decoded.given(t.x) if c.network.autoregressive else decoded).mean()
        out = {"distortion": t.distortion, "mse": jnp.mean(jnp.square(mean - t.x), axis=(1, 2, 3))}
        if not posterior.deterministic:
            out |= {"elbo": -(t.distortion + t.rate), "rate": t.rate}
        return out if t.kl_per_dim is None else out | {"kl_per_dim": t.kl_per_dim}

    def encode(params: Params, state: State, keys: jax.Array | None, batch: Batch) -> Encoding:
        del state
        features = c.condition.features(batch, facts)
        q = infer(params, batch["image"], features, jnp.zeros((), jnp.int32), False)
        z = q.mode() if keys is None else q.sample(keys)
        return Encoding(z, None if posterior.deterministic else q)

    def sample(params: Params, state: State, key, n: int, *, cond=None, temperature: float = 1.0) -> Any:
        if cond is None and c.condition.on != "none":
            cond = c.condition.default(n, facts)
        around = links(params, jnp.zeros((), jnp.int32), cond)
        z = prior.sample(part(params, "prior"), state.get("prior", {}), key, n, around, temperature)
        return decode(params, state, z, cond=cond)

    def log_prob_bound(params: Params, state: State, key, batch: Batch, ctx: Context, k: int) -> jax.Array:
        x, features = batch["image"], c.condition.features(batch, facts)
        q = infer(params, x, features, ctx.step, False)
        p = prior.distribution(part(params, "prior"), state.get("prior", {}), links(params, ctx.step, features))
        keys = prng.example_keys(prng.site_key(key, "importance"), ctx.index)
        b, steps = x.shape[0], -(-k // min(k, samples_at_once(x.shape)))
        width = -(-k // steps)
        images, told = _repeat(x, width), None if features is None else _repeat(features, width)

        def body(carry: jax.Array, first: jax.Array) -> tuple[jax.Array, None]:
            number = first + jnp.arange(width)
            each = prng.sample_keys(keys, number)
            z, log_q = jax.vmap(q.sample_and_log_prob)(each)
            p_x = decode(params, state, z.reshape(width * b, -1), cond=told)
            log_w = p_x.log_prob(images).reshape(width, b) + jax.vmap(p.log_prob)(z) - log_q
            log_w = jnp.where((number < k)[:, None], log_w, -jnp.inf)
            # One after the other, so that the sum too is the same whatever the width.
            return jax.lax.scan(lambda total, w: (jnp.logaddexp(total, w), None), carry, log_w)

        total, _ = jax.lax.scan(body, jnp.full(b, -jnp.inf), width * jnp.arange(steps))
        return total - jnp.log(k)

    def joint(params: Params, state: State, batch: Batch) -> Joint:
        x, features = batch["image"], c.condition.features(batch, facts)
        own, running = part(params, "prior"), state.get("prior", {})

        def around(told: jax.Array | None) -> priors.Links:
            return links(params, jnp.zeros((), jnp.int32), told)

        def drawn(key: jax.Array, told: jax.Array | None) -> jax.Array:
            return prior.sample(own, running, key, 1, around(None if told is None else told[None]))[0]

        return Joint(
            prior.distribution(own, running, around(features)),
            lambda z: decode(params, state, z, cond=features).log_prob(x),
            lambda keys: jax.vmap(drawn, (0, None if features is None else 0))(keys, features),
            lambda keys, z: {"image": decode(params, state, z, cond=features).sample(keys)},
        )

    bound = log_prob_bound if likelihood.normalised and not posterior.deterministic else None
    # A Wasserstein autoencoder holds even point codes at the prior.
    prior_sample = sample if objective.rateless or not posterior.deterministic else None
    return Model(
        init,
        loss,
        terms,
        encode,
        decode,
        prior_sample,
        bound,
        objective.hyper(),
        objective.gates(),
        c.condition.function(facts),
        facts.classes if c.condition.on == "label" else 0,
        posterior.blocks(c.latent_dim),
        joint if likelihood.normalised and prior_sample is not None else None,
        prior.space,
    )


def samples_at_once(image_shape: tuple[int, ...]) -> int:
    """Returns how many samples of a batch [B, H, W, C] the IW bound draws at a time: few enough to bound its memory."""
    return max(1, min(BOUND_ROWS, BOUND_PIXELS // math.prod(image_shape[1:])) // image_shape[0])


def _repeat(x: jax.Array, k: int) -> jax.Array:
    """Returns x [B, ...] k times, one whole batch after the other: [k * B, ...]."""
    return x if k == 1 else jnp.broadcast_to(x, (k, *x.shape)).reshape(k * len(x), *x.shape[1:])
