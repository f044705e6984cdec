"""Semi-supervised VAE with a class variable that is summed out: M2 of Kingma et al.

`M2.build` wires the functions below, in the order of the maths: q(y|x), q(z|x, y), p(x|y, z), the bound of one class,
the sum over classes, the loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax import distributions as dist
from vae_jax import likelihoods, networks, posteriors, prng
from vae_jax.distributions import dense
from vae_jax.errors import InputError
from vae_jax.model import (
    About,
    Aux,
    Batch,
    ClassifierFns,
    ConditionFns,
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
from vae_jax.models import columns
from vae_jax.models.condition import one_hot
from vae_jax.models.importance import importance_bound, repeat
from vae_jax.models.per_example import weighted_mean
from vae_jax.models.several import Several, check_several, decoded, encoded
from vae_jax.options.ranges import AtLeast, NotNegative
from vae_jax.spaces import Real
from vae_jax.spec import DataSpec


@dataclass(frozen=True)
class M2(Several):
    """Semi-supervised M2: q(y|x), q(z|x, y) and p(x|y, z), the unknown class summed out exactly (arXiv:1406.5298)."""

    latent_dim: Annotated[int, AtLeast(1)] = 2
    """Number of latent dimensions besides the class; with many the code holds the class too, and y means less."""
    network: networks.Network = field(default_factory=networks.MLP)
    """Classifier, encoder and decoder."""
    likelihood: likelihoods.PixelLikelihood = field(default_factory=likelihoods.Bernoulli)
    """Distribution of pixels given class and code."""
    alpha: Annotated[float, NotNegative()] = 3.0
    """Weight of the classification loss -log q(y|x); a large one makes q(y|x) sure before p(x|y, z) can object."""
    labelled_weight: Annotated[float, NotNegative()] = 1.0
    """Weight of the labeled bound; one labeled example comes with each unlabeled one."""
    beta: Annotated[float, NotNegative()] = 1.0
    """Weight of the rate; 1 is the bound on log p(x)."""
    width: Annotated[int, AtLeast(1)] = 128
    """Features of an image that q(z|x, y) joins with the class."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Compute type of the networks. Parameters, likelihoods and KL stay float32."""

    unlabeled: ClassVar[bool] = True  # whether the bound of the unlabeled images is in the loss

    def check(self) -> None:
        """Raises InputError for components that cannot work together."""
        check_several(self, "m2")

    def build(self, spec: DataSpec) -> Model:
        """Returns the model: loss = U(x) + w L(x', y') - alpha log q(y'|x') (arXiv:1406.5298, eq. 6 to 9).

        L(x, y) = E_q(z|x,y)[-log p(x|y, z)] + KL(q(z|x, y) || p(z)) - log p(y), p(y) = 1/K;
        U(x) = sum_y q(y|x) L(x, y) - H(q(y|x)), x' and y' the labeled example that comes with x.

        Args:
          spec: the data, with K = `spec.classes` labels.

        Returns:
          a Model with the parameter group `vae`; `condition.features` is the requested class, or that of largest
          q(y|x).

        Raises:
          InputError: the data have no labels, or the network cannot take them.
        """
        parts = bind(self, spec)
        return Model(
            init=partial(init, parts),
            loss=partial(loss, parts),
            terms=partial(terms, parts),
            encode=partial(encode, parts),
            decode=partial(decode, parts),
            about=About(spec, Real((self.latent_dim,)), self.likelihood, takes_weight=True),
            # Traced scalars; `labelled_weight` is compiled in.
            training=Training({"beta": self.beta, "alpha": self.alpha}),
            prior=PriorFns(partial(sample, parts)),
            density=DensityFns(partial(bound, parts), partial(joint, parts)),
            condition=ConditionFns(
                partial(features, parts), "label", spec.classes, partial(every_label, parts), is_required=False
            ),
            classifier=ClassifierFns(partial(embed, parts)),
        )


