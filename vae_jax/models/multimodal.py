"""Two modalities, image and label, of one code: inferred from either or both, and decoded to both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax import distributions as dist
from vae_jax import likelihoods, networks, posteriors, prng
from vae_jax.distributions import dense, experts
from vae_jax.errors import InputError
from vae_jax.model import NO_FACTS, Aux, Batch, Context, Encoding, Facts, Joint, Metrics, Model, Params, State
from vae_jax.models.condition import one_hot
from vae_jax.models.pairs import check_one_pass


@dataclass(frozen=True)
class Multimodal:
    """Image and label of one code; inferred from either or both: MVAE or MMVAE (arXiv:1802.05335, arXiv:1911.03393)."""

    latent_dim: int = 20
    """Number of latent dimensions."""
    network: networks.Network = field(default_factory=networks.MLP)
    """Encoder and decoder of the image."""
    likelihood: likelihoods.PixelLikelihood = field(default_factory=likelihoods.Bernoulli)
    """Distribution of pixels given the code."""
    fusion: Literal["poe", "moe"] = "poe"
    """q(z|x, y): product of experts with the prior (MVAE), or their even mixture (MMVAE)."""
    bound: Literal["elbo", "iwae"] = "elbo"
    """What is maximised; iwae takes the log-mean of the `samples` of each expert."""
    samples: int = 1
    """Samples of each expert an example."""
    label_weight: float = 10.0
    """Weight of log p(y|z) in the loss: one label is little beside many pixels."""
    beta: float = 1.0
    """Weight of the rate; 1 is the bound."""
    width: int = 64
    """Hidden units of the label's encoder and decoder."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Compute type of the networks. Parameters, likelihoods and KL stay float32."""

    def check(self) -> None:
        """Raises InputError for components that cannot work together."""
        check_one_pass(self.network, self.likelihood)
        if self.bound == "iwae" and self.samples < 2:
            raise InputError("model.bound: iwae with one sample is the elbo; set --model.samples to 2 or more")

    def build(self, image_shape: tuple[int, int, int], facts: Facts = NO_FACTS) -> Model:
        """Returns the model for images [H, W, C] with `facts.classes` labels.

        Raises:
          InputError: the data have no labels, or the network cannot take this image size.
        """
        return multimodal(self, image_shape, facts)


class Evidence(NamedTuple):
    """Samples z_mk of M experts: nats [M, K, B], and the closed-form rate [B, D] where there is one.

    `log_x` is log p(x|z), `log_y` log p(y|z), `ratio` log q(z|x, y) - log p(z); 0 for what is not given.
    """

    log_x: jax.Array
    log_y: jax.Array
    ratio: jax.Array
    closed: jax.Array | None


