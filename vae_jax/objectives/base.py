"""What an objective sees of a batch, and what an objective is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax

from vae_jax import schedules
from vae_jax.model import Context, Metrics
from vae_jax.options.needs import Need, Property
from vae_jax.spaces import Space
from vae_jax.spec import DataSpec

# (log p(x|z_k), log p(z_k)), [K, B] each: what `Objective.split` hands to the encoder alone.
Path = tuple[jax.Array, jax.Array]


class Terms(NamedTuple):
    """One batch as the single-latent family sees it. Nats, per example, unweighted.

    Attributes:
      x: data [B, H, W, C].
      z: one posterior sample [B, D] (the first of K).
      posterior: q(z|x).
      likelihood: p(x|z) of all K samples, leading axis K * B.
      distortion: -log p(x|z) [B], mean over the K samples.
      rate: KL(q(z|x) || p(z)) [B], closed form where there is one, else its estimate from the K samples.
      kl_per_dim: the rate by latent variable [B, G]; None where the rate is not such a sum.
      prior: p(z), with `log_prob`.
      log_p_x: log p(x|z_k) [K, B]. In training its gradient is that of the chosen estimator.
      log_p_z: log p(z_k) [K, B].
      log_q: log q(z_k|x) [K, B]; None if the objective does not use it. Under `stl` and `dreg` the parameters of q
        are stopped in it.
      path: (log p(x|z_k), log p(z_k)) [K, B] with a gradient for the encoder only; `log_p_x` and `log_p_z` then have
        none through z. None unless the objective `splits`.
      key: for noise of the objective's own; split it by `prng.site_key`.
      decode: z [N, D] -> p(x|z).
      sample_prior: (key, n) -> z [n, D] ~ p(z).
      spec: of the training data.
      mask: of what is observed of x, of its shape; None for all of it. `distortion` and `log_p_x` heed it already.
    """

    # One sample per example: all that single-sample bounds read.
    x: jax.Array
    z: jax.Array
    posterior: Any
    likelihood: Any
    distortion: jax.Array
    rate: jax.Array
    kl_per_dim: jax.Array | None
    # The K samples, for importance weights.
    prior: Any = None
    log_p_x: jax.Array | None = None
    log_p_z: jax.Array | None = None
    log_q: jax.Array | None = None
    path: Path | None = None
    # For terms of the objective's own: penalties on the aggregate posterior, on the decoder, critics.
    key: Any = None
    decode: Callable[[jax.Array], Any] | None = None
    sample_prior: Callable[[jax.Array, int], jax.Array] | None = None
    spec: DataSpec | None = None
    mask: jax.Array | None = None


@dataclass(frozen=True)
class Objective:
    """Base of the objective configs: what is minimized, as a pure function of the terms of one batch.

    Attributes:
      importance: whether `log_q` is needed, because importance weights p(x, z) / q(z|x) are.
      couples: whether an example's loss depends on the others of the batch.
      by_dimension: whether `kl_per_dim` is needed.
      spaces: spaces of z it can read; () for all.
      separate_encoder: the encoder is an optimizer group of its own, `encoder`.
      deterministic: it is made for point posteriors (`posterior.deterministic`), and only for these.
      rateless: it has no rate, so that point posteriors suffice, and holds q(z) at p(z) in another way.
      separable: whether it needs q(z|x) by dimension (`posterior.separable`).
      path: whether terms of its own read z or p(x|z), and need the plain gradient of the reparameterized sample.
      noisy: whether it draws noise of its own.
    """

    schedule: schedules.Schedule = field(default_factory=schedules.Constant)
    """Annealing of the KL weight: constant, linear (warm-up) or cyclical."""

    # Declarations: `needs` and `gives` turn most of them into checks that run before anything is compiled.
    importance: ClassVar[bool] = False
    couples: ClassVar[bool] = False
    by_dimension: ClassVar[bool] = False
    spaces: ClassVar[tuple[type[Space], ...]] = ()
    separate_encoder: ClassVar[bool] = False
    deterministic: ClassVar[bool] = False
    rateless: ClassVar[bool] = False
    separable: ClassVar[bool] = False
    path: ClassVar[bool] = False
    noisy: ClassVar[bool] = False

    @property
    def samples(self) -> int:
        """Posterior samples per example, K."""
        return 1

    def check(self, spec: DataSpec) -> None:
        """Raises InputError if the training data lack what this objective needs."""

    def gives(self) -> frozenset[Property]:
        """Returns the properties that other components may need (see `options.needs`)."""
        # Estimators read these. One that rewrites rate and distortion alone would miss terms that read z directly, and
        # one that scales paths by the weights would miss a factor that changes with the step.
        given = {
            "rateless": self.deterministic or self.rateless,
            "importance weights": self.importance,
            "one bound": not self.importance,
            "plain code": not self.path,
            "constant weight": isinstance(self.schedule, schedules.Constant),
        }
        return frozenset(name for name, it_does in given.items() if it_does)

    def needs(self) -> tuple[Need, ...]:
        """Returns what other components must give."""
        # A point has no rate, so no prior enters the loss: regularizers such as |z|^2 / 2 stand for a standard normal.
        found = [Need("posterior", ("point",)), Need("prior", ("standard normal",))] if self.deterministic else []
        found += [Need("posterior", ("dimensions",))] if self.separable else []
        found += [Need("posterior", self.spaces)] if self.spaces else []
        # The KL of each variable exists only where q and p both factorize.
        if self.by_dimension:
            found += [Need("posterior", ("kl by variable",)), Need("prior", ("kl by variable",))]
        # Importance weights are combined with log p(x|z): it must be a density.
        found += [Need("likelihood", ("normalized",))] if self.importance else []
        return tuple(found)

    def split(self, z: jax.Array, path: Callable[[jax.Array], Path]) -> tuple[jax.Array, Path | None]:
        """Returns (z that the decoder's bound is made of, what only the encoder learns from).

        Args:
          z: samples [K, B, D].
          path: z -> (log p(x|z), log p(z)) [K, B], both with a gradient for z alone.
        """
        # One bound for encoder and decoder: z keeps its path.
        del path
        return z, None

    def hyper(self) -> dict[str, float]:
        """Returns the scalars that are traced rather than compiled in."""
        return {}

    def init_state(self) -> dict[str, Any]:
        """Returns the running state (multipliers, moving averages): none by default."""
        return {}

    def gates(self) -> dict[str, Callable[[jax.Array], jax.Array]]:
        """Returns `Model.gates`: which group is updated at which step; none by default."""
        return {}

    def path_factor(self, log_w: jax.Array) -> jax.Array:
        """Returns the factor [K, B] that `dreg` puts on the path gradient of each sample (importance objectives)."""
        raise TypeError(f"{type(self).__name__} must define path_factor")

    def loss(self, terms: Terms, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (what is minimized [B] in nats, metrics) for objectives without running state."""
        raise TypeError(f"{type(self).__name__} must define loss or step")

    def step(self, terms: Terms, ctx: Context, state: Any) -> tuple[jax.Array, Metrics, Any]:
        """Returns (what is minimized [B] in nats, metrics, new state).

        Args:
          terms: of the batch.
          ctx: the step's context; where `ctx.train` is false the state must come back unchanged.
          state: as of `init_state`.

        Returns:
          the cost of each example, whose mean is differentiated; metrics as scalars; the state of the next step, of the
          structure of `state`.
        """
        # The default for objectives that keep nothing between steps.
        return *self.loss(terms, ctx), state
