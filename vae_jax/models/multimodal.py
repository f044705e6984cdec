"""Two modalities, x and its label, of one code: inferred from either or both, and decoded to both.

`Multimodal.build` wires the functions below, in the order of the maths: the experts, the fused posterior and what its
samples say (`Evidence`), rate and weighted bound, the loss.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax import distributions as dist
from vae_jax import likelihoods, networks, posteriors, prng
from vae_jax.distributions import dense, experts
from vae_jax.errors import InputError, option
from vae_jax.model import (
    About,
    Aux,
    Batch,
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
from vae_jax.models.importance import importance_bound
from vae_jax.models.per_example import weighted_mean
from vae_jax.models.several import Several, check_several, decoded, encoded
from vae_jax.options.ranges import AtLeast, NotNegative
from vae_jax.spaces import Real
from vae_jax.spec import DataSpec


@dataclass(frozen=True)
class Multimodal(Several):
    """Image and label of one code; inferred from either or both: MVAE or MMVAE (arXiv:1802.05335, arXiv:1911.03393)."""

    latent_dim: Annotated[int, AtLeast(1)] = 20
    """Number of latent dimensions."""
    network: networks.Network = field(default_factory=networks.MLP)
    """Encoder and decoder of the image."""
    likelihood: likelihoods.PixelLikelihood = field(default_factory=likelihoods.Bernoulli)
    """Distribution of pixels given the code."""
    fusion: Literal["poe", "moe"] = "poe"
    """q(z|x, y): product of experts with the prior (MVAE), or their even mixture (MMVAE)."""
    bound: Literal["elbo", "iwae"] = "elbo"
    """What is maximized; iwae takes the log-mean of the `samples` of each expert."""
    samples: Annotated[int, AtLeast(1)] = 1
    """Samples of each expert per example."""
    label_weight: Annotated[float, NotNegative()] = 10.0
    """Weight of log p(y|z) in the loss: one label is little beside many pixels."""
    beta: Annotated[float, NotNegative()] = 1.0
    """Weight of the rate; 1 is the bound."""
    width: Annotated[int, AtLeast(1)] = 64
    """Hidden units of the label's encoder and decoder."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Compute type of the networks. Parameters, likelihoods and KL stay float32."""

    def check(self) -> None:
        """Raises InputError for components that cannot work together."""
        check_several(self, "multimodal")
        if self.bound == "iwae" and self.samples < 2:
            raise InputError(f"model.bound: iwae with one sample is the elbo; set {option('model.samples', 2)} or more")

    def build(self, spec: DataSpec) -> Model:
        """Returns the model: bounds on log p(x, y) = log int p(z) p(x|z) p(y|z) dz.

        poe: loss = -(ELBO(x, y) + ELBO(x) + ELBO(y)), so that each expert also learns to infer alone
        (arXiv:1802.05335, eq. 6).
        moe: loss = -1/M sum_m E_{q_m}[log p(x, y, z) - log 1/M sum q] (arXiv:1911.03393, eq. 3): stratified, every
        expert decodes both. Where only some examples are labeled, ELBO(x) is that of the others, the rest that of
        these.

        Args:
          spec: the data, with `spec.classes` labels.

        Returns:
          a Model with the parameter group `vae`. Codes are inferred from x alone; `elbo` and `density.bound` are of
          log p(x, y) where the batch has labels, else of log p(x).

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
            training=Training({"beta": self.beta}),
            prior=PriorFns(partial(sample, parts)),
            density=DensityFns(partial(bound, parts), partial(joint, parts)),
            condition=ConditionFns(partial(features, parts), "label", spec.classes, is_required=False),
        )


@dataclass(frozen=True)
class Parts:
    """The components bound to the data.

    Attributes:
      config: the components.
      classes: number of labels.
      encoder: module x -> the numbers that the expert q(z|x) is made of.
      decoder: module z -> the numbers that p(x|z) is made of.
      prior: p(z) = N(0, I), parameters [1, D].
    """

    config: Multimodal
    classes: int
    encoder: nn.Module
    decoder: nn.Module
    prior: dist.DiagGaussian


class Evidence(NamedTuple):
    """What samples z_mk of M experts say: nats [M, K, B].

    Attributes:
      log_x: log p(x|z); 0 where x is not given.
      log_y: log p(y|z); 0 where y is not given.
      ratio: log q(z|x, y) - log p(z).
      closed: the rate by dimension in closed form [B, D]; None for a mixture.
    """

    log_x: jax.Array
    log_y: jax.Array
    ratio: jax.Array
    closed: jax.Array | None


def bind(config: Multimodal, spec: DataSpec) -> Parts:
    """Returns the parts for these data; raises as `Multimodal.build`."""
    c, shape = config, spec.x.shape
    c.check()
    if not spec.classes:
        raise InputError("model: the label is its second modality, but the data have none; choose data with labels")
    spec.refuse_mask()
    c.network.check(spec.x)
    c = columns.bound(c, spec)
    dtype = jnp.dtype(c.precision)
    return Parts(
        c,
        spec.classes,
        c.network.encoder(2 * c.latent_dim, dtype),
        c.network.decoder((*shape[:-1], c.likelihood.outputs(shape[-1])), dtype),
        dist.DiagGaussian(*jnp.zeros((2, 1, c.latent_dim))),
    )


def init(parts: Parts, key: jax.Array, batch: Batch) -> tuple[Params, State]:
    """Returns the parameters, in the one group `vae`, and no running state."""
    c, classes = parts.config, parts.classes
    # One example is enough to shape the parameters. Sites by name: a new part leaves the others as they were.
    z = jnp.zeros((1, c.latent_dim))
    group = {
        "encoder": parts.encoder.init(prng.site_key(key, "encoder"), batch["x"][:1])["params"],
        "decoder": parts.decoder.init(prng.site_key(key, "decoder"), z)["params"],
        "label_encoder": dense.init(prng.site_key(key, "label_encoder"), (classes, c.width, 2 * c.latent_dim)),
        "label_decoder": dense.init(prng.site_key(key, "label_decoder"), (c.latent_dim, c.width, classes)),
        "likelihood": c.likelihood.params_for(batch["x"].shape[1:]),
    }
    # Empty entries are left out, so that checkpoints hold no empty trees.
    return {"vae": {k: v for k, v in group.items() if v}}, {}


def of_x(parts: Parts, params: Params, x: jax.Array) -> dist.DiagGaussian:
    """Returns the expert of the data."""
    return _gaussian(encoded(parts.encoder, params, "encoder", parts.config.likelihood.seen(x)))


def of_label(params: Params, y: jax.Array) -> dist.DiagGaussian:
    """Returns the expert of one-hot labels [B, classes]."""
    return _gaussian(dense.apply(params["vae"]["label_encoder"], y))


def _gaussian(out: jax.Array) -> dist.DiagGaussian:
    # Mean and bounded log variance, [B, D]. This posterior has neither parameters nor a schedule, so step 0 suffices.
    return posteriors.Diagonal().build({}, out, jnp.zeros((), jnp.int32), False)


def alone(parts: Parts, expert: dist.DiagGaussian) -> dist.DiagGaussian:
    """Returns q(z) given one modality."""
    # The product includes the prior, even with a single expert: the image alone is inferred as in training.
    return experts.product([expert]) if parts.config.fusion == "poe" else expert


def decode(parts: Parts, params: Params, state: State, z: jax.Array, *, cond: jax.Array | None = None) -> Any:
    """Returns p(x|z) of codes [N, D]; the label follows from the code, so that a condition changes nothing."""
    del state, cond
    return decoded(parts.decoder, parts.config.likelihood, params, z)


def log_labels(params: Params, z: jax.Array) -> jax.Array:
    """Returns log p(y|z) of every label, [N, classes]."""
    return jax.nn.log_softmax(dense.apply(params["vae"]["label_decoder"], z))


def evidence(
    parts: Parts, params: Params, keys: jax.Array, x: jax.Array | None, y: jax.Array | None, k: int
) -> Evidence:
    """Returns what the samples of q say of x and y; either may be missing.

    Args:
      parts: of the model.
      params: of the model.
      keys: one per example, [B].
      x: data [B, *x.shape], or None.
      y: one-hot labels [B, classes], or None.
      k: samples of each expert, K.

    Returns:
      nats [M, K, B]; M is 1 for a product of experts, else the number of modalities given.
    """
    c = parts.config
    # 1. The experts q(z|x) and q(z|y) of what is given, each [B, D].
    known = [of_x(parts, params, x)] if x is not None else []
    known += [of_label(params, y)] if y is not None else []
    # One source of samples for a product of experts, one per modality for a mixture.
    sources = (experts.product(known),) if c.fusion == "poe" else tuple(known)
    q = sources[0] if len(sources) == 1 else experts.Mixture(sources)
    # 2. z_mk ~ q_m, [M, K, B, D]. Stratified: every expert gives K samples, so no gradient has to pass through the
    #    choice of one.
    z = jnp.stack([_drawn(source, prng.numbered_keys(keys, m), k) for m, source in enumerate(sources)])
    # 3. Score what is given under every sample: one decoder pass over M * K * B rows.
    shape = z.shape[:3]
    count, flat = shape[0] * k, z.reshape(-1, c.latent_dim)
    log_x = log_y = jnp.zeros(shape)
    if x is not None:
        tiled = jnp.broadcast_to(x, (count, *x.shape)).reshape(-1, *x.shape[1:])
        log_x = decode(parts, params, {}, flat).log_prob(tiled).reshape(shape)
    if y is not None:
        # y is one-hot: the sum picks the log probability of the given label.
        log_y = jnp.sum(log_labels(params, flat) * jnp.tile(y, (count, 1)), -1).reshape(shape)
    # Samples of every expert are weighed by the whole of q.
    every = z.reshape(count, -1, c.latent_dim)
    # log q - log p in nats: of the mixture itself, not of the expert that drew the sample, or the bound would not hold.
    ratio = jax.vmap(lambda one: q.log_prob(one) - parts.prior.log_prob(one))(every).reshape(shape)
    # 4. One Gaussian has a closed-form rate, of less variance than log q - log p of its samples; a mixture has none.
    return Evidence(log_x, log_y, ratio, dist.kl(sources[0], parts.prior) if len(sources) == 1 else None)


def _drawn(source: dist.DiagGaussian, keys: jax.Array, k: int) -> jax.Array:
    """Returns k samples of one expert, [K, B, D]."""
    # Keys by the number of the sample: more samples change none of the first.
    return jax.vmap(source.sample)(prng.sample_keys(keys, jnp.arange(k)))


def rate(e: Evidence) -> jax.Array:
    """Returns KL(q || p) [B]: in closed form where there is one, else the mean over the samples."""
    # The mean over experts is the expectation under their even mixture.
    return jnp.mean(e.ratio, (0, 1)) if e.closed is None else jnp.sum(e.closed, -1)


def value(parts: Parts, e: Evidence, beta: jax.Array) -> jax.Array:
    """Returns the weighted bound [B] of the loss."""
    c = parts.config
    # Log-mean-exp over the K samples of an expert, then the mean over experts.
    if c.bound == "iwae":
        log_w = e.log_x + c.label_weight * e.log_y - beta * e.ratio
        return jnp.mean(jax.nn.logsumexp(log_w, 1) - jnp.log(c.samples), 0)
    return jnp.mean(e.log_x + c.label_weight * e.log_y, (0, 1)) - beta * rate(e)


def measures(e: Evidence) -> Metrics:
    """Returns elbo, distortion and rate [B], never weighted, and `kl_per_dim` where there is one."""
    # Nats of x and y together; `label_weight` and beta belong to the loss alone.
    distortion, spent = -jnp.mean(e.log_x + e.log_y, (0, 1)), rate(e)
    out = {"elbo": -(distortion + spent), "distortion": distortion, "rate": spent}
    return out if e.closed is None else out | {"kl_per_dim": e.closed}


def loss(
    parts: Parts, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context
) -> tuple[jax.Array, Aux]:
    """Returns the negative mean of the bounds, the state, and what is logged."""
    # 1. What is known. Where only some examples are labeled, each batch comes with as many pairs drawn from these.
    c, x, beta = parts.config, batch["x"], ctx.hyper["beta"]
    few = "paired_label" in batch and ctx.train
    known = (batch["paired_x"], batch["paired_label"]) if few else (x, batch.get("label"))
    y = None if known[1] is None else one_hot(known[1][:, None], (parts.classes,))
    if y is None and ctx.train:
        raise InputError("this model learns from labels, which these examples come without; add them")

    # A site per bound: the three of them draw independent noise.
    def bounded(site: str, x: jax.Array | None, y: jax.Array | None) -> tuple[jax.Array, Evidence]:
        e = evidence(parts, params, _site(key, site, ctx.index), x, y, c.samples)
        return value(parts, e, beta), e

    # 2. The bound of all that is given; of x alone in an evaluation without labels.
    total, whole = bounded("posterior", known[0], y)
    per_example = -total
    # Each modality alone, so that a missing one can be inferred without; of a mixture every expert has done so already.
    if y is not None and (few or c.fusion == "poe"):
        per_example -= bounded("image", x, None)[0]
    if y is not None and c.fusion == "poe":
        per_example -= bounded("label", None, y)[0]
    # 3. The only batch mean, and what is logged: moments of the code, from which active units are counted.
    loss = weighted_mean(per_example, batch.get("weight"))
    code = alone(parts, of_x(parts, params, x)).mean
    metrics = {name: jnp.mean(v, 0) for name, v in measures(whole).items()}
    moments = {"code_mean": jnp.mean(code, 0), "code_square": jnp.mean(jnp.square(code), 0)}
    if y is not None:
        metrics["distortion_label"] = -jnp.mean(whole.log_y)
    return loss, Aux(state, metrics | moments | {"loss": loss, "beta": beta})


def terms(parts: Parts, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context) -> Metrics:
    """Returns the terms of each example; of x and label where the batch has labels, with what crosses between them.

    Where a label is -1, terms of x and label are NaN.
    """
    x, label = batch["x"], batch.get("label")
    # 1. The bound, and its terms per example.
    keys = _site(key, "posterior", ctx.index)
    y = None if label is None else one_hot(label[:, None], (parts.classes,))
    whole = evidence(parts, params, keys, x, y, parts.config.samples)
    # 2. Reconstruction from the image alone, at the mean code.
    code = alone(parts, of_x(parts, params, x)).mean
    error = jnp.square(decode(parts, params, state, code).mean() - x)
    out = measures(whole) | {"mse": jnp.mean(error, axis=tuple(range(1, x.ndim)))}
    if label is None or y is None:
        return out
    # x to label; and label to x, then back by the own expert of x.
    out["distortion_label"] = -jnp.mean(whole.log_y, (0, 1))
    out["accuracy"] = jnp.asarray(jnp.argmax(log_labels(params, code), -1) == label, jnp.float32)
    # Coherence: an image generated from the label is inferred again, and its label compared.
    inferred = alone(parts, of_label(params, y)).sample(_site(key, "coherence", ctx.index))
    made = decode(parts, params, state, inferred).mean()
    found = jnp.argmax(log_labels(params, alone(parts, of_x(parts, params, made)).mean), -1)
    out["coherence"] = jnp.asarray(found == label, jnp.float32)
    # Of an unknown label (-1) nothing but the error of x has a value: a bound on log p(x) is none on log p(x, y).
    return {name: v if name == "mse" else _where_known(label, v) for name, v in out.items()}


def _where_known(label: jax.Array, value: jax.Array) -> jax.Array:
    """Returns values [B, ...], NaN where the label [B] is unknown."""
    return jnp.where((label < 0).reshape(-1, *(1,) * (value.ndim - 1)), jnp.nan, value)


def encode(parts: Parts, params: Params, state: State, keys: jax.Array | None, batch: Batch) -> Encoding:
    """Returns codes inferred from x alone."""
    del state
    q = alone(parts, of_x(parts, params, batch["x"]))
    return Encoding(q.mode() if keys is None else q.sample(keys), q)


def features(parts: Parts, params: Params, state: State, batch: Batch) -> jax.Array:
    """Returns the label, one-hot; zeros where it is missing."""
    del params, state
    if "label" not in batch:
        return jnp.zeros((batch["x"].shape[0], parts.classes))
    return one_hot(batch["label"][:, None], (parts.classes,))


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
    """Returns z ~ q(z|y) for one-hot rows of cond, z ~ p(z) for rows of zeros and without cond, [n, D]."""
    del state
    # The prior in every row; rows with a label are replaced by q(z|y).
    q = dist.DiagGaussian(*jnp.zeros((2, n, parts.config.latent_dim)))
    if cond is not None:
        given = jnp.sum(cond, -1, keepdims=True) > 0
        q = jax.tree.map(lambda a, b: jnp.where(given, a, b), alone(parts, of_label(params, cond)), q)
    # The temperature scales the standard deviation of either.
    noise = jax.random.normal(key, (n, parts.config.latent_dim))
    return q.mean + temperature * jnp.exp(0.5 * q.log_var) * noise


def bound(parts: Parts, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context, k: int) -> jax.Array:
    """Returns the bound from k samples of each expert of a mixture, each weighed by the whole of it, [B]."""
    del state
    keys, label = _site(key, "importance", ctx.index), batch.get("label")
    y = None if label is None else one_hot(label[:, None], (parts.classes,))

    # K = 1 of each expert per number: M samples with the mixture as proposal, whose weights are averaged.
    def log_weights(number: jax.Array) -> jax.Array:
        e = evidence(parts, params, prng.numbered_keys(keys, number[0]), batch["x"], y, 1)
        log_w = e.log_x + e.log_y - e.ratio
        return (jax.nn.logsumexp(log_w, (0, 1)) - jnp.log(log_w.shape[0]))[None]

    found = importance_bound(log_weights, batch["x"].shape[0], k)
    return found if label is None else _where_known(label, found)


def joint(parts: Parts, params: Params, state: State, batch: Batch) -> Joint:
    """Returns log p(z) and log p(x|z) + log p(y|z) of the examples of a batch, of x alone without labels."""
    label = batch.get("label")

    def log_likelihood(z: jax.Array) -> jax.Array:
        # The condition is observed, not conditioned on: log p(x|z) + log p(y|z) [B].
        log_x = decode(parts, params, state, z).log_prob(batch["x"])
        if label is None:
            return log_x
        return log_x + jnp.sum(log_labels(params, z) * one_hot(label[:, None], (parts.classes,)), -1)

    def sample_data(keys: jax.Array, z: jax.Array) -> dict[str, jax.Array]:
        # x and y are independent given z; sites apart keep their noise so.
        pixels, classed = (jax.vmap(lambda key, n=n: prng.site_key(key, n))(keys) for n in ("pixels", "class"))
        found = {"x": decode(parts, params, state, z).sample(pixels)}
        if label is None:
            return found
        return found | {"label": jax.vmap(jax.random.categorical)(classed, log_labels(params, z))}

    return Joint(parts.prior, log_likelihood, lambda keys: prng.normal(keys, (parts.config.latent_dim,)), sample_data)


def _site(key: jax.Array, name: str, index: jax.Array) -> jax.Array:
    """Returns one key per example for the named use."""
    return prng.example_keys(prng.site_key(key, name), index)