@dataclass(frozen=True)
class Parts:
    """The components of M2 bound to the data.

    Attributes:
      config: the components.
      classes: K.
      classifier: module x -> logits of q(y|x), [B, K].
      encoder: module x -> features [B, width], which q(z|x, y) joins with y.
      decoder: module (z, y) -> the numbers that p(x|y, z) is made of.
      prior: p(z) = N(0, I), parameters [1, D].
    """

    config: M2
    classes: int
    classifier: nn.Module
    encoder: nn.Module
    decoder: nn.Module
    prior: dist.DiagGaussian

    @property
    def log_p_y(self) -> float:
        """log p(y), the same for every class."""
        return -math.log(self.classes)


class Bound(NamedTuple):
    """The terms of one bound, nats [B]: elbo = -(distortion + rate). `code` [B, D] is the mean of q(z|x, y)."""

    distortion: jax.Array
    rate: jax.Array
    code: jax.Array


def bind(config: M2, spec: DataSpec) -> Parts:
    """Returns the parts of M2 for these data; raises as `M2.build`."""
    c, classes, shape = config, spec.classes, spec.x.shape
    c.check()
    if not classes:
        raise InputError("model: it learns from labels, but the data have none; choose data with labels")
    spec.refuse_mask()
    c.network.check(spec.x)
    c = columns.bound(c, spec)
    dtype = jnp.dtype(c.precision)
    return Parts(
        c,
        classes,
        # Two encoders of the same architecture: logits of q(y|x), and features for q(z|x, y).
        c.network.encoder(classes, dtype),
        c.network.encoder(c.width, dtype),
        c.network.decoder((*shape[:-1], c.likelihood.outputs(shape[-1])), dtype),
        dist.DiagGaussian(*jnp.zeros((2, 1, c.latent_dim))),
    )


def init(parts: Parts, key: jax.Array, batch: Batch) -> tuple[Params, State]:
    """Returns the parameters, in the one group `vae`, and no running state."""
    # One example is enough to shape the parameters. Sites by name: a new part leaves the others as they were.
    c, x = parts.config, batch["x"][:1]
    joined = jnp.zeros((1, c.latent_dim + parts.classes))
    widths = (c.width + parts.classes, c.width, 2 * c.latent_dim)
    group = {
        "classifier": parts.classifier.init(prng.site_key(key, "classifier"), x)["params"],
        "encoder": parts.encoder.init(prng.site_key(key, "encoder"), x)["params"],
        "join": dense.init(prng.site_key(key, "join"), widths),
        "decoder": parts.decoder.init(prng.site_key(key, "decoder"), joined)["params"],
        "likelihood": c.likelihood.params_for(batch["x"].shape[1:]),
    }
    return {"vae": {k: v for k, v in group.items() if v}}, {}


def log_q_y(parts: Parts, params: Params, x: jax.Array) -> jax.Array:
    """Returns log q(y|x) of every class, [B, K]."""
    # Logarithms: a class of probability 0 in float32 still has a gradient.
    return jax.nn.log_softmax(encoded(parts.classifier, params, "classifier", parts.config.likelihood.seen(x)))


def seen(parts: Parts, params: Params, x: jax.Array) -> jax.Array:
    """Returns the features of x that q(z|x, y) joins with y, [B, width]."""
    return encoded(parts.encoder, params, "encoder", parts.config.likelihood.seen(x))


def infer(params: Params, h: jax.Array, y: jax.Array) -> dist.DiagGaussian:
    """Returns q(z|x, y) of features h [N, width] and one-hot y [N, K]."""
    # The image passes through its encoder once; only this small net runs again for each class.
    out = dense.apply(params["vae"]["join"], jnp.concatenate([h, y], -1))
    return posteriors.Diagonal().build({}, out, jnp.zeros((), jnp.int32), False)


def decode(parts: Parts, params: Params, state: State, z: jax.Array, *, cond: jax.Array | None = None) -> Any:
    """Returns p(x|y, z) of codes [N, D] and one-hot classes `cond` [N, K]."""
    del state
    if cond is None:
        raise InputError("this model decodes a code only with a class; say which")
    return decoded(parts.decoder, parts.config.likelihood, params, jnp.concatenate([z, cond], -1))


