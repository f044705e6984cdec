"""What models with codes of quantizers share: their grids of codes, the loss, its terms, and what the log says of them.

A model of this kind says how vectors are inferred and what is decoded from them (`Parts`); all else is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from vae_jax import likelihoods, prng
from vae_jax.model import About, Aux, Batch, Context, Encoding, Metrics, Model, Params, State
from vae_jax.models import observed
from vae_jax.models.per_example import batch_mean
from vae_jax.networks import NETWORKS, Network
from vae_jax.options import needs
from vae_jax.options.needs import Need
from vae_jax.quantizers import Quantized, Quantizer
from vae_jax.spaces import Codes, Latents, leaves
from vae_jax.spec import DataSpec

MOST_SHARES = 1 << 20  # entries of a codebook of which each step sums all; evaluation counts those that occur


class Coded:
    """Base of the models whose network gives a grid of vectors, which a quantizer makes codes of."""

    features: int
    network: Network
    quantizer: Quantizer
    name: ClassVar[str]

    def check(self) -> None:
        """Raises InputError for components that do not go together."""
        needs.check({"network": self.network, "model": self}, {"network": NETWORKS, "model": {self.name: type(self)}})
        # All levels have vectors of one length, so that one check is enough.
        self.quantizer.check(self.features)

    def needs(self) -> tuple[Need, ...]:
        """Returns what its components must give."""
        # Without a grid there are no places, and one code would stand for the whole image.
        return (Need("network", ("grid code",)),)


@dataclass(frozen=True)
class Level:
    """One grid of codes.

    Attributes:
      quantizer: what makes codes of vectors.
      features: length D of the vectors.
      space: of the codes of one example, [h, w, L].
      name: of the level, "" where there is only one: after a stroke in the names of its metrics.
    """

    quantizer: Quantizer
    features: int
    space: Codes
    name: str = ""

    @property
    def part(self) -> str:
        """Where its parameters and its state are."""
        return f"quantizer_{self.name}" if self.name else "quantizer"

    def init(self, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the parameters and the state of the quantizer, both by the name of the part."""
        # Two names: parameters and state must not be drawn from the same bits.
        params = self.quantizer.init(prng.site_key(key, self.part), self.features)
        state = self.quantizer.init_state(prng.site_key(key, f"{self.part} state"), self.features)
        return {self.part: params}, {self.part: state}

    def quantize(
        self, params: Params, state: State, z: jax.Array, key: jax.Array | None, ctx: Context | None
    ) -> Quantized:
        """Returns what the quantizer makes of vectors [B, h, w, D].

        Args:
          params: of the model.
          state: of the model.
          z: vectors, of any compute type.
          key: of the noise of the batch; or keys [B], one per example, outside of a step; None for no noise.
          ctx: of the step; None outside of one.

        Returns:
          codes with leading axes [B, h, w].
        """
        mine, own = params["vae"].get(self.part, {}), state.get(self.part, {})
        # Distances in float32 whatever the networks compute in.
        z = jnp.asarray(z, jnp.float32)
        if key is None or not key.ndim:
            site = None if key is None else prng.site_key(key, self.part)
            return self.quantizer.quantize(mine, own, z, key=site, ctx=ctx)
        # Outside a step with nothing to draw: one call for the batch, without `vmap`.
        if not self.quantizer.draws:
            return self.quantizer.quantize(mine, own, z)

        def one(z: jax.Array, key: jax.Array) -> Quantized:
            return self.quantizer.quantize(mine, own, z[None], key=prng.site_key(key, self.part))

        # Each example with noise of its own key: there is no index of the batch that it could be of.
        return jax.tree.map(lambda leaf: leaf[:, 0], jax.vmap(one)(z, key)._replace(state={}))

    def embed(self, params: Params, state: State, indices: jax.Array) -> jax.Array:
        """Returns the entries [N, h, w, D] of indices [N, h, w, L]."""
        return self.quantizer.embed(params["vae"].get(self.part, {}), state.get(self.part, {}), indices)

    def metric(self, name: str) -> str:
        """Returns the name of a metric of this level."""
        return f"{name}/{self.name}" if self.name else name


def level(quantizer: Quantizer, features: int, grid: tuple[int, int], name: str = "") -> Level:
    """Puts a quantizer on a grid.

    Args:
      quantizer: what makes codes of vectors.
      features: length of the vectors.
      grid: (h, w).
      name: of the level, "" where there is only one.

    Returns:
      a grid of codes, of all codebooks side by side: [h, w, L].
    """
    # K of the space is that of the largest codebook; `sizes` has the others.
    sizes = quantizer.sizes
    return Level(quantizer, features, Codes((*grid, len(sizes)), max(sizes), sizes), name)


