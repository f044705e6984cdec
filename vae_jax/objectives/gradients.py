"""Gradient estimators: how the loss gets its gradient through the posterior sample.

An estimator draws the samples and may rewrite a cost: the value stays, bit for bit, and the gradient becomes the
estimator's. Objectives stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.model import Context
from vae_jax.options.needs import Need
from vae_jax.spaces import Positive, Real, Space, Sphere, UnitInterval

# z [K, B, D] -> log p(x, z) [K, B].
LogJoint = Callable[[jax.Array], jax.Array]
# (z [K, B, D], log q(z|x) [K, B] or None).
Draw = tuple[jax.Array, jax.Array | None]


@dataclass(frozen=True)
class Pathwise:
    """Reparameterization: the gradient flows through z = g(eps, phi) (arXiv:1312.6114, sec. 2.4).

    Example:
      >>> from vae_jax.distributions import DiagGaussian
      >>> keys = jax.random.split(jax.random.key(0), 1)
      >>> z = lambda mean: Pathwise().draw(keys, DiagGaussian(mean, jnp.zeros((1, 1))), 1, False)[0].sum()
      >>> jax.grad(z)(jnp.zeros((1, 1))).tolist()  # z = mean + eps
      [[1.0]]
    """

    stops_density: ClassVar[bool] = False  # the parameters of q are stopped in log q(z)
    scales_path: ClassVar[bool] = False  # dz is multiplied by `objective.path_factor`
    score: ClassVar[bool] = False  # a score-function estimator: needs log q(z), no path
    spaces: ClassVar[tuple[type[Space], ...]] = ()  # spaces of z that it works for; () for all

    @property
    def samples(self) -> int:
        """Posterior samples per example that the estimator needs."""
        return 1

    def needs(self) -> tuple[Need, ...]:
        """Returns what other components must give (see `options.needs`)."""
        # `change_self`: where a pair cannot work, the message advises another estimator, not another model.
        found = [Need("posterior", self.spaces, change_self=True)] if self.spaces else []
        found += [Need("posterior", ("path",), change_self=True)] if not self.score else []
        # log q of a given z, with its parameters stopped or differentiated apart from the sample. Terms that read z or
        # p(x|z) directly would get the estimator's gradient only in part.
        if self.score or self.stops_density:
            found += [Need("posterior", ("density",), change_self=True)]
            found += [Need("objective", ("plain code",), change_self=True)]
        # `path_factor` knows the weights of the bound itself, not those of an annealed one.
        if self.scales_path:
            found += [Need("objective", ("importance weights",)), Need("objective", ("constant weight",))]
        found += [Need("objective", ("one bound",), change_self=True)] if self.score else []
        return tuple(found)

    def init_state(self) -> dict[str, Any]:
        """Returns the running state (a baseline): none by default."""
        return {}

    def draw(self, keys: jax.Array, q: Any, k: int, log_prob: bool) -> tuple[jax.Array, jax.Array | None, Any]:
        """Returns z [K, B, D], log q(z|x) [K, B] if `log_prob` else None, and the noise that `surrogate` may need.

        Args:
          keys: one per example, [B].
          q: the posterior.
          k: samples per example, K.
          log_prob: whether log q(z|x) is needed.

        Returns:
          samples, their log densities in nats or None, and noise of the estimator's own or None.
        """
        if k == 1:
            if log_prob:
                # Together: a flow gets log q from the forward pass and never has to be inverted.
                z, log_q = q.sample_and_log_prob(keys)
                return z[None], log_q[None], None
            return q.sample(keys)[None], None, None
        each = prng.sample_keys(keys, jnp.arange(k))
        if log_prob:
            return *jax.vmap(q.sample_and_log_prob)(each), None
        return jax.vmap(q.sample)(each), None, None

    def reweigh(self, z: jax.Array, log_q: jax.Array | None, q: Any, objective: Any, log_p: LogJoint) -> Draw:
        """Returns (z [K, B, D], log q(z|x) [K, B]) with the gradient that the estimator gives them.

        Args:
          z: as of `draw`.
          log_q: as of `draw`.
          q: the posterior.
          objective: gives `path_factor`.
          log_p: z -> log p(x, z) [K, B].

        Returns:
          the same values; only gradients differ.
        """
        del q, objective, log_p
        return z, log_q

    def surrogate(
        self, name: str, cost: jax.Array, q: Any, log_q: jax.Array | None, noise: Any, state: Any, ctx: Context
    ) -> tuple[jax.Array, Any]:
        """Returns (cost [K, B] with the estimator's gradient, new state).

        Args:
          name: which cost, "distortion" or "rate"; a baseline keeps one state for each.
          cost: [K, B], as the objective will see it.
          q: the posterior.
          log_q: log q(z|x) [K, B].
          noise: as of `draw`.
          state: running state.
          ctx: the step's context.

        Returns:
          the same values in nats; the state is unchanged unless the estimator keeps a baseline.
        """
        # A reparameterized cost already has its gradient.
        del name, q, log_q, noise, ctx
        return cost, state


@dataclass(frozen=True)
class StickingTheLanding(Pathwise):
    """STL: the parameters of q are stopped in log q(z); no variance where q is exact (arXiv:1703.09194).

    For bounds of several samples it is biased (arXiv:1810.04152): `dreg` is the unbiased form of it.

    Example:
      >>> from vae_jax.distributions import DiagGaussian
      >>> keys = jax.random.split(jax.random.key(0), 1)
      >>> p = DiagGaussian(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
      >>> def rate(mean):
      ...     z, log_q, _ = StickingTheLanding().draw(keys, DiagGaussian(mean, jnp.zeros((1, 1))), 1, True)
      ...     return jnp.sum(log_q[0] - p.log_prob(z[0]))
      >>> abs(float(jax.grad(rate)(p.mean)[0, 0]))  # no noise at q = p
      0.0
    """

    stops_density: ClassVar[bool] = True
    spaces: ClassVar[tuple[type[Space], ...]] = (Real, Positive, UnitInterval, Sphere)

    def draw(self, keys: jax.Array, q: Any, k: int, log_prob: bool) -> tuple[jax.Array, jax.Array | None, Any]:
        """Returns z [K, B, D] with its path, log q(z|x) [K, B] with the parameters of q stopped, and no noise."""
        # log q is evaluated anew at z, under a stopped q: the score term grad_phi log q(z; phi), of mean 0, is left out
        # and only the path dz/dphi remains.
        z = super().draw(keys, q, k, False)[0]
        return z, stopped_log_prob(q, z) if log_prob else None, None


@dataclass(frozen=True)
class DoublyReparameterized(StickingTheLanding):
    """DReG: unbiased for importance-weighted bounds, path gradients weighted by w^2 (arXiv:1810.04152).

    Example:
      >>> from vae_jax.distributions import DiagGaussian
      >>> from vae_jax.objectives import IWAE
      >>> keys = jax.random.split(jax.random.key(0), 1)
      >>> def path(mean):
      ...     estimator, q = DoublyReparameterized(), DiagGaussian(mean, jnp.zeros((1, 1)))
      ...     z, log_q, _ = estimator.draw(keys, q, 2, True)
      ...     return estimator.reweigh(z, log_q, q, IWAE(k=2), lambda z: log_q)[0].sum()
      >>> jax.grad(path)(jnp.zeros((1, 1))).tolist()  # two samples of equal weight: 1/2 + 1/2
      [[1.0]]
    """

    scales_path: ClassVar[bool] = True

    def reweigh(self, z: jax.Array, log_q: jax.Array | None, q: Any, objective: Any, log_p: LogJoint) -> Draw:
        """Returns z whose path is scaled by `objective.path_factor` of the weights, and log q(z|x) of it."""
        assert log_q is not None
        stop = jax.lax.stop_gradient
        # [K, B, 1], no gradient. The loss already multiplies the path of sample k by its weight; the factor makes that
        # the square, the unbiased gradient of the bound for the encoder.
        factor = objective.path_factor(stop(log_p(z) - log_q))[..., None]
        # Same value, scaled path. Only the encoder reads it: the decoder's own gradient keeps the single weight.
        z = stop(z) + factor * (z - stop(z))
        # Of the rescaled z, so that the path through log q is scaled as well.
        return z, stopped_log_prob(q, z)


def stopped_log_prob(q: Any, z: jax.Array) -> jax.Array:
    """Returns log q(z_k) [K, B] of samples [K, B, D]; its gradient passes through z alone."""
    return jax.vmap(jax.lax.stop_gradient(q).log_prob)(z)