def labeled(parts: Parts, params: Params, keys: jax.Array, x: jax.Array, h: jax.Array, y: jax.Array) -> Bound:
    """Returns -L(x, y) in its parts.

    Args:
      parts: of the model.
      params: of the model.
      keys: one per example, [B].
      x: data [B, *x.shape].
      h: their features [B, width], as of `seen`.
      y: their classes, one-hot [B, K].

    Returns:
      nats [B] from one sample of z; the rate includes -log p(y).
    """
    # One sample of z. The rate holds -log p(y) = log K beside the closed-form KL, both in nats [B].
    q = infer(params, h, y)
    distortion = -decode(parts, params, {}, q.sample(keys), cond=y).log_prob(x)
    return Bound(distortion, jnp.sum(dist.kl(q, parts.prior), -1) - parts.log_p_y, q.mean)


def every_class(parts: Parts, params: Params, keys: jax.Array, x: jax.Array) -> Bound:
    """Returns the bound of each class, leaves [K, B, ...]: one batch of K * B, one class after the other.

    Args:
      parts: of the model.
      params: of the model.
      keys: one per example, [B]; the noise of each class follows from them.
      x: data [B, *x.shape].

    Returns:
      nats [K, B], and codes [K, B, D].
    """
    b, classes = x.shape[0], parts.classes
    # Class-major [K * B, ...]: every class 0 first. One decoder pass in place of K.
    y = jnp.repeat(jnp.eye(classes), b, 0)
    # Independent noise for each class of an example.
    each = prng.sample_keys(keys, jnp.arange(classes)).reshape(-1)
    h = jnp.tile(seen(parts, params, x), (classes, 1))
    bounds = labeled(parts, params, each, repeat(x, classes), h, y)
    return jax.tree.map(lambda v: v.reshape(classes, b, *v.shape[1:]), bounds)


def unlabeled(parts: Parts, params: Params, keys: jax.Array, x: jax.Array) -> tuple[Bound, jax.Array]:
    """Returns -U(x) in its parts (the code is that of the likeliest class), and log q(y|x) [B, K].

    Args:
      parts: of the model.
      params: of the model.
      keys: one per example, [B].
      x: data [B, *x.shape].

    Returns:
      nats [B] with the class summed out exactly, and log probabilities in nats.
    """
    log_q = log_q_y(parts, params, x)
    # Exact expectation over q(y|x), [K, B]: no sampled class, so no estimator for a discrete variable.
    q, each = jnp.exp(log_q).T, every_class(parts, params, keys, x)
    best = jnp.argmax(log_q, -1)[None, :, None]
    # The rate takes -H(q(y|x)) in: the class is a latent variable too.
    rate = jnp.sum(q * (each.rate + log_q.T), 0)
    return Bound(jnp.sum(q * each.distortion, 0), rate, jnp.take_along_axis(each.code, best, 0)[0]), log_q


def pair(batch: Batch) -> tuple[jax.Array, jax.Array] | None:
    """Returns labeled examples and their labels: the drawn ones, else those of the batch where all are labeled."""
    # Where few examples are labeled, a batch brings one of them beside each example, in shuffled epochs of their own.
    if "paired_label" in batch:
        return batch["paired_x"], batch["paired_label"]
    return (batch["x"], batch["label"]) if "label" in batch else None


