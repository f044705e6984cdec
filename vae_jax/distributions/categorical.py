"""Discrete codes: one-hot vectors, binary vectors, and real numbers beside one-hot vectors.

With a `temperature` the samples are relaxed and carry gradients; without, they are exact. `log_prob` is the mass of
the discrete code in both cases: exact at its values, linear in between.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.distributions import concrete, gaussian
from vae_jax.distributions.gaussian import DiagGaussian
from vae_jax.distributions.special import cross_entropy

TINY = 1e-30  # variance of a value that is certain: its logarithm is written to files


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OneHotCategorical:
    """G independent variables of K values each; z is their one-hot vectors in a row, [..., G * K].

    Attributes:
      logits: [..., G, K], of any normalization.
      temperature: of the Gumbel-softmax relaxation, scalar; None for exact samples.
      straight: relaxed samples are one-hot in the forward pass (straight-through).

    Example:
      >>> q = OneHotCategorical(jnp.zeros((1, 1, 4)))
      >>> round(float(q.log_prob(jnp.array([[0.0, 1.0, 0.0, 0.0]]))[0]), 4)  # ln 1/4
      -1.3863
      >>> q.expectation().tolist()
      [[[0.25, 0.25, 0.25, 0.25]]]
    """

    logits: jax.Array
    temperature: jax.Array | None = None
    straight: bool = field(default=False, metadata={"static": True})

    def _flat(self, z: jax.Array) -> jax.Array:
        return z.reshape(*z.shape[:-2], -1)

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns z ~ q [B, G * K], from one key per example (Gumbel-max)."""
        noisy = self.logits + concrete.gumbel(keys, self.logits.shape[1:])
        if self.temperature is None:
            return self._flat(concrete.one_hot_mode(noisy))
        soft = jax.nn.softmax(noisy / self.temperature)
        return self._flat(concrete.straight_through(concrete.one_hot_mode(noisy), soft) if self.straight else soft)

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Returns sum_g log q(z_g) in nats [...]."""
        values = z.reshape(*z.shape[:-1], *self.logits.shape[-2:])
        return jnp.sum(values * jax.nn.log_softmax(self.logits), (-2, -1))

    def sample_and_log_prob(self, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns z [B, G * K] and log q(z) [B]."""
        z = self.sample(keys)
        return z, self.log_prob(z)

    def mode(self) -> jax.Array:
        """Returns the most probable code, [..., G * K]."""
        return self._flat(concrete.one_hot_mode(self.logits))

    def expectation(self) -> jax.Array:
        """Returns E[z] by variable, the probabilities [..., G, K]."""
        return jax.nn.softmax(self.logits)

    def variance(self) -> jax.Array:
        """Returns p (1 - p) of each entry, [..., G * K]."""
        p = jax.nn.softmax(self.logits)
        return jnp.maximum(self._flat(p * (1.0 - p)), TINY)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class IndependentBernoulli:
    """D independent binary variables.

    Attributes:
      logits: [..., D].
      temperature: of the binary Concrete relaxation, scalar; None for exact samples.
      straight: relaxed samples are 0 or 1 in the forward pass (straight-through).

    Example:
      >>> q = IndependentBernoulli(jnp.zeros((1, 3)))
      >>> round(float(q.log_prob(jnp.array([[0.0, 1.0, 1.0]]))[0]), 4)  # 3 ln 1/2
      -2.0794
    """

    logits: jax.Array
    temperature: jax.Array | None = None
    straight: bool = field(default=False, metadata={"static": True})

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns z ~ q [B, D], from one key per example."""
        if self.temperature is None:
            return (prng.uniform(keys, self.logits.shape[1:]) < jax.nn.sigmoid(self.logits)).astype(jnp.float32)
        noisy = self.logits + concrete.logistic(keys, self.logits.shape[1:])
        soft = jax.nn.sigmoid(noisy / self.temperature)
        return concrete.straight_through((noisy > 0).astype(jnp.float32), soft) if self.straight else soft

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Returns sum_j z_j log p_j + (1 - z_j) log(1 - p_j) in nats [...]."""
        return -jnp.sum(cross_entropy(self.logits, z), -1)

    def sample_and_log_prob(self, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns z [B, D] and log q(z) [B]."""
        z = self.sample(keys)
        return z, self.log_prob(z)

    def mode(self) -> jax.Array:
        """Returns the more probable value of each variable, [..., D]."""
        return (self.logits > 0).astype(jnp.float32)

    def expectation(self) -> jax.Array:
        """Returns E[z], the probabilities [..., D]."""
        return jax.nn.sigmoid(self.logits)

    def variance(self) -> jax.Array:
        """Returns p (1 - p), [..., D]."""
        return jnp.maximum(jax.nn.sigmoid(self.logits) * jax.nn.sigmoid(-self.logits), TINY)


class Joint(NamedTuple):
    """Independent real and categorical variables; z is the real ones [D], then each one-hot vector.

    Example:
      >>> real = DiagGaussian(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
      >>> q = Joint(real, (OneHotCategorical(jnp.zeros((1, 1, 2))),))
      >>> round(float(q.log_prob(jnp.array([[0.0, 1.0, 0.0]]))[0]), 4)  # ln N(0; 0, 1) + ln 1/2
      -1.6121
    """

    gaussian: DiagGaussian
    categorical: tuple[OneHotCategorical, ...]

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns z ~ q [B, D + sum_i K_i], from one key per example."""

        def site(name: str) -> jax.Array:
            return jax.vmap(lambda key: prng.site_key(key, name))(keys)

        drawn = [part.sample(site(f"categorical {i}")) for i, part in enumerate(self.categorical)]
        return jnp.concatenate([self.gaussian.sample(site("gaussian")), *drawn], -1)

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Returns log q of the real part plus that of each one-hot vector, in nats [...]."""
        start = self.gaussian.mean.shape[-1]
        total = self.gaussian.log_prob(z[..., :start])
        for part in self.categorical:
            size = part.logits.shape[-1] * part.logits.shape[-2]
            total = total + part.log_prob(z[..., start : start + size])
            start += size
        return total

    def sample_and_log_prob(self, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns z [B, D + sum_i K_i] and log q(z) [B]."""
        z = self.sample(keys)
        return z, self.log_prob(z)

    def mode(self) -> jax.Array:
        """Returns mean and most probable values, [..., D + sum_i K_i]."""
        return jnp.concatenate([self.gaussian.mode(), *(part.mode() for part in self.categorical)], -1)

    def expectation(self) -> jax.Array:
        """Returns E[z] by variable [..., D + G, max K]: mean, or probabilities, and zeros behind."""
        width = max(part.logits.shape[-1] for part in self.categorical)
        parts = [self.gaussian.mean[..., None], *(part.expectation() for part in self.categorical)]
        rest = [[(0, 0)] * (part.ndim - 1) + [(0, width - part.shape[-1])] for part in parts]
        return jnp.concatenate([jnp.pad(part, pad) for part, pad in zip(parts, rest, strict=True)], -2)

    def variance(self) -> jax.Array:
        """Returns the variance of each entry, [..., D + sum_i K_i]."""
        return jnp.concatenate([self.gaussian.variance(), *(part.variance() for part in self.categorical)], -1)


def expected_code(q: Any) -> jax.Array:
    """Returns E[z|x] by latent variable, [B, G] or [B, G, K]: the mean code, for discrete q the probabilities.

    Example:
      >>> expected_code(DiagGaussian(jnp.full((1, 1), 2.0), jnp.zeros((1, 1)))).tolist()
      [[2.0]]
      >>> expected_code(OneHotCategorical(jnp.zeros((1, 1, 2)))).tolist()
      [[[0.5, 0.5]]]
    """
    return q.expectation() if hasattr(q, "expectation") else q.mode()


def categorical_kl(q: OneHotCategorical, p: OneHotCategorical) -> jax.Array:
    """Returns KL(q || p) = sum_k q_k (log q_k - log p_k) in nats, [..., G]: log K - H(q) for uniform p.

    Example:
      >>> q = OneHotCategorical(jnp.log(jnp.array([[[0.75, 0.25]]])))
      >>> p = OneHotCategorical(jnp.zeros((1, 1, 2)))
      >>> round(float(categorical_kl(q, p)[0, 0]), 4)  # 3/4 ln 3/2 + 1/4 ln 1/2
      0.1308
    """
    log_q, log_p = jax.nn.log_softmax(q.logits), jax.nn.log_softmax(p.logits)
    return jnp.sum(jnp.exp(log_q) * (log_q - log_p), -1)


def bernoulli_kl(q: IndependentBernoulli, p: IndependentBernoulli) -> jax.Array:
    """Returns KL(q || p) of each binary variable in nats, [..., D].

    Example:
      >>> q = IndependentBernoulli(jnp.log(jnp.array([[3.0]])))  # probability 3/4
      >>> p = IndependentBernoulli(jnp.zeros((1, 1)))
      >>> round(float(bernoulli_kl(q, p)[0, 0]), 4)  # 3/4 ln 3/2 + 1/4 ln 1/2
      0.1308
    """
    ones = jax.nn.sigmoid(q.logits) * (jax.nn.log_sigmoid(q.logits) - jax.nn.log_sigmoid(p.logits))
    zeros = jax.nn.sigmoid(-q.logits) * (jax.nn.log_sigmoid(-q.logits) - jax.nn.log_sigmoid(-p.logits))
    return ones + zeros


def joint_kl(q: Joint, p: Joint) -> jax.Array:
    """Returns KL(q || p) of each variable in nats: the D real ones, then each categorical one.

    Example:
      >>> def joint(mean, logits):
      ...     real = DiagGaussian(jnp.full((1, 1), mean), jnp.zeros((1, 1)))
      ...     return Joint(real, (OneHotCategorical(jnp.array([[logits]])),))
      >>> kl = joint_kl(joint(1.0, [1.0986123, 0.0]), joint(0.0, [0.0, 0.0]))
      >>> [round(float(nats), 4) for nats in kl[0]]
      [0.5, 0.1308]
    """
    parts = [categorical_kl(a, b) for a, b in zip(q.categorical, p.categorical, strict=True)]
    return jnp.concatenate([gaussian.kl(q.gaussian, p.gaussian), *parts], -1)
