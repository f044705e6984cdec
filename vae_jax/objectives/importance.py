"""Multi-sample bounds: log p(x) from K importance weights w_k = p(x, z_k) / q(z_k|x), z_k ~ q(z|x).

Every bound here is at most log p(x), and its gap closes as K grows. Discrete codes are refused: a relaxed sample has
no such weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from vae_jax.model import Context, Metrics
from vae_jax.objectives.base import Objective, Path, Terms
from vae_jax.options.ranges import AtLeast, Between
from vae_jax.spaces import Positive, Real, Space, Sphere, UnitInterval


def log_mean_exp(log_w: jax.Array, axis: int = 0) -> jax.Array:
    """Returns log 1/K sum_k exp(log_w_k) over one axis."""
    # Weights of images differ by hundreds of nats: their exponentials do not fit into float32.
    return logsumexp(log_w, axis) - jnp.log(log_w.shape[axis])


def miwae_bound(log_w: jax.Array, m: int) -> jax.Array:
    """Returns 1/M sum_m log 1/K sum_k w_mk in nats [B], log_w [M * K, B] (arXiv:1802.04537)."""
    # Samples are grouped as [M, K, B].
    return jnp.mean(log_mean_exp(log_w.reshape(m, -1, log_w.shape[-1]), 1), 0)


def normalized_weights(log_w: jax.Array, m: int = 1) -> jax.Array:
    """Returns w_mk / sum_k w_mk, [M * K, B]: they sum to one in each of the M groups."""
    # A softmax over K, in each group apart.
    return jax.nn.softmax(log_w.reshape(m, -1, log_w.shape[-1]), 1).reshape(log_w.shape)


@dataclass(frozen=True)
class Importance(Objective):
    """Base of the multi-sample bounds. `schedule` anneals log p(z) / q(z|x) in the weights, not in `iw_bound`."""

    importance: ClassVar[bool] = True
    # Discrete spaces are left out: a relaxed sample has a mass that is only interpolated.
    spaces: ClassVar[tuple[type[Space], ...]] = (Real, Positive, UnitInterval, Sphere)

    def log_weights(self, terms: Terms, ctx: Context) -> tuple[jax.Array, jax.Array]:
        """Returns (log w, log w with the annealed KL weight), [K, B]."""
        assert terms.log_p_x is not None
        assert terms.log_p_z is not None
        assert terms.log_q is not None
        # Both are [K, B] in nats. The second weighs log p(z) - log q(z|x) by the schedule and is what is trained; the
        # first is the bound that is logged, comparable between steps.
        prior_over_q = terms.log_p_z - terms.log_q
        return terms.log_p_x + prior_over_q, terms.log_p_x + self.schedule(ctx.step) * prior_over_q


@dataclass(frozen=True)
class IWAE(Importance):
    """Importance-weighted bound log 1/K sum_k w_k (arXiv:1509.00519); biased under `stl`, use `dreg`.

    Example:
      >>> log_w = jnp.log(jnp.array([[1.0], [3.0]]))  # two samples, one example
      >>> terms = Terms(*[None] * 7, log_p_x=log_w, log_p_z=jnp.zeros((2, 1)), log_q=jnp.zeros((2, 1)))
      >>> ctx = Context(0, jnp.arange(1), {})
      >>> round(float(IWAE(k=2).loss(terms, ctx)[0][0]), 4)  # -ln (1 + 3) / 2
      -0.6931
    """

    k: Annotated[int, AtLeast(1)] = 5
    """Importance samples per example, K. 1 is the ELBO."""

    @property
    def samples(self) -> int:
        return self.k

    def path_factor(self, log_w: jax.Array) -> jax.Array:
        """Returns w_k / sum w [K, B]: with the weight of the bound itself, the square (arXiv:1810.04152)."""
        return normalized_weights(log_w)

    def loss(self, terms: Terms, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (-log 1/K sum_k w_k, metrics): [B] in nats (arXiv:1509.00519, eq. 8)."""
        log_w, annealed = self.log_weights(terms, ctx)
        return -log_mean_exp(annealed), {"iw_bound": jnp.mean(log_mean_exp(log_w))}


