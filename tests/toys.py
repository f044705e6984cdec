"""Toy models whose latents are no vectors: a grid [4, 4, 2], two levels with p(bottom|top), and indices [2, 2].

Written as a user's experiment file: `vae-jax train toys.py`, and `--model experiment:Levels` (or `Quantized`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax import distributions as dist
from vae_jax import prng, spaces
from vae_jax.config import Config
from vae_jax.data import DataConfig
from vae_jax.distributions import gaussian
from vae_jax.likelihoods import Bernoulli
from vae_jax.model import About, Aux, DensityFns, Encoding, Joint, Model, PriorFns
from vae_jax.models.importance import importance_bound
from vae_jax.options.ranges import Positive
from vae_jax.runs.config import Evaluation, Logging
from vae_jax.spaces import Codes, Latents, Real
from vae_jax.spec import DataSpec
from vae_jax.train import Optimizer

STANDARD = dist.DiagGaussian(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
GRID = Real((4, 4, 2))
LEVELS = {"bottom": Real((2, 2, 2)), "top": Real((3,))}
INDICES = Codes((2, 2), 5)


class Parts(NamedTuple):
    """What the functions of a toy share: latents, the shape of x, the compute type, and the scale of its weights."""

    latents: Latents
    shape: tuple[int, ...]
    dtype: Any
    scale: float

    @property
    def names(self) -> list[str]:
        """Names of the levels, in the order of jax.tree."""
        return sorted(self.latents) if isinstance(self.latents, dict) else ["z"]

    def dense(self, w: jax.Array, x: jax.Array) -> jax.Array:
        """Returns x @ w, float32 [B, n], computed in the compute type."""
        return jnp.asarray(jnp.asarray(x, self.dtype) @ jnp.asarray(w, self.dtype), jnp.float32)


def init(parts: Parts, key: jax.Array, batch: Any) -> tuple[dict, dict]:
    def weights(name: str, rows: int, columns: int) -> jax.Array:
        return parts.scale / math.sqrt(rows) * jax.random.normal(prng.site_key(key, name), (rows, columns))

    pixels, levels = math.prod(parts.shape), spaces.leaves(parts.latents)
    group = {name: weights(name, pixels, 2 * level.size) for name, level in zip(parts.names, levels, strict=True)}
    if len(levels) > 1:
        group["prior"] = weights("prior", levels[1].size, levels[0].size)
    return {"vae": group | {"decoder": weights("decoder", spaces.size(parts.latents), pixels)}}, {}


def infer(parts: Parts, params: Any, x: jax.Array) -> list[dist.DiagGaussian]:
    """Returns q(z|x) of each level, over vectors [B, n]."""
    flat = x.reshape(x.shape[0], -1)
    return [gaussian.of_outputs(*jnp.split(parts.dense(params["vae"][n], flat), 2, -1)) for n in parts.names]


def prior(parts: Parts, params: Any, z: Any) -> list[dist.DiagGaussian]:
    """Returns p of each level given those above it in z, over vectors: N(0, I), but p(bottom|top) = N(top W, I)."""
    if "prior" not in params["vae"]:
        return [STANDARD]
    mean = parts.dense(params["vae"]["prior"], z["top"])
    return [dist.DiagGaussian(mean, jnp.zeros_like(mean)), STANDARD]


def encode(parts: Parts, params: Any, state: Any, keys: Any, batch: Any) -> Encoding:
    qs = infer(parts, params, batch["x"])
    drawn = [q.mode() if keys is None else q.sample(prng.numbered_keys(keys, i)) for i, q in enumerate(qs)]
    structure = jax.tree.structure(parts.latents)
    return Encoding(spaces.shaped(parts.latents, jnp.concatenate(drawn, -1)), jax.tree.unflatten(structure, qs))


def decode(parts: Parts, params: Any, state: Any, z: Any, *, cond: Any = None) -> Any:
    # Latents alone, of their own shapes: a vector in their place is a fault of the caller.
    jax.tree.map(lambda space, leaf: leaf.reshape(-1, *space.shape).shape == leaf.shape or 1 / 0, parts.latents, z)
    out = parts.dense(params["vae"]["decoder"], spaces.vector(parts.latents, z))
    return Bernoulli().build(out.reshape(-1, *parts.shape), {}, {})


def terms(parts: Parts, params: Any, state: Any, key: jax.Array, batch: Any, ctx: Any) -> dict[str, Any]:
    keys = prng.example_keys(prng.site_key(key, "posterior"), ctx.index)
    z, q = encode(parts, params, state, keys, batch)
    kl = [dist.kl(*pair) for pair in zip(spaces.by_level(parts.latents, q), prior(parts, params, z), strict=True)]
    p_x, rates = decode(parts, params, state, z), [jnp.sum(one, -1) for one in kl]
    distortion, rate = -p_x.log_prob(batch["x"]), sum(rates)
    mse = jnp.mean(jnp.square(p_x.mean() - batch["x"]), axis=tuple(range(1, batch["x"].ndim)))
    found = {"elbo": -(distortion + rate), "distortion": distortion, "rate": rate, "mse": mse}
    # The rate of one level is a sum over its numbers; that of two is a tree like the latents.
    return found | ({"kl_per_dim": kl[0]} if len(kl) == 1 else {"kl": dict(zip(parts.names, rates))})


def loss(parts: Parts, params: Any, state: Any, key: jax.Array, batch: Any, ctx: Any) -> tuple[jax.Array, Aux]:
    found = terms(parts, params, state, key, batch, ctx)
    value = -jnp.mean(found["elbo"])
    return value, Aux(state, {"loss": value} | {name: jnp.mean(v, 0) for name, v in found.items() if name != "kl"})


def sample(parts: Parts, params: Any, state: Any, key: jax.Array, n: int, *, cond=None, temperature=1.0) -> Any:
    z = spaces.shaped(parts.latents, temperature * jax.random.normal(key, (n, spaces.size(parts.latents))))
    if isinstance(z, dict):
        z["bottom"] += prior(parts, params, z)[0].mean.reshape(z["bottom"].shape)
    return z


class Prior(NamedTuple):
    """p(z) over the vectors of all levels [B, n]."""

    parts: Parts
    params: Any

    def log_prob(self, v: jax.Array) -> jax.Array:
        z = spaces.shaped(self.parts.latents, v)
        vectors = [space.vector(leaf) for space, leaf in zip(spaces.leaves(self.parts.latents), jax.tree.leaves(z))]
        return sum(p.log_prob(v) for p, v in zip(prior(self.parts, self.params, z), vectors, strict=True))


def joint(parts: Parts, params: Any, state: Any, batch: Any) -> Joint:
    def p_x(v: jax.Array) -> Any:
        return decode(parts, params, state, spaces.shaped(parts.latents, v))

    def sample_prior(keys: jax.Array) -> jax.Array:
        draw = partial(sample, parts, params, state, n=1)
        return jax.vmap(lambda key: spaces.vector(parts.latents, draw(key=key))[0])(keys)

    of_z = STANDARD if len(parts.names) == 1 else Prior(parts, params)
    return Joint(of_z, lambda v: p_x(v).log_prob(batch["x"]), sample_prior, lambda keys, v: {"x": p_x(v).sample(keys)})


def bound(parts: Parts, params: Any, state: Any, key: jax.Array, batch: Any, ctx: Any, k: int) -> jax.Array:
    (q,), keys = infer(parts, params, batch["x"]), prng.example_keys(key, ctx.index)
    of_x = joint(parts, params, state, batch)

    def log_weights(numbers: jax.Array) -> jax.Array:
        z = q.sample(prng.numbered_keys(keys, numbers[0]))
        return (of_x.prior.log_prob(z) + of_x.log_likelihood(z) - q.log_prob(z))[None]

    return importance_bound(log_weights, batch["x"].shape[0], k)


def model_of(latents: Latents, spec: DataSpec, precision: str, scale: float) -> Model:
    """Returns a linear VAE of these latents. Only the grid has a bound on log p(x), and a unit of traversals."""
    parts = Parts(latents, spec.x.shape, jnp.dtype(precision), scale)
    single = not isinstance(latents, dict)
    return Model(
        *(partial(function, parts) for function in (init, loss, terms, encode, decode)),
        about=About(spec, latents, Bernoulli(), (0.0, 1.0) if single else None),
        prior=PriorFns(partial(sample, parts)),
        density=DensityFns(partial(bound, parts) if single else None, partial(joint, parts)),
    )


@dataclass(frozen=True)
class Grid:
    """A linear VAE with latents [4, 4, 2]."""

    scale: Annotated[float, Positive()] = 1.0
    """Scale of the first weights."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Compute type."""

    def build(self, spec: DataSpec) -> Model:
        return model_of(GRID, spec, self.precision, self.scale)