@dataclass(frozen=True)
class Parts:
    """The components of a model bound to the data; a subclass has the networks.

    Attributes:
      likelihood: p(x|z).
      latents: of one example: a space, or a tuple of them.
      levels: the grids of codes, in the order of `latents`.
    """

    likelihood: likelihoods.PixelLikelihood
    latents: Latents
    levels: tuple[Level, ...]

    def init(self, key: jax.Array, x: jax.Array) -> dict[str, Any]:
        """Returns the parameters of the networks by name, for data [1, *x.shape] as the encoder sees them."""
        raise TypeError(f"{type(self).__name__} must define init")

    def infer(
        self, params: Params, state: State, x: jax.Array, key: jax.Array | None = None, ctx: Context | None = None
    ) -> tuple[Quantized, ...]:
        """Returns what the quantizers of all levels make of data [B, *x.shape] as the encoder sees them.

        Args:
          params: of the model.
          state: of the model.
          x: data, 0 where they are missing.
          key: of the noise, as of `Level.quantize`.
          ctx: of the step; None outside of one.

        Returns:
          one `Quantized` for each level, with leading axes [B, h, w].
        """
        raise TypeError(f"{type(self).__name__} must define infer")

    def outputs(self, params: Params, vectors: Sequence[jax.Array]) -> jax.Array:
        """Returns what the decoder gives for vectors [N, h, w, D] of all levels, [N, *x.shape[:-1], outputs]."""
        raise TypeError(f"{type(self).__name__} must define outputs")

    def build(self, params: Params, state: State, vectors: Sequence[jax.Array]) -> Any:
        """Returns p(x|z) of vectors of all levels, outside training."""
        # The compute type of the networks ends here: densities are float32.
        out = jnp.asarray(self.outputs(params, vectors), jnp.float32)
        return self.likelihood.build(out, params["vae"].get("likelihood", {}), state.get("likelihood", {}))


def model(parts: Parts, spec: DataSpec) -> Model:
    """Returns the model of these parts: one parameter group, `vae`, and no prior of its own.

    Its loss is -log p(x|z) + the costs of the quantizers, summed over the grids.
    """
    about = About(
        spec, parts.latents, parts.likelihood, takes_mask=observed.takes(spec, parts.likelihood), takes_weight=True
    )
    return Model(
        init=partial(init, parts),
        loss=partial(loss, parts),
        terms=partial(terms, parts),
        encode=partial(encode, parts),
        decode=partial(decode, parts),
        about=about,
    )


def init(parts: Parts, key: jax.Array, batch: Batch) -> tuple[Params, State]:
    """Returns the parameters, in the one group `vae`, and the states of quantizers and likelihood."""
    # One example is enough for the shapes.
    first = batch["x"][:1]
    group = parts.init(key, parts.likelihood.seen(first)) | {"likelihood": parts.likelihood.params_for(first.shape[1:])}
    state = {"likelihood": parts.likelihood.init_state()}
    for one in parts.levels:
        params, running = one.init(key)
        group, state = group | params, state | running
    # Empty entries are left out, so that checkpoints hold no empty trees.
    return {"vae": {k: v for k, v in group.items() if v}}, {k: v for k, v in state.items() if v}


def per_image(x: jax.Array) -> jax.Array:
    """Returns the sums over the grid, [B, h, w] -> [B]."""
    return jnp.sum(x, (1, 2))


def rates(parts: Parts, found: Sequence[Quantized]) -> list[jax.Array]:
    """Returns the nats of each level's codes, [B] each: what its quantizer says, summed over the grid."""
    return [per_image(one.quantizer.rate(out)) for one, out in zip(parts.levels, found, strict=True)]


def loss(
    parts: Parts, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context
) -> tuple[jax.Array, Aux]:
    """Returns the mean of -log p(x|z) + cost, the new states, and what is logged."""
    (x, mask), likelihood, weight = observed.data(batch), parts.likelihood, batch.get("weight")
    # 1. Vectors, and what stands for them; averages of the codebooks move in training.
    found = parts.infer(params, state, likelihood.seen(x), key, ctx)
    vectors = [out.z for out in found]
    # 2. p(x|z), fitted to the batch where the likelihood does that.
    mine, running = params["vae"].get("likelihood", {}), state.get("likelihood", {})
    decoded = jnp.asarray(parts.outputs(params, vectors), jnp.float32)
    if ctx.train:
        p_x, new = observed.fit(likelihood, decoded, x, mine, running, ctx.axis_name, mask, weight)
    else:
        p_x, new = likelihood.build(decoded, mine, running), running
    # 3. Nats per example, summed over pixels and over the grids; only here is the batch mean taken.
    distortion = -observed.log_prob(p_x, x, mask)
    cost = sum(per_image(out.cost) for out in found)
    value = batch_mean(distortion + cost, len(x), "model.quantizer", weight)
    # The rate is no part of the loss but where a quantizer's cost is its KL; it is logged without that weight.
    rate = sum(rates(parts, found))
    metrics = {
        "loss": value,
        "elbo": -jnp.mean(distortion + rate),
        "distortion": jnp.mean(distortion),
        "rate": jnp.mean(rate),
        "mse": jnp.mean(observed.mean_error(likelihood.matched(p_x.mean(), x), x, mask)),
    }
    for one, out in zip(parts.levels, found, strict=True):
        metrics |= logged(one, out)
    # What wrappers read: the decoded vectors of all levels, flat and side by side.
    states = {one.part: out.state for one, out in zip(parts.levels, found, strict=True)} | {"likelihood": new}
    flat = jnp.concatenate([z.reshape(len(x), -1) for z in vectors], -1)
    return value, Aux({k: v for k, v in states.items() if v}, metrics, {"z": flat, "likelihood": p_x})


