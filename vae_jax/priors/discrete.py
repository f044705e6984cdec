"""Priors of discrete codes. How z is divided into one-hot vectors comes from the posterior, through `links.blocks`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.distributions.categorical import IndependentBernoulli, Joint, OneHotCategorical
from vae_jax.distributions.gaussian import DiagGaussian
from vae_jax.options.ranges import Between
from vae_jax.priors.base import Links, Prior
from vae_jax.spaces import Bits, Mixed, OneHot, Space


@dataclass(frozen=True)
class UniformCategorical(Prior):
    """Every value of every categorical variable is as likely: log p(z) = -G ln K (arXiv:1611.01144)."""

    space: ClassVar[type[Space]] = OneHot
    factorized: ClassVar[bool] = True

    def distribution(self, params, state, links: Links) -> OneHotCategorical:
        del params, state
        # Equal logits [1, G, K]. All variables of this posterior have the same number of values.
        return OneHotCategorical(jnp.zeros((1, len(links.blocks), links.blocks[0])))

    def sample(self, params, state, key, n: int, links: Links, temperature: float = 1.0) -> jax.Array:
        """Returns one-hot codes [n, D]; a uniform mass is the same at every temperature."""
        del temperature
        return _draw(self.distribution(params, state, links).logits, key, n)


@dataclass(frozen=True)
class BernoulliPrior(Prior):
    """Independent binary variables of one probability (arXiv:1611.00712)."""

    p: Annotated[float, Between(0, 1, "()")] = 0.5
    """Probability of a 1."""

    space: ClassVar[type[Space]] = Bits
    factorized: ClassVar[bool] = True

    def distribution(self, params, state, links: Links) -> IndependentBernoulli:
        del params, state
        # logit(p) in every entry, [1, D].
        return IndependentBernoulli(jnp.full((1, links.code_dim), math.log(self.p) - math.log1p(-self.p)))

    def sample(self, params, state, key, n: int, links: Links, temperature: float = 1.0) -> jax.Array:
        """Returns binary codes [n, D] with probability sigmoid(logit(p) / temperature)."""
        # Toward temperature 0 only the more probable value is left, toward infinity a fair coin. A temperature of 0 is
        # read as .001, or equal probabilities would be 0 / 0.
        logits = self.distribution(params, state, links).logits / jnp.maximum(temperature, 1e-3)
        return (jax.random.uniform(key, (n, links.code_dim)) < jax.nn.sigmoid(logits)).astype(jnp.float32)


@dataclass(frozen=True)
class JointPrior(Prior):
    """N(0, I) of the real variables, uniform over the categorical ones (arXiv:1804.00104)."""

    space: ClassVar[type[Space]] = Mixed
    factorized: ClassVar[bool] = True

    def unit(self) -> tuple[float, float]:
        return 0.0, 1.0

    def distribution(self, params, state, links: Links) -> Joint:
        del params, state
        # A block of length 1 is a real number, a longer one a one-hot vector; real ones come first.
        sizes = [k for k in links.blocks if k > 1]
        zeros = jnp.zeros((1, len(links.blocks) - len(sizes)))
        return Joint(DiagGaussian(zeros, zeros), tuple(OneHotCategorical(jnp.zeros((1, 1, k))) for k in sizes))

    def sample(self, params, state, key, n: int, links: Links, temperature: float = 1.0) -> jax.Array:
        """Returns codes [n, D]; `temperature` scales the standard deviation of the real variables."""
        p = self.distribution(params, state, links)
        shape = (n, p.gaussian.mean.shape[-1])
        # A site per variable: another variable at the end changes none of the other draws.
        drawn = [temperature * jax.random.normal(prng.site_key(key, "gaussian"), shape)]
        for i, part in enumerate(p.categorical):
            drawn.append(_draw(part.logits, prng.site_key(key, f"categorical {i}"), n))
        return jnp.concatenate(drawn, -1)


def _draw(logits: jax.Array, key: jax.Array, n: int) -> jax.Array:
    """Returns n codes [n, G * K] of the categorical variables with logits [1, G, K]."""
    _, variables, size = logits.shape
    # Exact draws: a relaxation is for posteriors in training only.
    values = jax.random.categorical(key, logits, shape=(n, variables))
    return jax.nn.one_hot(values, size, dtype=jnp.float32).reshape(n, -1)
