"""The likelihood of a table: one distribution for each column, by its kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vae_jax.files.columns import Column
from vae_jax.likelihoods.counted import NegativeBinomialCounts, PoissonCounts
from vae_jax.likelihoods.decoded import GaussianPixels
from vae_jax.likelihoods.pixels import SeparatePixels, soft_floor
from vae_jax.likelihoods.table_decoded import Scaled, TableRows, categorical_log_p, count_scale, ordinal_log_p
from vae_jax.likelihoods.table_layout import Layout, layout

WIDEST = 20.0  # log dispersions, and logs of gaps between thresholds, are kept within -+ this, softly


@dataclass(frozen=True)
class Table(SeparatePixels):
    """Columns of a table: Gaussian or Student-t, Bernoulli, categorical, cumulative logit, negative binomial.

    log p is in nats of a row in the units of the table: the densities of standardized numbers, and of their logs, are
    brought back by the Jacobian, log p(x) = log p((x - mean) / std) - log std. So it does not depend on the units in
    which a network sees a column. Without columns every entry of x is a number with mean 0 and standard deviation 1.

    Example:
      >>> p_x = Table().build(jnp.zeros((1, 2)), Table().params_for((2,)), {})  # means 0, standard deviations 1.0025
      >>> round(float(p_x.log_prob(jnp.array([[1.0, 2.0]]))[0]), 3)  # -ln(2 pi) - 1/2 - 2
      -4.33
      >>> grade = Table().of_columns((Column("grade", "ordinal", ("low", "middle", "high")),))
      >>> p_x = grade.build(jnp.zeros((1, 1)), grade.params_for((3,)), {})
      >>> [round(float(p), 4) for p in p_x.mean()[0]]  # sigmoid(-1/2), and what is left
      [0.3775, 0.2449, 0.3775]
    """

    scale: Literal["column", "table"] = "column"
    """Trained standard deviation: column, one per numeric column; table, one of all standardized columns (pPCA)."""
    counts_as: Literal["negative-binomial", "poisson"] = "negative-binomial"
    """Distribution of counts; of the negative binomial each column has a trained dispersion."""
    min_log_std: float = -6.0
    """Soft floor of the log standard deviations, in units of the standardized columns: a constant column has none."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the data; () where they are not known, or there are none."""
        return ()

    def of_columns(self, columns: Sequence[Column]) -> Table:
        """Returns the same likelihood of these columns."""
        return TableOfColumns(self.scale, self.counts_as, self.min_log_std, tuple(columns))

    def outputs(self, channels: int) -> int:
        return layout(self.columns).outputs if self.columns else channels

    def seen(self, x: jax.Array) -> jax.Array:
        # Counts span decades; their logs are numbers that a network can take.
        if not any(column.kind == "count" for column in self.columns):
            return x
        at = layout(self.columns).at["count"]
        return x.at[..., at].set(jnp.log1p(jnp.maximum(x[..., at], 0.0)))

    def params_for(self, shape: tuple[int, ...]) -> dict[str, jax.Array]:
        if not self.columns:
            return {"log_std": jnp.zeros(shape if self.scale == "column" else (1,) * len(shape))}
        held = layout(self.columns)
        numbers, ordinal = len(held.means), len(held.thresholds)
        found = {
            "log_std": jnp.zeros(numbers if self.scale == "column" else min(numbers, 1)),
            # Degrees of freedom are 1 + softplus, which is 5 at the start: above 1 the mean exists.
            "df": jnp.full(len(held.at["student"]), 4.0),
            "log_theta": jnp.zeros(len(held.count_means) if self.counts_as == "negative-binomial" else 0),
            # Thresholds one apart, around 0: the first of each column, and the logs of the gaps after it.
            "threshold": jnp.asarray((1 - held.thresholds) / 2, jnp.float32),
            "log_gap": jnp.zeros((ordinal, max(held.thresholds.max(initial=0) - 1, 0))),
        }
        return {name: value for name, value in found.items() if value.size}

    def build(self, out: jax.Array, params: Any, state: Any) -> Any:
        del state
        log_std = soft_floor(params["log_std"], self.min_log_std)[None] if "log_std" in params else jnp.zeros((1, 0))
        # Without columns x may have any shape: a Gaussian for each of its entries.
        if not self.columns:
            return GaussianPixels(out, log_std)
        # out: [B, outputs], the kinds one after the other as `GROUPS` has them.
        held, batch = layout(self.columns), out.shape[0]
        normal, heavy, bits, counts, score, logits = jnp.split(out, held.cuts, axis=-1)
        # Blocks: ordinal columns by one score and their thresholds, categorical ones by a logit per level.
        most, levels = held.block_at.shape[1], []
        if len(held.thresholds):
            gaps = params.get("log_gap", jnp.zeros((len(held.thresholds), 0)))
            # A gap of 0 would leave its level no probability.
            gaps = -soft_floor(-soft_floor(gaps, -WIDEST), -WIDEST)
            levels.append(ordinal_log_p(score, params["threshold"], gaps, held.thresholds, most))
        if logits.shape[-1]:
            levels.append(categorical_log_p(logits, held))
        return TableRows(
            jnp.concatenate([normal, heavy], 1),
            log_std,
            1.0 + jax.nn.softplus(params["df"])[None] if "df" in params else jnp.zeros((1, 0)),
            bits,
            self._counts(counts, params, held) if len(held.count_means) else None,
            jnp.concatenate(levels, 1) if levels else jnp.zeros((batch, 0, 0)),
            self.columns,
        )

    def _counts(self, out: jax.Array, params: Any, held: Layout) -> PoissonCounts | NegativeBinomialCounts:
        """Returns the distribution of the counts."""
        # In units of the mean count, so that an output near 0 suits counts of any size.
        means = Scaled(out, count_scale(held.count_means))
        if self.counts_as == "poisson":
            return PoissonCounts(means)  # type: ignore[arg-type]
        theta = -soft_floor(-soft_floor(params["log_theta"], -WIDEST), -WIDEST)
        return NegativeBinomialCounts(means, theta[None])  # type: ignore[arg-type]


@dataclass(frozen=True)
class TableOfColumns(Table):
    """`Table` of known columns: what a model makes of it for its data."""

    known: tuple[Column, ...] = ()

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.known