def loss(
    parts: Parts, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context
) -> tuple[jax.Array, Aux]:
    """Returns the mean of U(x) + w L(x', y') - alpha log q(y'|x'), the state, and what is logged."""
    c, known = parts.config, pair(batch)
    if known is None and ctx.train:
        raise InputError("this model learns from labels, which these examples come without; add them")
    # 1. The unlabeled bound. Evaluation computes it even where the loss leaves it out, for the logged ELBO.
    value, metrics = jnp.zeros(batch["x"].shape[0]), {"beta": ctx.hyper["beta"]}
    shown = None
    if c.unlabeled or not ctx.train:
        keys = prng.example_keys(prng.site_key(key, "posterior"), ctx.index)
        shown, _ = unlabeled(parts, params, keys, batch["x"])
    if shown is not None and c.unlabeled:
        value = shown.distortion + ctx.hyper["beta"] * shown.rate
    # 2. The labeled bound and the classification loss, weighted.
    if known is not None:
        given, supervised, more = _supervised(parts, params, key, known, ctx)
        value, metrics = value + supervised, metrics | more
        shown = given if shown is None else shown
    assert shown is not None
    # 3. The only batch mean. Logged terms are not weighted.
    total = weighted_mean(value, batch.get("weight"))
    metrics |= {
        "loss": total,
        "elbo": -jnp.mean(shown.distortion + shown.rate),
        "distortion": jnp.mean(shown.distortion),
        "rate": jnp.mean(shown.rate),
        # Moments of the code, from which the log counts active units.
        "code_mean": jnp.mean(shown.code, 0),
        "code_square": jnp.mean(jnp.square(shown.code), 0),
    }
    return total, Aux(state, metrics)


def _supervised(
    parts: Parts, params: Params, key: jax.Array, known: tuple[jax.Array, jax.Array], ctx: Context
) -> tuple[Bound, jax.Array, Metrics]:
    """Returns -L(x', y') in its parts, what it and the classifier add to the loss [B], and metrics."""
    c, (x, label) = parts.config, known
    y = one_hot(label[:, None], (parts.classes,))
    keys = prng.example_keys(prng.site_key(key, "labelled"), ctx.index)
    # The class is known: q(y|x) takes no part in this bound, and would learn nothing from labels without alpha.
    given = labeled(parts, params, keys, x, seen(parts, params, x), y)
    log_q = log_q_y(parts, params, x)
    # -log q(y|x) in nats [B], the unit of the bounds that it is added to.
    cross_entropy = -jnp.sum(y * log_q, -1)
    weighted = c.labelled_weight * (given.distortion + ctx.hyper["beta"] * given.rate)
    right = jnp.asarray(jnp.argmax(log_q, -1) == label, jnp.float32)
    metrics = {"cross_entropy": jnp.mean(cross_entropy), "labelled_accuracy": jnp.mean(right)}
    return given, weighted + ctx.hyper["alpha"] * cross_entropy, metrics


def terms(parts: Parts, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context) -> Metrics:
    """Returns the terms of -U(x) of each example, and `accuracy` where the batch has labels: NaN for one of -1."""
    x = batch["x"]
    shown, log_q = unlabeled(parts, params, prng.example_keys(prng.site_key(key, "posterior"), ctx.index), x)
    # The reconstruction shown: mean code and likeliest class.
    best = jnp.argmax(log_q, -1)
    mean = decode(parts, params, state, shown.code, cond=one_hot(best[:, None], (parts.classes,))).mean()
    out = {
        "elbo": -(shown.distortion + shown.rate),
        "distortion": shown.distortion,
        "rate": shown.rate,
        "mse": jnp.mean(jnp.square(mean - x), axis=tuple(range(1, x.ndim))),
    }
    if "label" in batch:
        right = jnp.asarray(best == batch["label"], jnp.float32)
        # Nothing is right or wrong of a label that is unknown (-1); evaluation leaves these examples out.
        out["accuracy"] = jnp.where(batch["label"] < 0, jnp.nan, right)
    return out


def features(parts: Parts, params: Params, state: State, batch: Batch) -> jax.Array:
    """Returns the likeliest class of each example, one-hot; the label counts only where there is no x."""
    del state
    label = jnp.argmax(log_q_y(parts, params, batch["x"]), -1) if "x" in batch else batch["label"]
    return one_hot(label[:, None], (parts.classes,))


def every_label(parts: Parts, n: int) -> jax.Array:
    """Returns every class in turn, one-hot [n, K]."""
    return one_hot((jnp.arange(n) % parts.classes)[:, None], (parts.classes,))


