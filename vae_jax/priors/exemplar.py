"""The exemplar prior: a mixture of Gaussians around the codes of training images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from vae_jax import collectives
from vae_jax.distributions.gaussian import of_outputs
from vae_jax.distributions.mixture import GaussianMixture
from vae_jax.model import Context
from vae_jax.options.ranges import AtLeast, Positive
from vae_jax.priors.base import Links, Prior


@dataclass(frozen=True)
class Exemplar(Prior):
    """Exemplar VAE: 1/M sum_m N(z; mu(x_m), s^2 I), x_m training images, one trained s (arXiv:2004.04795).

    Departs from the paper: the exemplars are a ring buffer of the last M training images, all of them used, instead of
    the nearest neighbors in a cache of codes of the whole data set; after training the buffer stays as it is.
    Leave-one-out: a batch enters the buffer after it was scored, so that no image is its own exemplar, but for one
    that an epoch's end and the next one's start bring within M images of each other (choose M well below N).
    While the buffer is empty the prior is N(0, s^2 I), s = `std` at the start.
    """

    exemplars: Annotated[int, AtLeast(1)] = 500
    """Training images kept, M. Each is encoded at every step."""
    std: Annotated[float, Positive()] = 1.0
    """Standard deviation s at the start; it is trained."""

    encodes: ClassVar[bool] = True
    keeps_data: ClassVar[bool] = True
    averages: ClassVar[bool] = False

    def init(self, key: jax.Array, links: Links) -> dict[str, Any]:
        del key, links
        # One scalar for all components and dimensions.
        return {"log_std": jnp.asarray(math.log(self.std), jnp.float32)}

    def init_state(self, links: Links) -> dict[str, Any]:
        """Returns the buffer [M, H, W, C], how many images it holds, and the place of the next one (float32)."""
        # The counters stay below M, which float32 holds exactly.
        images = jnp.zeros((self.exemplars, *links.x_shape))
        return {"images": images, "count": jnp.zeros(()), "next": jnp.zeros(())}

    def distribution(self, params, state, links: Links) -> GaussianMixture:
        filled = jnp.arange(self.exemplars) < state["count"]
        # [M, D]: all exemplars pass through the present encoder, which gets a gradient from them.
        mean = links.posterior(state["images"]).mode()
        # An empty buffer: one component at the origin. Places not filled have weight 0, in words exp(-1e9), which
        # unlike -inf leaves no NaN in a gradient.
        mean = jnp.where(filled[:, None], mean, 0.0)
        # [M]: the places that count, each with the weight 1 / count.
        held = filled | ((jnp.arange(self.exemplars) == 0) & (state["count"] < 0.5))
        log_weights = jnp.where(held, -jnp.log(jnp.maximum(state["count"], 1.0)), -1e9)
        return GaussianMixture(log_weights, *of_outputs(mean, jnp.broadcast_to(2.0 * params["log_std"], mean.shape)))

    def fit(self, params, state, key, links: Links, ctx: Context) -> tuple[GaussianMixture, Any]:
        """Returns (the prior of the buffer as it was before this batch, the state with the batch in the buffer)."""
        del key
        assert links.x is not None
        # 1. Score under the old buffer. With the batch already in it, each code would be near its own exemplar and the
        #    rate would reward copying.
        p = self.distribution(params, state, links)
        # 2. The global batch goes in, so that every device holds the same buffer. A batch longer than the buffer is cut
        #    to its end: two images in one place would be written in no defined order.
        batch = jax.lax.stop_gradient(collectives.all_gather(links.x, ctx.axis_name))[-self.exemplars :]
        place = (state["next"] + jnp.arange(batch.shape[0])) % self.exemplars
        # 3. The ring: the oldest images are overwritten first.
        return p, {
            "images": state["images"].at[place.astype(jnp.int32)].set(batch),
            "count": jnp.minimum(state["count"] + batch.shape[0], self.exemplars),
            "next": (state["next"] + batch.shape[0]) % self.exemplars,
        }

    def sample(self, params, state, key, n: int, links: Links, temperature: float = 1.0) -> jax.Array:
        """Returns z ~ N(mu(x_m), (temperature * s)^2 I) with m uniform over the buffer, [n, D]."""
        return self.distribution(params, state, links).sample(key, n, temperature)