def logged(one: Level, out: Quantized) -> Metrics:
    """Returns what the log says of the codes of one level."""
    # Means over B, h and w; with several codebooks one number for each, [L].
    found = {
        "quantization_error": jnp.mean(out.error, (0, 1, 2)),
        **{f"quantizer/{name}": jnp.mean(per_image(term)) for name, term in out.terms.items()},
    }
    if one.space.codes <= MOST_SHARES:
        # Shares of the entries of each codebook, from which the log has usage and perplexity.
        found["code_share"] = shares(out.indices, one.quantizer.sizes)
    if one.name:
        # Of a single level it is the whole rate, which is there.
        found["rate"] = jnp.mean(per_image(one.quantizer.rate(out)))
    return {one.metric(name): value for name, value in found.items()}


def shares(indices: jax.Array, sizes: Sequence[int]) -> jax.Array:
    """Returns how often each entry of each codebook was chosen, float32 [L, K], K of the largest codebook.

    Args:
      indices: int32 [..., L].
      sizes: number of entries of each codebook, K_1 .. K_L.

    Returns:
      shares that sum to 1 over each codebook; -1 for the entries K_l .. K - 1 that codebook l does not have.
    """
    codes = max(sizes)
    # A scatter-add for each codebook: a one-hot array of all choices would be K times as large.
    flat = indices.reshape(-1, indices.shape[-1])
    counts = jax.vmap(lambda index: jnp.zeros(codes).at[index].add(1.0), 1)(flat)
    # Entries that a codebook lacks must not count as unused.
    exists = jnp.arange(codes)[None] < jnp.asarray(sizes)[:, None]
    return jnp.where(exists, counts / len(flat), -1.0)


def terms(parts: Parts, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context) -> Metrics:
    """Returns the terms of each example, as `Model.terms` says.

    Codes are drawn where the quantizer has a distribution over them: -(distortion + rate) is then one draw of the ELBO.
    """
    x, mask = observed.data(batch)
    # The noise of the loss, so that both tell one story.
    found = parts.infer(params, state, parts.likelihood.seen(x), key, ctx._replace(train=False))
    p_x = parts.build(params, state, [out.z for out in found])
    distortion, kl = -observed.log_prob(p_x, x, mask), rates(parts, found)
    error = observed.mean_error(parts.likelihood.matched(p_x.mean(), x), x, mask)
    # Of several levels the KL of each, a tree like the latents.
    made = {"elbo": -(distortion + sum(kl)), "distortion": distortion, "rate": sum(kl), "mse": error}
    if len(kl) > 1:
        made["kl"] = _tree(parts, kl)
    for one, out in zip(parts.levels, found, strict=True):
        # [B] of one codebook; of several one after the other, which are named by their numbers.
        by_book = tuple(jnp.mean(out.error[..., i], (1, 2)) for i in range(out.error.shape[-1]))
        made[one.metric("quantization_error")] = by_book[0] if len(by_book) == 1 else by_book
    return made


def encode(parts: Parts, params: Params, state: State, keys: jax.Array | None, batch: Batch) -> Encoding:
    """Returns indices, int32 [B, h, w, L] of each level; drawn only with keys, and where the quantizer draws."""
    # Without a context no codebook moves; without keys a quantizer takes the most probable entry.
    found = parts.infer(params, state, parts.likelihood.seen(observed.data(batch)[0]), keys)
    return Encoding(_tree(parts, [out.indices for out in found]))


def decode(parts: Parts, params: Params, state: State, z: Any, *, cond: jax.Array | None = None) -> Any:
    """Returns p(x|z) of indices [N, h, w, L] of each level."""
    del cond
    # Leaves come in the order of the levels, coarse to fine.
    indices = zip(parts.levels, jax.tree.leaves(z), strict=True)
    return parts.build(params, state, [one.embed(params, state, index) for one, index in indices])


def _tree(parts: Parts, values: Sequence[Any]) -> Any:
    """Returns one value for each level, of the structure of the latents."""
    assert len(leaves(parts.latents)) == len(values)
    return jax.tree.unflatten(jax.tree.structure(parts.latents), values)