def embed(parts: Parts, params: Params, state: State, batch: Batch) -> jax.Array:
    """Returns the input of the classifier's last dense layer, [B, F]."""
    del state
    seen_by: list[jax.Array] = []

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        # Every dense layer passes here, in the order of the calls; its input is the first argument.
        if isinstance(context.module, nn.Dense) and context.method_name == "__call__":
            seen_by.append(args[0])
        return call(*args, **kwargs)

    # Whatever the network is, its last dense layer gives the logits.
    with nn.intercept_methods(note):
        log_q_y(parts, params, batch["x"])
    return jnp.asarray(seen_by[-1], jnp.float32).reshape(batch["x"].shape[0], -1)


def encode(parts: Parts, params: Params, state: State, keys: jax.Array | None, batch: Batch) -> Encoding:
    """Returns codes of q(z|x, y) under the likeliest class y."""
    # The label of the batch is not used: codes are the same with and without it.
    y = features(parts, params, state, {"x": batch["x"]})
    q = infer(params, seen(parts, params, batch["x"]), y)
    return Encoding(q.mode() if keys is None else q.sample(keys), q)


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
    """Returns z ~ N(0, temperature^2 I), [n, D], whatever the class."""
    # p(z) does not depend on y: a class is requested from the decoder.
    del params, state, cond
    return temperature * jax.random.normal(key, (n, parts.config.latent_dim))


def bound(parts: Parts, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context, k: int) -> jax.Array:
    """Returns the bound on log p(x) = log sum_y p(y) p(x|y): k samples of q(z|x, y) for each class."""
    x, classes = batch["x"], parts.classes
    b = x.shape[0]
    # q(z|x, y) of every class, once for all samples: [K * B, D].
    keys = prng.example_keys(prng.site_key(key, "importance"), ctx.index)
    y = jnp.repeat(jnp.eye(classes), b, 0)
    q = infer(params, jnp.tile(seen(parts, params, x), (classes, 1)), y)
    tiled = repeat(x, classes)

    def log_weights(number: jax.Array) -> jax.Array:
        # A sample's keys follow from its number, then from the class.
        each = prng.sample_keys(prng.numbered_keys(keys, number[0]), jnp.arange(classes))
        z, log_q = q.sample_and_log_prob(each.reshape(-1))
        log_p_x = decode(parts, params, state, z, cond=y).log_prob(tiled)
        # In nats, [K * B]. The sum over classes is exact and lies inside the log: of p(y) p(x, z_y|y) / q(z_y|x, y).
        log_w = log_p_x + parts.prior.log_prob(z) - log_q + parts.log_p_y
        return jax.nn.logsumexp(log_w.reshape(classes, -1), 0)[None]

    return importance_bound(log_weights, b, k)


def joint(parts: Parts, params: Params, state: State, batch: Batch) -> Joint:
    """Returns log p(z) and log p(x|z) = log sum_y p(y) p(x|y, z) of the examples of a batch."""
    x, classes = batch["x"], parts.classes
    b, y, tiled = x.shape[0], jnp.repeat(jnp.eye(classes), x.shape[0], 0), repeat(x, classes)

    def log_likelihood(z: jax.Array) -> jax.Array:
        # The class is summed out for a given z: a density over z alone, which samplers can move in.
        each = decode(parts, params, state, jnp.tile(z, (classes, 1)), cond=y).log_prob(tiled)
        return jax.nn.logsumexp(each.reshape(classes, b) + parts.log_p_y, 0)

    def sample_data(keys: jax.Array, z: jax.Array) -> dict[str, jax.Array]:
        # y ~ p(y), uniform; then x ~ p(x|y, z).
        label = jax.vmap(lambda key: jax.random.randint(prng.site_key(key, "class"), (), 0, classes))(keys)
        p_x = decode(parts, params, state, z, cond=one_hot(label[:, None], (classes,)))
        return {"x": p_x.sample(jax.vmap(lambda key: prng.site_key(key, "pixels"))(keys))}

    return Joint(parts.prior, log_likelihood, lambda keys: prng.normal(keys, (parts.config.latent_dim,)), sample_data)