@dataclass(frozen=True)
class Levels:
    """A linear VAE with two levels of latents: [2, 2, 2] below, [3] above."""

    scale: Annotated[float, Positive()] = 1.0
    """Scale of the first weights."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Compute type."""

    def build(self, spec: DataSpec) -> Model:
        return model_of(LEVELS, spec, self.precision, self.scale)


@dataclass(frozen=True)
class Quantized:
    """A linear autoencoder whose code is 2 x 2 indices into a codebook of 5 entries, with a uniform prior."""

    def build(self, spec: DataSpec) -> Model:
        pixels, (places, entries) = math.prod(spec.x.shape), (INDICES.size, INDICES.codes)

        def init(key: jax.Array, batch: Any) -> tuple[dict, dict]:
            w = jax.random.normal(key, (2, pixels, places * entries)) / math.sqrt(pixels)
            return {"vae": {"encoder": w[0], "decoder": w[1].T}}, {}

        def scores(params: Any, x: jax.Array) -> jax.Array:
            return (x.reshape(x.shape[0], -1) @ params["vae"]["encoder"]).reshape(-1, places, entries)

        def of_rows(params: Any, rows: jax.Array) -> Any:
            """Returns p(x|z) of one-hot rows [B, places, entries]."""
            out = rows.reshape(rows.shape[0], -1) @ params["vae"]["decoder"]
            return Bernoulli().build(out.reshape(-1, *spec.x.shape), {}, {})

        def encode(params: Any, state: Any, keys: Any, batch: Any) -> Encoding:
            return Encoding(INDICES.shaped(jnp.argmax(scores(params, batch["x"]), -1)))

        def decode(params: Any, state: Any, z: Any, *, cond: Any = None) -> Any:
            return of_rows(params, jax.nn.one_hot(z.reshape(z.shape[0], -1), entries))

        def terms(params: Any, state: Any, key: jax.Array, batch: Any, ctx: Any) -> dict[str, Any]:
            soft = jax.nn.softmax(scores(params, batch["x"]))
            hard = jax.nn.one_hot(jnp.argmax(soft, -1), entries)
            p_x = of_rows(params, soft + jax.lax.stop_gradient(hard - soft))  # straight through
            distortion = -p_x.log_prob(batch["x"])
            rate = jnp.full_like(distortion, places * math.log(entries))
            mse = jnp.mean(jnp.square(p_x.mean() - batch["x"]), axis=tuple(range(1, batch["x"].ndim)))
            return {"elbo": -(distortion + rate), "distortion": distortion, "rate": rate, "mse": mse}

        def loss(params: Any, state: Any, key: jax.Array, batch: Any, ctx: Any) -> tuple[jax.Array, Aux]:
            found = terms(params, state, key, batch, ctx)
            value = -jnp.mean(found["elbo"])
            return value, Aux(state, {"loss": value} | {name: jnp.mean(v) for name, v in found.items()})

        def sample(params: Any, state: Any, key: jax.Array, n: int, *, cond=None, temperature=1.0) -> Any:
            return jax.random.randint(key, (n, *INDICES.shape), 0, entries)

        about = About(spec, INDICES, Bernoulli(), None)
        return Model(init, loss, terms, encode, decode, about=about, prior=PriorFns(sample))


def get_config() -> Config:
    return Config(
        model=Grid(),
        data=DataConfig("digits", batch_size=32),
        steps=30,
        optimizer=Optimizer(lr=1e-2),
        evaluation=Evaluation(limit=40),
        logging=Logging(tensorboard=False),
    )
