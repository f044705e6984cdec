"""Discrete posteriors: categorical and binary codes, relaxed in training where the gradient is pathwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import jax

from vae_jax.distributions import concrete
from vae_jax.distributions.categorical import IndependentBernoulli, OneHotCategorical
from vae_jax.options.ranges import AtLeast, Each, Positive, Steps
from vae_jax.posteriors.base import Posterior
from vae_jax.spaces import Bits, OneHot, Space


@dataclass(frozen=True)
class Relaxed(Posterior):
    """Base of the posteriors that need a relaxation for pathwise gradients."""

    relaxation: Literal["gumbel", "straight-through", "none"] = "gumbel"
    """How training samples carry gradients: relaxed (Concrete), exact with the gradient of the relaxed sample, or not
    at all. Score-function estimators (reinforce, rloo, ...) draw exact samples and need none."""
    temperature: Annotated[float, Positive()] = 1.0
    """Temperature of the relaxation at step 0."""
    final_temperature: Annotated[float, Positive()] = 0.5
    """Temperature from `anneal_steps` on; the way there is exponential."""
    anneal_steps: Annotated[int, Steps(1)] = 10_000
    """Length of the annealing, in steps."""

    @property
    def reparameterized(self) -> bool:
        return self.relaxation != "none"

    def at(self, step: jax.Array, train: bool) -> tuple[jax.Array | None, bool]:
        """Returns (temperature at this step, None for exact samples; whether samples are straight-through)."""
        # Evaluation reads exact codes: on relaxed ones the bound would be that of another model.
        if not train or self.relaxation == "none":
            return None, False
        # A traced scalar: annealing compiles nothing anew.
        temperature = concrete.annealed(step, self.temperature, self.final_temperature, self.anneal_steps)
        return temperature, self.relaxation == "straight-through"


@dataclass(frozen=True)
class Categorical(Relaxed):
    """Categorical codes by Gumbel-softmax: `latent_dim` variables of `categories` values each (arXiv:1611.01144)."""

    categories: Annotated[int, Each(AtLeast(2), "2 or more values per variable", some=True)] = 10
    """Values of each variable."""

    # z is G one-hot vectors in a row, [B, G * K]; the KL has one entry per variable, [B, G].
    space: ClassVar[type[Space]] = OneHot
    factorized: ClassVar[bool] = True

    def outputs(self, latent_dim: int) -> int:
        return latent_dim * self.categories

    def code_dim(self, latent_dim: int) -> int:
        return latent_dim * self.categories

    def blocks(self, latent_dim: int) -> tuple[int, ...]:
        return (self.categories,) * latent_dim

    def latents(self, latent_dim: int) -> OneHot:
        return OneHot((self.code_dim(latent_dim),), self.blocks(latent_dim))

    def build(self, params, out, step, train) -> OneHotCategorical:
        del params
        # Logits [B, G, K], of any normalization.
        return OneHotCategorical(out.reshape(out.shape[0], -1, self.categories), *self.at(step, train))


@dataclass(frozen=True)
class Binary(Relaxed):
    """Binary codes by the binary Concrete relaxation: `latent_dim` Bernoulli variables (arXiv:1611.00712)."""

    # z is 0 or 1 in each of D entries; the KL is by entry, [B, D].
    space: ClassVar[type[Space]] = Bits
    factorized: ClassVar[bool] = True

    def outputs(self, latent_dim: int) -> int:
        return latent_dim

    def build(self, params, out, step, train) -> IndependentBernoulli:
        del params
        # Logits of a 1, [B, D].
        return IndependentBernoulli(out, *self.at(step, train))