@dataclass(frozen=True)
class MIWAE(Importance):
    """Mean of M importance-weighted bounds of K samples each (arXiv:1802.04537).

    Example:
      >>> log_w = jnp.log(jnp.array([[1.0], [3.0]]))  # two samples, one example
      >>> terms = Terms(*[None] * 7, log_p_x=log_w, log_p_z=jnp.zeros((2, 1)), log_q=jnp.zeros((2, 1)))
      >>> ctx = Context(0, jnp.arange(1), {})
      >>> round(float(MIWAE(m=2, k=1).loss(terms, ctx)[0][0]), 4)  # -(ln 1 + ln 3) / 2
      -0.5493
    """

    m: Annotated[int, AtLeast(1)] = 4
    """Bounds averaged, M."""
    k: Annotated[int, AtLeast(1)] = 4
    """Importance samples of each bound, K."""

    @property
    def samples(self) -> int:
        return self.m * self.k

    def path_factor(self, log_w: jax.Array) -> jax.Array:
        """Returns the weights normalized in each group, [M * K, B] (arXiv:1810.04152)."""
        # Each group is a bound of its own, so the weights of one do not see the others.
        return normalized_weights(log_w, self.m)

    def loss(self, terms: Terms, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (-1/M sum_m log 1/K sum_k w_mk, metrics): [B] in nats (arXiv:1802.04537)."""
        log_w, annealed = self.log_weights(terms, ctx)
        return -miwae_bound(annealed, self.m), {"iw_bound": jnp.mean(miwae_bound(log_w, self.m))}


@dataclass(frozen=True)
class PIWAE(MIWAE):
    """Encoder trained on MIWAE(M, K), decoder and prior on the bound of all M * K samples (arXiv:1802.04537).

    Example:
      >>> log_w = jnp.log(jnp.array([[1.0], [3.0]]))  # two samples, one example
      >>> terms = Terms(*[None] * 7, log_p_x=log_w, log_p_z=jnp.zeros((2, 1)), log_q=jnp.zeros((2, 1)))
      >>> ctx = Context(0, jnp.arange(1), {})
      >>> loss, metrics = PIWAE(m=2, k=1).loss(terms._replace(path=(terms.log_p_x, terms.log_p_z)), ctx)
      >>> round(float(loss[0]), 4), round(float(metrics["miwae_bound"]), 4)  # -ln (1 + 3) / 2, (ln 1 + ln 3) / 2
      (-0.6931, 0.5493)
    """

    def split(self, z: jax.Array, path: Callable[[jax.Array], Path]) -> tuple[jax.Array, Path]:
        # Decoder and prior see z as data. `path` has the reverse: z live, the parameters of p stopped.
        # The compiler shares the forward pass of both bounds.
        return jax.lax.stop_gradient(z), path(z)

    def loss(self, terms: Terms, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (-log 1/MK sum w for decoder and prior, metrics): [B] in nats (arXiv:1802.04537).

        The encoder's term adds nothing to the value, only the gradient of -MIWAE.
        """
        assert terms.path is not None
        # 1. The bound of all M * K samples. log q is stopped as well, so that nothing of it reaches the encoder.
        stop = jax.lax.stop_gradient
        log_w, annealed = self.log_weights(terms._replace(log_q=stop(terms.log_q)), ctx)
        # 2. MIWAE(M, K) over the same samples and weights, seen through z and q alone.
        path = terms._replace(log_p_x=terms.path[0], log_p_z=terms.path[1])
        encoder = miwae_bound(self.log_weights(path, ctx)[1], self.m)
        metrics = {
            "iw_bound": jnp.mean(log_mean_exp(log_w)),
            "miwae_bound": jnp.mean(miwae_bound(log_w, self.m)),
        }
        # The encoder's bound has the value 0 here: the loss is the first bound, the two gradients never mix.
        return -log_mean_exp(annealed) - (encoder - stop(encoder)), metrics


@dataclass(frozen=True)
class CIWAE(Importance):
    """Convex combination of ELBO and importance-weighted bound (arXiv:1802.04537).

    Example:
      >>> log_w = jnp.log(jnp.array([[1.0], [3.0]]))  # two samples, one example
      >>> terms = Terms(*[None] * 7, log_p_x=log_w, log_p_z=jnp.zeros((2, 1)), log_q=jnp.zeros((2, 1)))
      >>> ctx = Context(0, jnp.arange(1), {})
      >>> round(float(CIWAE(elbo_weight=0.5, k=2).loss(terms, ctx)[0][0]), 4)  # -(ln 3 / 2 + ln 2) / 2
      -0.6212
    """

    elbo_weight: Annotated[float, Between(0, 1)] = 0.05
    """Weight of the ELBO, beta of the paper, in [0, 1]; the bound of K samples has the rest."""
    k: Annotated[int, AtLeast(1)] = 64
    """Importance samples per example, K."""

    @property
    def samples(self) -> int:
        return self.k

    def path_factor(self, log_w: jax.Array) -> jax.Array:
        """Returns (beta / K + (1 - beta) w^2) / (beta / K + (1 - beta) w), w normalized, [K, B].

        The loss weighs the path of a sample by the denominator; the doubly reparameterized gradients of the two bounds
        (1 / K each, and the squares) weigh it by the numerator.
        """
        # The factor is numerator over denominator because the loss has multiplied by the denominator already.
        w = normalized_weights(log_w)
        share = self.elbo_weight / self.k
        below = share + (1.0 - self.elbo_weight) * w
        # With elbo_weight = 0 and a weight that underflows the quotient would be 0 / 0.
        return (share + (1.0 - self.elbo_weight) * jnp.square(w)) / jnp.maximum(below, 1e-30)

    def loss(self, terms: Terms, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (-beta mean_k log w_k - (1 - beta) log 1/K sum_k w_k, metrics): [B] (arXiv:1802.04537)."""
        log_w, annealed = self.log_weights(terms, ctx)
        # Mean of logs (the ELBO) and log of the mean, from the same samples.
        value = self.elbo_weight * jnp.mean(annealed, 0) + (1.0 - self.elbo_weight) * log_mean_exp(annealed)
        return -value, {"iw_bound": jnp.mean(log_mean_exp(log_w))}