def multimodal(config: Multimodal, image_shape: tuple[int, int, int], facts: Facts) -> Model:
    """Returns the pure functions: bounds on log p(x, y) = log int p(z) p(x|z) p(y|z) dz.

    poe: loss = -(ELBO(x, y) + ELBO(x) + ELBO(y)), so that each expert learns to do alone too (arXiv:1802.05335, eq. 6).
    moe: loss = -1/M sum_m E_{q_m}[log p(x, y, z) - log 1/M sum q] (arXiv:1911.03393, eq. 3): stratified, every expert
    decodes both. Where only some examples are labelled, ELBO(x) is that of the others, the rest that of these.

    Args:
      config: the components.
      image_shape: (H, W, C) of the data.
      facts: `classes` is the number of labels.

    Returns:
      a Model with the parameter group `vae`. Codes are inferred from the image alone; `elbo` and `log_prob_bound` are
      of log p(x, y) where the batch has labels, else of log p(x).

    Raises:
      InputError: the data have no labels, or the network cannot take this image size.
    """
    c, classes = config, facts.classes
    c.check()
    if not classes:
        raise InputError("model: the label is its second modality, but the data have none; choose data with labels")
    c.network.check(image_shape)
    dtype, diagonal, likelihood = jnp.dtype(c.precision), posteriors.Diagonal(), c.likelihood
    prior = dist.DiagGaussian(*jnp.zeros((2, 1, c.latent_dim)))
    encoder = c.network.encoder(2 * c.latent_dim, dtype)
    decoder = c.network.decoder((*image_shape[:2], likelihood.outputs(image_shape[-1])), dtype)

    def init(key: jax.Array, batch: Batch) -> tuple[Params, State]:
        z = jnp.zeros((1, c.latent_dim))
        group = {
            "encoder": encoder.init(prng.site_key(key, "encoder"), batch["image"][:1])["params"],
            "decoder": decoder.init(prng.site_key(key, "decoder"), z)["params"],
            "label_encoder": dense.init(prng.site_key(key, "label_encoder"), (classes, c.width, 2 * c.latent_dim)),
            "label_decoder": dense.init(prng.site_key(key, "label_decoder"), (c.latent_dim, c.width, classes)),
            "likelihood": likelihood.init_params(),
        }
        return {"vae": {k: v for k, v in group.items() if v}}, {}

    def of_image(params: Params, x: jax.Array) -> dist.DiagGaussian:
        out = encoder.apply({"params": params["vae"]["encoder"]}, x)
        return diagonal.build({}, jnp.asarray(out, jnp.float32), jnp.zeros((), jnp.int32), False)

    def of_label(params: Params, y: jax.Array) -> dist.DiagGaussian:
        out = dense.apply(params["vae"]["label_encoder"], y)
        return diagonal.build({}, out, jnp.zeros((), jnp.int32), False)

    def alone(expert: dist.DiagGaussian) -> dist.DiagGaussian:
        """Returns q(z) given one modality."""
        return experts.product([expert]) if c.fusion == "poe" else expert

    def decode(params: Params, state: State, z: jax.Array, *, cond: jax.Array | None = None) -> Any:
        del state, cond
        out = decoder.apply({"params": params["vae"]["decoder"]}, z)
        return likelihood.build(jnp.asarray(out, jnp.float32), params["vae"].get("likelihood", {}), {})

    def log_labels(params: Params, z: jax.Array) -> jax.Array:
        """Returns log p(y|z) of every label, [N, classes]."""
        return jax.nn.log_softmax(dense.apply(params["vae"]["label_decoder"], z))

    def evidence(params: Params, keys: jax.Array, x: jax.Array | None, y: jax.Array | None, k: int) -> Evidence:
        """Returns what the samples of q say of the image x and the one-hot label y; either may be missing."""
        known = [of_image(params, x)] if x is not None else []
        known += [of_label(params, y)] if y is not None else []
        sources = (experts.product(known),) if c.fusion == "poe" else tuple(known)
        q = sources[0] if len(sources) == 1 else experts.Mixture(sources)
        drawn = []
        for m, source in enumerate(sources):
            own = prng.numbered_keys(keys, m)
            each = prng.sample_keys(own, jnp.arange(k))
            drawn.append(jax.vmap(source.sample)(each))
        z = jnp.stack(drawn)
        shape = z.shape[:3]
        count, flat = shape[0] * k, z.reshape(-1, c.latent_dim)
        log_x = log_y = jnp.zeros(shape)
        if x is not None:
            images = jnp.broadcast_to(x, (count, *x.shape)).reshape(-1, *x.shape[1:])
            log_x = decode(params, {}, flat).log_prob(images).reshape(shape)
        if y is not None:
            log_y = jnp.sum(log_labels(params, flat) * jnp.tile(y, (count, 1)), -1).reshape(shape)
        every = z.reshape(count, -1, c.latent_dim)
        ratio = jax.vmap(lambda one: q.log_prob(one) - prior.log_prob(one))(every).reshape(shape)
        return Evidence(log_x, log_y, ratio, dist.kl(sources[0], prior) if len(sources) == 1 else None)

    def rate(e: Evidence) -> jax.Array:
        return jnp.mean(e.ratio, (0, 1)) if e.closed is None else jnp.sum(e.closed, -1)

    def value(e: Evidence, beta: jax.Array) -> jax.Array:
        """Returns the weighted bound [B] of the loss."""
        if c.bound == "iwae":
            log_w = e.log_x + c.label_weight * e.log_y - beta * e.ratio
            return jnp.mean(jax.nn.logsumexp(log_w, 1) - jnp.log(c.samples), 0)
        return jnp.mean(e.log_x + c.label_weight * e.log_y, (0, 1)) - beta * rate(e)

    def measures(e: Evidence) -> Metrics:
        distortion, spent = -jnp.mean(e.log_x + e.log_y, (0, 1)), rate(e)
        out = {"elbo": -(distortion + spent), "distortion": distortion, "rate": spent}
        return out if e.closed is None else out | {"kl_per_dim": e.closed}

    def loss(params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        x, beta = batch["image"], ctx.hyper["beta"]

        few = "paired_label" in batch and ctx.train
        known = (batch["paired_image"], batch["paired_label"]) if few else (x, batch.get("label"))
        y = None if known[1] is None else one_hot(known[1][:, None], (classes,))
        if y is None and ctx.train:
            raise InputError("this model learns from labels, which these images come without; add them")
        whole = evidence(params, _site(key, "posterior", ctx.index), known[0], y, c.samples)
        per_example = -value(whole, beta)
        if y is not None and (few or c.fusion == "poe"):
            per_example -= value(evidence(params, _site(key, "image", ctx.index), x, None, c.samples), beta)
        if y is not None and c.fusion == "poe":
            per_example -= value(evidence(params, _site(key, "label", ctx.index), None, y, c.samples), beta)
        total = jnp.mean(per_example)
        code = alone(of_image(params, x)).mean
        metrics = {name: jnp.mean(v, 0) for name, v in measures(whole).items()}
        moments = {"code_mean": jnp.mean(code, 0), "code_square": jnp.mean(jnp.square(code), 0)}
        if y is not None:
            metrics["distortion_label"] = -jnp.mean(whole.log_y)
        return total, Aux(state, metrics | moments | {"loss": total, "beta": beta})

    def terms(params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context) -> Metrics:
        x, label = batch["image"], batch.get("label")
        keys = _site(key, "posterior", ctx.index)
        y = None if label is None else one_hot(label[:, None], (classes,))
        whole = evidence(params, keys, x, y, c.samples)
        code = alone(of_image(params, x)).mean
        error = jnp.square(decode(params, state, code).mean() - x)
        out = measures(whole) | {"mse": jnp.mean(error, axis=(1, 2, 3))}
        if y is None:
            return out
        # Image to label; and label to image, then back by the image's own expert.
        out["distortion_label"] = -jnp.mean(whole.log_y, (0, 1))
        out["accuracy"] = jnp.asarray(jnp.argmax(log_labels(params, code), -1) == label, jnp.float32)
        made = decode(params, state, alone(of_label(params, y)).sample(_site(key, "coherence", ctx.index))).mean()
        found = jnp.argmax(log_labels(params, alone(of_image(params, made)).mean), -1)
        return out | {"coherence": jnp.asarray(found == label, jnp.float32)}

    def encode(params: Params, state: State, keys: jax.Array | None, batch: Batch) -> Encoding:
        del state
        q = alone(of_image(params, batch["image"]))
        return Encoding(q.mode() if keys is None else q.sample(keys), q)

    def features(params: Params, state: State, batch: Batch) -> jax.Array:
        """Returns the label, one-hot; zeros where it is missing."""
        del params, state
        if "label" not in batch:
            return jnp.zeros((len(batch["image"]), classes))
        return one_hot(batch["label"][:, None], (classes,))

    def sample(params: Params, state: State, key, n: int, *, cond=None, temperature: float = 1.0) -> Any:
        """Draws z ~ q(z|y) for one-hot rows of cond, z ~ p(z) for rows of zeros and without cond."""
        q = dist.DiagGaussian(*jnp.zeros((2, n, c.latent_dim)))
        if cond is not None:
            given = jnp.sum(cond, -1, keepdims=True) > 0
            q = jax.tree.map(lambda a, b: jnp.where(given, a, b), alone(of_label(params, cond)), q)
        noise = jax.random.normal(key, (n, c.latent_dim))
        return decode(params, state, q.mean + temperature * jnp.exp(0.5 * q.log_var) * noise)

    def log_prob_bound(params: Params, state: State, key, batch: Batch, ctx: Context, k: int) -> jax.Array:
        """Takes k samples of each expert of a mixture, each weighed by the whole of it."""
        keys, label = _site(key, "importance", ctx.index), batch.get("label")
        y = None if label is None else one_hot(label[:, None], (classes,))

        def body(total: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
            e = evidence(params, prng.numbered_keys(keys, i), batch["image"], y, 1)
            log_w = e.log_x + e.log_y - e.ratio
            found = jax.nn.logsumexp(log_w, (0, 1)) - jnp.log(log_w.shape[0])
            return jnp.logaddexp(total, found), None

        total, _ = jax.lax.scan(body, jnp.full(len(batch["image"]), -jnp.inf), jnp.arange(k))
        return total - jnp.log(k)

    def joint(params: Params, state: State, batch: Batch) -> Joint:
        label = batch.get("label")

        def log_likelihood(z: jax.Array) -> jax.Array:
            """Returns log p(x|z) + log p(y|z) [B], of the image alone without a label."""
            log_x = decode(params, state, z).log_prob(batch["image"])
            if label is None:
                return log_x
            return log_x + jnp.sum(log_labels(params, z) * one_hot(label[:, None], (classes,)), -1)

        def sample_data(keys: jax.Array, z: jax.Array) -> dict[str, jax.Array]:
            pixels, classed = (jax.vmap(lambda key, n=n: prng.site_key(key, n))(keys) for n in ("pixels", "class"))
            found = {"image": decode(params, state, z).sample(pixels)}
            if label is None:
                return found
            return found | {"label": jax.vmap(jax.random.categorical)(classed, log_labels(params, z))}

        return Joint(prior, log_likelihood, lambda keys: prng.normal(keys, (c.latent_dim,)), sample_data)

    hyper, told = {"beta": c.beta}, {"features": features, "classes": classes}
    density = joint if likelihood.normalised else None
    return Model(init, loss, terms, encode, decode, sample, log_prob_bound, hyper, **told, joint=density)


def _site(key: jax.Array, name: str, index: jax.Array) -> jax.Array:
    """Returns one key an example of the named use."""
    return prng.example_keys(prng.site_key(key, name), index)
