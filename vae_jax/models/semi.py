"""Semi-supervised VAE with a class variable that is summed out: M2 of Kingma et al."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax import distributions as dist
from vae_jax import likelihoods, networks, posteriors, prng
from vae_jax.distributions import dense
from vae_jax.errors import InputError
from vae_jax.model import NO_FACTS, Aux, Batch, Context, Encoding, Facts, Joint, Metrics, Model, Params, State
from vae_jax.models.condition import one_hot
from vae_jax.models.pairs import check_one_pass


@dataclass(frozen=True)
class M2:
    """Semi-supervised M2: q(y|x), q(z|x, y) and p(x|y, z), the unknown class summed out exactly (arXiv:1406.5298)."""

    latent_dim: int = 2
    """Number of latent dimensions besides the class; with many the code holds the class too, and y means less."""
    network: networks.Network = field(default_factory=networks.MLP)
    """Classifier, encoder and decoder."""
    likelihood: likelihoods.PixelLikelihood = field(default_factory=likelihoods.Bernoulli)
    """Distribution of pixels given class and code."""
    alpha: float = 3.0
    """Weight of the classification loss -log q(y|x); a large one makes q(y|x) sure before p(x|y, z) can object."""
    labelled_weight: float = 1.0
    """Weight of the labelled bound; one labelled example comes with each unlabelled one."""
    beta: float = 1.0
    """Weight of the rate; 1 is the bound on log p(x)."""
    width: int = 128
    """Features of an image that q(z|x, y) joins with the class."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Compute type of the networks. Parameters, likelihoods and KL stay float32."""

    unlabelled: ClassVar[bool] = True  # whether the bound of the unlabelled images is in the loss

    def check(self) -> None:
        """Raises InputError for components that cannot work together."""
        check_one_pass(self.network, self.likelihood)

    def build(self, image_shape: tuple[int, int, int], facts: Facts = NO_FACTS) -> Model:
        """Returns the model for images [H, W, C] with `facts.classes` labels.

        Raises:
          InputError: the data have no labels, or the network cannot take this image size.
        """
        return m2(self, image_shape, facts)


class Bound(NamedTuple):
    """The terms of one bound, nats [B]: elbo = -(distortion + rate). `code` [B, D] is the mean of q(z|x, y)."""

    distortion: jax.Array
    rate: jax.Array
    code: jax.Array


