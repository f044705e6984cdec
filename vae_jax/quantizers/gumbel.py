"""Gumbel-softmax quantization: a categorical distribution over entries, relaxed in training (DALL-E's dVAE)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.distributions import concrete
from vae_jax.model import Context
from vae_jax.options.ranges import AtLeast, NotNegative, Positive, Steps
from vae_jax.quantizers import projection
from vae_jax.quantizers.base import Quantized, Quantizer, last, needed, square, trains
from vae_jax.quantizers.entropy import entropy


@dataclass(frozen=True)
class Gumbel(Quantizer):
    """Gumbel-softmax: q = sum_k y_k e_k, y ~ Concrete(logits(z), temperature) (arXiv:2102.12092, arXiv:1611.01144).

        cost = kl KL(p(k|z) || uniform) = kl (ln K - H(p(k|z)))   in nats per vector

    Outside training q is one entry: drawn from p(k|z) where there is a key, else that of the largest logit.
    """

    draws: ClassVar[bool] = True

    codes: Annotated[int, AtLeast(2)] = 512
    """Number of entries of the codebook, K."""
    kl: Annotated[float, NotNegative()] = 1.0
    """Weight of the KL to the uniform distribution; 1 is the ELBO."""
    temperature: Annotated[float, Positive()] = 1.0
    """Temperature of the relaxation at step 0."""
    final_temperature: Annotated[float, Positive()] = 0.0625
    """Temperature from `anneal_steps` on; on the way there it falls exponentially."""
    anneal_steps: Annotated[int, Steps(1)] = 10_000
    """Length of the annealing, in steps."""

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.codes,)

    def init(self, key: jax.Array, features: int) -> dict[str, Any]:
        # Small logits at the start: nearly uniform choices, with a gradient to every entry.
        weights = projection.uniform(prng.site_key(key, "logits"), features, self.codes)
        # Entries of unit variance, as the decoder's other inputs.
        book = jax.random.normal(prng.site_key(key, "codebook"), (self.codes, features))
        return {"logits": weights, "bias": jnp.zeros(self.codes), "codebook": book}

    def logits(self, params: Any, z: jax.Array) -> jax.Array:
        """Returns the logits of p(k|z), float32 [..., K]."""
        logits = z.astype(jnp.float32) @ params["logits"]
        return logits + last(params["bias"], logits)

    def quantize(
        self, params: Any, state: Any, z: jax.Array, *, key: jax.Array | None = None, ctx: Context | None = None
    ) -> Quantized:
        logits = self.logits(params, z)
        # The entry of the largest logit, and the KL of the whole distribution: no sample is in it.
        index = best = jnp.argmax(logits, -1).astype(jnp.int32)
        kl = math.log(self.codes) - entropy(jax.nn.softmax(logits, -1))
        if trains(ctx):
            assert ctx is not None
            at = concrete.annealed(ctx.step, self.temperature, self.final_temperature, self.anneal_steps)
            noise = self._noise(needed(key, "Gumbel noise"), ctx, logits)
            # A mixture of entries, which tends to one of them as the temperature falls; its gradient reaches all.
            q = jax.nn.softmax((logits + noise) / at, -1) @ params["codebook"]
        else:
            if key is not None:
                # The largest of logits and Gumbel noise is drawn with the probabilities p(k|z).
                index = jnp.argmax(logits + self._noise(key, ctx, logits), -1).astype(jnp.int32)
            q = params["codebook"][index]
        # How far what is decoded is from the most probable entry.
        error = square(jax.lax.stop_gradient(q - params["codebook"][best]))
        return Quantized(q, index[..., None], self.kl * kl, {"kl": kl}, error[..., None], state)

    def _noise(self, key: jax.Array, ctx: Context | None, logits: jax.Array) -> jax.Array:
        """Returns Gumbel noise of the shape of the logits [B, ..., K]."""
        # By example, so that it does not depend on the devices.
        index = jnp.arange(len(logits)) if ctx is None else ctx.index
        return concrete.gumbel(prng.example_keys(prng.site_key(key, "gumbel"), index), logits.shape[1:])

    def rate(self, out: Quantized) -> jax.Array:
        return out.terms["kl"]

    def embed(self, params: Any, state: Any, indices: jax.Array) -> jax.Array:
        del state
        return params["codebook"][indices[..., 0]]
