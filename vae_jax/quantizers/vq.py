"""Vector quantization: the nearest entry of a learned codebook."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from vae_jax import collectives, prng
from vae_jax.model import Context
from vae_jax.options.ranges import AtLeast, Between, NotNegative
from vae_jax.quantizers import averages, projection, shards
from vae_jax.quantizers.base import Quantized, Quantizer, needed, square, trains, unit
from vae_jax.quantizers.entropy import entropy_gap
from vae_jax.quantizers.estimators import Estimator, estimate
from vae_jax.quantizers.kmeans import kmeans, picked
from vae_jax.quantizers.nearest import nearest


@dataclass(frozen=True)
class VQ(Quantizer):
    """VQ: q = e_k, k = argmin_j |z - e_j|, with a codebook of K entries (arXiv:1711.00937).

        cost = commitment |z - sg(q)|^2 + [codebook: gradient] |sg(z) - q|^2

    Both are sums over coordinates, per vector. With `update="ema"` no gradient reaches the codebook: each entry is the
    moving average of the vectors that chose it (ibid., appendix A.1).
    """

    codes: Annotated[int, AtLeast(2)] = 512
    """Number of entries of the codebook, K."""
    update: Literal["ema", "gradient"] = "ema"
    """How entries move: to the moving average of the vectors that chose them, or by the gradient of the loss."""
    decay: Annotated[float, Between(0, 1, "[)")] = 0.99
    """Decay of the moving averages; 0 takes each batch alone, one step of Lloyd's algorithm."""
    commitment: Annotated[float, NotNegative()] = 0.25
    """Weight of |z - sg(q)|^2, which holds the encoder to its entries."""
    estimator: Estimator = "straight-through"
    """Gradient to z: that of q, or that of q turned back by the rotation from z to q."""
    normalized: bool = False
    """Compare directions: vectors and entries are divided by their length (arXiv:2110.04627)."""
    inner: Annotated[int, NotNegative()] = 0
    """Length of the vectors that are compared, projected from those of the model; 0 for no projection."""
    kmeans: Annotated[int, NotNegative()] = 0
    """Steps of k-means on the first batch, where the codebook starts; 0 for a random one."""
    revive: Annotated[float, NotNegative()] = 0.0
    """Replace entries that are chosen less often than so many times per batch, by vectors of the batch; 0 for never."""
    entropy: Annotated[float, NotNegative()] = 0.0
    """Weight of E[H(k|z)] - H(k), which is least where choices are sure and all entries are used."""
    epsilon: Annotated[float, NotNegative()] = 0.0
    """Laplace smoothing of the averages' counts; other libraries have 1e-5."""

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.codes,)

    @property
    def _moves(self) -> bool:
        """Whether the codebook moves other than by the gradient."""
        return self.update == "ema" or self.kmeans > 0 or self.revive > 0

    @property
    def averages(self) -> bool:
        return not self._moves

    def init(self, key: jax.Array, features: int) -> dict[str, Any]:
        # Sites by name: with or without a projection the codebook starts at the same numbers.
        width = self.inner or features
        params = projection.init(prng.site_key(key, "projection"), features, width)
        if self.update == "gradient":
            params["codebook"] = self._start(key, width)
        return params

    def init_state(self, key: jax.Array, features: int) -> dict[str, Any]:
        width = self.inner or features
        # Only what the options need, so that checkpoints hold nothing that never moves.
        state: dict[str, Any] = {}
        if self.update == "ema":
            state["codebook"] = self._start(key, width)
        elif self._moves:
            # What k-means and revival add to a codebook that the optimizer owns.
            state["offset"] = jnp.zeros((self.codes, width))
        if self._moves:
            state["average"] = averages.init(self.codes, width)
        return state

    def _start(self, key: jax.Array, width: int) -> jax.Array:
        limit = math.sqrt(3 / width)  # variance 1 / D, so that entries have length 1 or so
        book = jax.random.uniform(prng.site_key(key, "codebook"), (self.codes, width), minval=-limit, maxval=limit)
        return self._unit(book)

    def _unit(self, x: jax.Array) -> jax.Array:
        return unit(x) if self.normalized else x

    def entries(self, params: Any, state: Any) -> jax.Array:
        """Returns the codebook [K, inner], with the gradient that it may have."""
        if self.update == "ema":
            return jax.lax.stop_gradient(state["codebook"])
        # The optimizer owns the parameter; what k-means and revival change is added to it, and has no gradient.
        return self._unit(params["codebook"] + state.get("offset", 0.0))

    def embed(self, params: Any, state: Any, indices: jax.Array) -> jax.Array:
        return projection.out(params, shards.take(self.entries(params, state), indices[..., 0]))

    def quantize(
        self, params: Any, state: Any, z: jax.Array, *, key: jax.Array | None = None, ctx: Context | None = None
    ) -> Quantized:
        # 1. Into the space of the codes, float32; directions only where these are compared.
        inner = self._unit(projection.into(params, z))
        if trains(ctx) and self.kmeans:
            assert ctx is not None
            state = self._started(prng.site_key(needed(key, "k-means"), "kmeans"), params, state, inner, ctx)
        # 2. The nearest entry, and the terms of the loss, sums over coordinates [...].
        book = self.entries(params, state)
        index, q, terms = choose(inner, book, learned=self.update == "gradient")
        cost = self.commitment * terms["commitment"] + terms.get("codebook", 0.0)
        if self.entropy:
            terms["entropy"] = entropy_gap(inner, book, ctx)
            cost += self.entropy * terms["entropy"]
        # 3. The values of q with a gradient to z, and none to the codebook: its own terms move it.
        fixed = jax.lax.stop_gradient(q)
        out = projection.out(params, estimate(self.estimator, inner, fixed))
        # 4. Averages of this batch; the entries above are those from before it.
        if trains(ctx) and self._moves:
            assert ctx is not None
            state = self._moved(key, params, state, jax.lax.stop_gradient(inner), index, ctx)
        return Quantized(out, index[..., None], cost, terms, square(inner - fixed)[..., None], state)

    def _placed(self, params: Any, state: Any, entries: jax.Array) -> dict[str, Any]:
        """Returns the state in which the codebook is `entries`."""
        if self.update == "ema":
            return state | {"codebook": entries}
        # Parameters are not this function's to change: the difference is kept beside them.
        return state | {"offset": jax.lax.stop_gradient(entries - params["codebook"])}

    def _started(self, key: jax.Array, params: Any, state: Any, z: jax.Array, ctx: Context) -> dict[str, Any]:
        """Returns the state with the centers of the first batch as the codebook; later, the state."""
        flat = collectives.all_gather(jax.lax.stop_gradient(z).reshape(-1, z.shape[-1]), ctx.axis_name)

        def first(state: Any) -> Any:
            return self._placed(params, state, self._unit(kmeans(key, flat, self.codes, self.kmeans)))

        # One program for all steps; only the first one pays for k-means.
        return jax.lax.cond(state["average"]["steps"] == 0, first, lambda state: state, state)

    def _moved(
        self, key: jax.Array | None, params: Any, state: Any, z: jax.Array, index: jax.Array, ctx: Context
    ) -> dict[str, Any]:
        """Returns the state after a batch: new averages, entries at them, and dead entries revived."""
        flat = z.reshape(-1, z.shape[-1])  # [N, D], as the sums do not care where a vector stands
        # Counts and sums of the global batch, so that every device makes the same step.
        counts, totals = averages.sums(flat, index.reshape(-1), self.codes, ctx.axis_name)
        average = averages.update(state["average"], counts, totals, self.decay)
        state = state | {"average": average}
        if self.update == "ema":
            state["codebook"] = self._unit(averages.means(average, state["codebook"], self.decay, self.epsilon))
        if not self.revive:
            return state
        # Which entries are dead, and what they become, is decided from the global batch: the same on all devices.
        site = prng.site_key(needed(key, "revival"), "revival")
        dead = averages.sizes(average, self.decay) < self.revive
        chosen = picked(site, collectives.all_gather(flat, ctx.axis_name), self.codes)
        book = jnp.where(dead[:, None], chosen, self.entries(params, state))
        # A revived entry counts as one in use, so that it is not replaced again before it could be chosen.
        state = self._placed(params, state, jax.lax.stop_gradient(book))
        return state | {"average": averages.reset(average, dead, chosen, self.revive, self.decay)}


def choose(z: jax.Array, book: jax.Array, *, learned: bool) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Returns the nearest entries and the terms that pull vectors and entries together.

    Args:
      z: vectors [..., D].
      book: entries [K, D].
      learned: whether the gradient moves the codebook, so that there is a term `codebook`.

    Returns:
      indices int32 [...]; entries [..., D] with the gradient of the codebook; and the terms, `commitment`
      |z - sg(q)|^2, whose gradient reaches the vectors alone, and `codebook` |sg(z) - q|^2, whose gradient reaches the
      entries alone.
    """
    # The search sees no gradient; that of the entry comes from taking it out of the codebook.
    index = nearest(z, book)
    q = shards.take(book, index)
    terms = {"commitment": square(z - jax.lax.stop_gradient(q))}
    if learned:
        terms["codebook"] = square(jax.lax.stop_gradient(z) - q)
    return index, q, terms