def m2(config: M2, image_shape: tuple[int, int, int], facts: Facts) -> Model:
    """Returns the pure functions of M2: loss = U(x) + w L(x', y') - alpha log q(y'|x') (arXiv:1406.5298, eq. 6 to 9).

    L(x, y) = E_q(z|x,y)[-log p(x|y, z)] + KL(q(z|x, y) || p(z)) - log p(y), p(y) = 1/K;
    U(x) = sum_y q(y|x) L(x, y) - H(q(y|x)), x' and y' the labelled example that comes with x.

    Args:
      config: the components.
      image_shape: (H, W, C) of the data.
      facts: `classes` is K.

    Returns:
      a Model with the parameter group `vae`; `features` is the class asked for, or that of largest q(y|x).

    Raises:
      InputError: the data have no labels, or the network cannot take this image size.
    """
    c, classes = config, facts.classes
    c.check()
    if not classes:
        raise InputError("model: it learns from labels, but the data have none; choose data with labels")
    c.network.check(image_shape)
    dtype = jnp.dtype(c.precision)
    posterior, likelihood = posteriors.Diagonal(), c.likelihood
    prior = dist.DiagGaussian(*jnp.zeros((2, 1, c.latent_dim)))
    classifier = c.network.encoder(classes, dtype)
    encoder = c.network.encoder(c.width, dtype)
    decoder = c.network.decoder((*image_shape[:2], likelihood.outputs(image_shape[-1])), dtype)
    log_p_y = -math.log(classes)

    def init(key: jax.Array, batch: Batch) -> tuple[Params, State]:
        x = batch["image"][:1]
        joined = jnp.zeros((1, c.latent_dim + classes))
        group = {
            "classifier": classifier.init(prng.site_key(key, "classifier"), x)["params"],
            "encoder": encoder.init(prng.site_key(key, "encoder"), x)["params"],
            "join": dense.init(prng.site_key(key, "join"), (c.width + classes, c.width, 2 * c.latent_dim)),
            "decoder": decoder.init(prng.site_key(key, "decoder"), joined)["params"],
            "likelihood": likelihood.init_params(),
        }
        return {"vae": {k: v for k, v in group.items() if v}}, {}

    def log_q_y(params: Params, x: jax.Array) -> jax.Array:
        logits = classifier.apply({"params": params["vae"]["classifier"]}, x)
        return jax.nn.log_softmax(jnp.asarray(logits, jnp.float32))

    def seen(params: Params, x: jax.Array) -> jax.Array:
        return jnp.asarray(encoder.apply({"params": params["vae"]["encoder"]}, x), jnp.float32)

    def infer(params: Params, h: jax.Array, y: jax.Array) -> dist.DiagGaussian:
        """Returns q(z|x, y) of image features h [N, width] and one-hot y [N, K]."""
        out = dense.apply(params["vae"]["join"], jnp.concatenate([h, y], -1))
        return posterior.build({}, out, jnp.zeros((), jnp.int32), False)

    def decode(params: Params, state: State, z: jax.Array, *, cond: jax.Array | None = None) -> Any:
        del state
        if cond is None:
            raise InputError("this model decodes a code only with a class; say which")
        out = decoder.apply({"params": params["vae"]["decoder"]}, jnp.concatenate([z, cond], -1))
        return likelihood.build(jnp.asarray(out, jnp.float32), params["vae"].get("likelihood", {}), {})

    def labelled(params: Params, keys: jax.Array, x: jax.Array, h: jax.Array, y: jax.Array) -> Bound:
        """Returns -L(x, y) in its parts, for one-hot y [B, K]."""
        q = infer(params, h, y)
        distortion = -decode(params, {}, q.sample(keys), cond=y).log_prob(x)
        return Bound(distortion, jnp.sum(dist.kl(q, prior), -1) - log_p_y, q.mean)

    def every_class(params: Params, keys: jax.Array, x: jax.Array) -> tuple[Bound, jax.Array]:
        """Returns the bound of each class, leaves [K, B, ...], and y [K * B, K]: one class after the other."""
        b = x.shape[0]
        y = jnp.repeat(jnp.eye(classes), b, 0)
        each = prng.sample_keys(keys, jnp.arange(classes)).reshape(-1)
        images = jnp.broadcast_to(x, (classes, *x.shape)).reshape(-1, *x.shape[1:])
        bounds = labelled(params, each, images, jnp.tile(seen(params, x), (classes, 1)), y)
        return jax.tree.map(lambda v: v.reshape(classes, b, *v.shape[1:]), bounds), y

    def unlabelled(params: Params, keys: jax.Array, x: jax.Array) -> tuple[Bound, jax.Array]:
        """Returns -U(x) in its parts (the code is that of the likeliest class), and log q(y|x) [B, K]."""
        log_q = log_q_y(params, x)
        q, (each, _) = jnp.exp(log_q).T, every_class(params, keys, x)
        best = jnp.argmax(log_q, -1)[None, :, None]
        rate = jnp.sum(q * (each.rate + log_q.T), 0)
        return Bound(jnp.sum(q * each.distortion, 0), rate, jnp.take_along_axis(each.code, best, 0)[0]), log_q

    def pair(batch: Batch) -> tuple[jax.Array, jax.Array] | None:
        """Returns labelled images and their labels: the drawn ones, else those of the batch where all are labelled."""
        if "paired_label" in batch:
            return batch["paired_image"], batch["paired_label"]
        return (batch["image"], batch["label"]) if "label" in batch else None

    def loss(params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        beta, alpha = ctx.hyper["beta"], ctx.hyper["alpha"]
        known = pair(batch)
        if known is None and ctx.train:
            raise InputError("this model learns from labels, which these images come without; add them")
        value, metrics = jnp.zeros(len(batch["image"])), {"beta": beta}
        bound = None
        if c.unlabelled or not ctx.train:
            keys = prng.example_keys(prng.site_key(key, "posterior"), ctx.index)
            bound, _ = unlabelled(params, keys, batch["image"])
        if bound is not None and c.unlabelled:
            value = bound.distortion + beta * bound.rate
        if known is not None:
            x, label = known
            y = one_hot(label[:, None], (classes,))
            keys = prng.example_keys(prng.site_key(key, "labelled"), ctx.index)
            given = labelled(params, keys, x, seen(params, x), y)
            log_q = log_q_y(params, x)
            cross_entropy = -jnp.sum(y * log_q, -1)
            value += c.labelled_weight * (given.distortion + beta * given.rate) + alpha * cross_entropy
            metrics["cross_entropy"] = jnp.mean(cross_entropy)
            metrics["labelled_accuracy"] = jnp.mean(jnp.asarray(jnp.argmax(log_q, -1) == label, jnp.float32))
            bound = given if bound is None else bound
        assert bound is not None
        total = jnp.mean(value)
        metrics |= {
            "loss": total,
            "elbo": -jnp.mean(bound.distortion + bound.rate),
            "distortion": jnp.mean(bound.distortion),
            "rate": jnp.mean(bound.rate),
            "code_mean": jnp.mean(bound.code, 0),
            "code_square": jnp.mean(jnp.square(bound.code), 0),
        }
        return total, Aux(state, metrics)

    def terms(params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context) -> Metrics:
        x = batch["image"]
        bound, log_q = unlabelled(params, prng.example_keys(prng.site_key(key, "posterior"), ctx.index), x)
        best = jnp.argmax(log_q, -1)
        mean = decode(params, state, bound.code, cond=one_hot(best[:, None], (classes,))).mean()
        out = {
            "elbo": -(bound.distortion + bound.rate),
            "distortion": bound.distortion,
            "rate": bound.rate,
            "mse": jnp.mean(jnp.square(mean - x), axis=(1, 2, 3)),
        }
        if "label" in batch:
            out["accuracy"] = jnp.asarray(best == batch["label"], jnp.float32)
        return out

    def features(params: Params, state: State, batch: Batch) -> jax.Array:
        """Returns the likeliest class of each image; the label counts only where there is no image."""
        del state
        label = jnp.argmax(log_q_y(params, batch["image"]), -1) if "image" in batch else batch["label"]
        return one_hot(label[:, None], (classes,))

    def embed(params: Params, state: State, batch: Batch) -> jax.Array:
        """Returns the input of the classifier's last dense layer, [B, F]."""
        del state
        seen_by: list[jax.Array] = []

        def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            if isinstance(context.module, nn.Dense) and context.method_name == "__call__":
                seen_by.append(args[0])
            return call(*args, **kwargs)

        with nn.intercept_methods(note):
            log_q_y(params, batch["image"])
        return jnp.asarray(seen_by[-1], jnp.float32).reshape(len(batch["image"]), -1)

    def encode(params: Params, state: State, keys: jax.Array | None, batch: Batch) -> Encoding:
        y = features(params, state, {"image": batch["image"]})
        q = infer(params, seen(params, batch["image"]), y)
        return Encoding(q.mode() if keys is None else q.sample(keys), q)

    def sample(params: Params, state: State, key, n: int, *, cond=None, temperature: float = 1.0) -> Any:
        if cond is None:
            cond = one_hot((jnp.arange(n) % classes)[:, None], (classes,))
        return decode(params, state, temperature * jax.random.normal(key, (n, c.latent_dim)), cond=cond)

    def log_prob_bound(params: Params, state: State, key, batch: Batch, ctx: Context, k: int) -> jax.Array:
        x = batch["image"]
        keys = prng.example_keys(prng.site_key(key, "importance"), ctx.index)
        y = jnp.repeat(jnp.eye(classes), len(x), 0)
        q = infer(params, jnp.tile(seen(params, x), (classes, 1)), y)
        images = jnp.broadcast_to(x, (classes, *x.shape)).reshape(-1, *x.shape[1:])

        def body(total: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
            one = prng.numbered_keys(keys, i)
            each = prng.sample_keys(one, jnp.arange(classes))
            z, log_q = q.sample_and_log_prob(each.reshape(-1))
            log_w = decode(params, state, z, cond=y).log_prob(images) + prior.log_prob(z) - log_q + log_p_y
            return jnp.logaddexp(total, jax.nn.logsumexp(log_w.reshape(classes, -1), 0)), None

        total, _ = jax.lax.scan(body, jnp.full(len(x), -jnp.inf), jnp.arange(k))
        return total - jnp.log(k)

    def joint(params: Params, state: State, batch: Batch) -> Joint:
        x = batch["image"]
        b, y = len(x), jnp.repeat(jnp.eye(classes), len(x), 0)
        images = jnp.broadcast_to(x, (classes, *x.shape)).reshape(-1, *x.shape[1:])

        def log_likelihood(z: jax.Array) -> jax.Array:
            """Returns log sum_y p(y) p(x|y, z), [B]."""
            each = decode(params, state, jnp.tile(z, (classes, 1)), cond=y).log_prob(images)
            return jax.nn.logsumexp(each.reshape(classes, b) + log_p_y, 0)

        def sample_data(keys: jax.Array, z: jax.Array) -> dict[str, jax.Array]:
            label = jax.vmap(lambda key: jax.random.randint(prng.site_key(key, "class"), (), 0, classes))(keys)
            p_x = decode(params, state, z, cond=one_hot(label[:, None], (classes,)))
            return {"image": p_x.sample(jax.vmap(lambda key: prng.site_key(key, "pixels"))(keys))}

        return Joint(prior, log_likelihood, lambda keys: prng.normal(keys, (c.latent_dim,)), sample_data)

    hyper = {"beta": c.beta, "alpha": c.alpha}
    told: dict[str, Any] = {"features": features, "classes": classes, "embed": embed}
    density = joint if likelihood.normalised else None
    return Model(init, loss, terms, encode, decode, sample, log_prob_bound, hyper, **told, joint=density)
