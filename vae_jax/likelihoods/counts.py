"""Likelihoods of counts: Poisson, negative binomial, the same with added zeros, and multinomial.

With `size` "observed" the mean of entry i is sum(x) * softmax(out)_i, so that log p is that of x given its total. What
is shown of a code alone (mean, mode, draws) then has a typical total: the mean of those seen in training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from vae_jax import collectives
from vae_jax.likelihoods.counted import (
    MOST,
    Expected,
    MultinomialCounts,
    NegativeBinomialCounts,
    PoissonCounts,
    ZeroInflatedCounts,
    totals,
)
from vae_jax.likelihoods.pixels import PixelLikelihood, soft_floor

WIDEST = 20.0  # log dispersions are kept within -+ this, softly


@dataclass(frozen=True)
class Counts(PixelLikelihood):
    """Base of the likelihoods of counts: shares of the total of x, and the mean of the totals as running state."""

    counts: ClassVar[bool] = True

    @property
    def support(self) -> tuple[float, float]:
        return (0.0, float(MOST))

    @property
    def of_total(self) -> bool:
        """Whether the means are shares of the total of x."""
        return True

    def seen(self, x: jax.Array) -> jax.Array:
        # Counts span decades; their logs are numbers that a network can take.
        return jnp.log1p(jnp.maximum(x, 0.0))

    def matched(self, mean: Any, x: Any) -> Any:
        if not self.of_total:
            return mean
        # Of arrays of numpy as well as of jax. A mean of nothing stays nothing.
        axes = tuple(range(1, x.ndim))
        total = mean.sum(axes, keepdims=True)
        return mean * (x.sum(axes, keepdims=True) / (total + (total == 0)))

    def init_state(self) -> dict[str, jax.Array]:
        return {"total": jnp.zeros(()), "steps": jnp.zeros(())} if self.of_total else {}

    def expected(self, out: jax.Array, state: Any) -> Expected:
        """Returns what the outputs [B, *shape] say of the means; before the first step 1 stands for the total."""
        return Expected(out, jnp.where(state["steps"] > 0, state["total"], 1.0) if self.of_total else None)

    @property
    def takes_weight(self) -> bool:
        return self.of_total

    def fit(self, out, x, params, state, axis_name, mask=None, weight=None):
        del mask  # refused before (`takes_mask`): the total of what is observed is not that of x
        if not self.of_total:
            return self.build(out, params, state), state
        # The mean over all steps, of the global batch: exact, and no decay to choose.
        if weight is None:
            batch, steps = collectives.pmean(jnp.mean(totals(x)), axis_name), state["steps"] + 1.0
            new = {"total": state["total"] + (batch - state["total"]) / steps, "steps": steps}
            return self.build(out, params, new), new
        # By weight: a step counts for as much as its examples, and one of no weight leaves the mean as it was.
        moved = collectives.pmean(jnp.mean(weight * (totals(x).reshape(-1) - state["total"])), axis_name)
        steps = state["steps"] + collectives.pmean(jnp.mean(weight), axis_name)
        new = {"total": state["total"] + moved / jnp.where(steps > 0, steps, 1.0), "steps": steps}
        return self.build(out, params, new), new


@dataclass(frozen=True)
class Sized(Counts):
    """Base of the likelihoods of counts that may also set their means without the total of x."""

    size: Literal["observed", "none"] = "observed"
    """Size factor: observed, means are shares of the total of x (log p is of x given it); none, softplus of outputs."""

    @property
    def of_total(self) -> bool:
        return self.size == "observed"


@dataclass(frozen=True)
class Poisson(Sized):
    """Poisson counts: the variance is the mean.

    Example:
      >>> likelihood = Poisson()
      >>> p_x = likelihood.build(jnp.zeros((1, 2)), {}, likelihood.init_state())
      >>> round(float(p_x.log_prob(jnp.array([[1.0, 3.0]]))[0]), 4)  # means 2 and 2: ln (2 e^-2 * 8 e^-2 / 6)
      -3.0192
    """

    def build(self, out, params, state) -> PoissonCounts:
        del params
        return PoissonCounts(self.expected(out, state))


@dataclass(frozen=True)
class NegativeBinomial(Sized):
    """Negative binomial counts, variance m + m^2 / theta with a trained theta (scVI: doi 10.1038/s41592-018-0229-2).

    Example:
      >>> likelihood = NegativeBinomial()  # theta starts at 1
      >>> p_x = likelihood.build(jnp.zeros((1, 2)), likelihood.params_for((2,)), likelihood.init_state())
      >>> round(float(p_x.log_prob(jnp.array([[1.0, 3.0]]))[0]), 4)  # means 2 and 2: ln (2/9 * 8/81)
      -3.8191
    """

    dispersion: Literal["feature", "code"] = "feature"
    """Inverse dispersion theta: feature, one trained number per entry of x; code, given by the decoder as well."""

    def outputs(self, channels: int) -> int:
        return channels if self.dispersion == "feature" else 2 * channels

    def params_for(self, shape: tuple[int, ...]) -> dict[str, jax.Array]:
        # theta = 1 at the start: far more variance than Poisson, which a gradient lowers easily.
        return {"log_theta": jnp.zeros(shape)} if self.dispersion == "feature" else {}

    def build(self, out, params, state) -> NegativeBinomialCounts:
        # out: [B, ..., 2C] with a theta for each entry, else [B, ..., C].
        out, raw = (out, params["log_theta"][None]) if self.dispersion == "feature" else jnp.split(out, 2, axis=-1)
        # Kept within e^-+20, where the masses are exact; in between it is itself.
        return NegativeBinomialCounts(self.expected(out, state), -soft_floor(-soft_floor(raw, -WIDEST), -WIDEST))


@dataclass(frozen=True)
class ZeroInflatedNB(NegativeBinomial):
    """Negative binomial counts with added zeros, whose probability the decoder gives (arXiv:1709.02082).

    Example:
      >>> likelihood = ZeroInflatedNB()
      >>> out = jnp.array([[0.0, 0.0, 0.0, 0.0]])  # two shares, and two probabilities of an added zero: 1/2
      >>> p_x = likelihood.build(out, likelihood.params_for((2,)), likelihood.init_state())
      >>> round(float(p_x.log_prob(jnp.array([[0.0, 4.0]]))[0]), 4)  # ln (1/2 + 1/2 * 1/3) + ln (1/2 * 16/243)
      -3.8191
    """

    def outputs(self, channels: int) -> int:
        return super().outputs(channels) + channels

    def build(self, out, params, state) -> ZeroInflatedCounts:
        # Whether a zero was added depends on the code, as dropout of a measurement does.
        # out: [B, ..., 2C] or [B, ..., 3C], the logits of added zeros last.
        channels = out.shape[-1] // (2 if self.dispersion == "feature" else 3)
        rest, gate = jnp.split(out, [out.shape[-1] - channels], axis=-1)
        return ZeroInflatedCounts(super().build(rest, params, state), gate)


@dataclass(frozen=True)
class Multinomial(Counts):
    """Multinomial counts: draws with the probabilities softmax(out), as many as the total of x (arXiv:1802.05814).

    Example:
      >>> likelihood = Multinomial()
      >>> p_x = likelihood.build(jnp.zeros((1, 2)), {}, likelihood.init_state())
      >>> round(float(p_x.log_prob(jnp.array([[1.0, 3.0]]))[0]), 4)  # ln (4 / 16)
      -1.3863
    """

    def build(self, out, params, state) -> MultinomialCounts:
        del params
        return MultinomialCounts(self.expected(out, state))
