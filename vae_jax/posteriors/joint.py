"""Real and categorical latent variables side by side."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Annotated, ClassVar

import jax.numpy as jnp

from vae_jax.distributions.categorical import Joint, OneHotCategorical
from vae_jax.distributions.gaussian import of_outputs
from vae_jax.options.ranges import AtLeast, Each
from vae_jax.posteriors.discrete import Relaxed
from vae_jax.spaces import Mixed, Space


@dataclass(frozen=True)
class JointPosterior(Relaxed):
    """JointVAE: `latent_dim` Gaussian variables and a list of categorical ones (arXiv:1804.00104)."""

    categories: Annotated[tuple[int, ...], Each(AtLeast(2), "2 or more values per variable", some=True)] = (10,)
    """Values of each categorical variable, one number per variable."""

    space: ClassVar[type[Space]] = Mixed
    factorized: ClassVar[bool] = True

    def outputs(self, latent_dim: int) -> int:
        return 2 * latent_dim + sum(self.categories)

    def code_dim(self, latent_dim: int) -> int:
        return latent_dim + sum(self.categories)

    def blocks(self, latent_dim: int) -> tuple[int, ...]:
        return (1,) * latent_dim + self.categories

    def latents(self, latent_dim: int) -> Mixed:
        return Mixed((self.code_dim(latent_dim),), self.blocks(latent_dim))

    def build(self, params, out, step, train) -> Joint:
        del params
        # Layout of the encoder outputs: [means D | log variances D | logits of each categorical variable].
        total = out.shape[-1] - sum(self.categories)
        mean, log_var = jnp.split(out[:, :total], 2, axis=-1)
        edges = accumulate(self.categories, initial=total)
        # One [B, 1, K_i] per variable: sizes differ, so they cannot share an array.
        parts = [OneHotCategorical(out[:, None, a:b], *self.at(step, train)) for a, b in pairwise(edges)]
        return Joint(of_outputs(mean, log_var), tuple(parts))
