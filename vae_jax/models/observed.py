"""What of the data is observed: the entries of a batch that a model may read, score and average over."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.errors import InputError, option
from vae_jax.likelihoods import LIKELIHOODS
from vae_jax.model import Batch
from vae_jax.options import needs
from vae_jax.spec import DataSpec


def data(batch: Batch) -> tuple[jax.Array, jax.Array | None]:
    """Returns (x with 0 where it is missing [B, *shape], the mask of what is observed, bool, or None for all of it)."""
    mask = batch.get("mask")
    # Whatever stands where nothing was observed, NaN as well, must reach neither the encoder nor a term of the sum.
    return (batch["x"], None) if mask is None else (jnp.where(mask, batch["x"], 0.0), mask)


def with_mask(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Returns the encoder's input [B, ..., 2C]: x and, on its last axis, 1 where it is observed; all of it for None."""
    seen = jnp.ones_like(x) if mask is None else mask.astype(x.dtype)
    return jnp.concatenate([x, seen], -1)


def log_prob(p_x: Any, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Returns log p(x_obs|z) in nats [B]: of the observed entries, where the mask is True; of all for None."""
    # A likelihood from outside of the package may take x alone; then data with a mask were refused.
    return p_x.log_prob(x) if mask is None else p_x.log_prob(x, mask)


def fit(
    likelihood: Any,
    out: jax.Array,
    x: jax.Array,
    params: Any,
    state: Any,
    axis_name: str | None,
    mask: jax.Array | None,
    weight: jax.Array | None,
) -> tuple[Any, Any]:
    """Fits p(x|z) to a batch, in training.

    Args:
      likelihood: the configuration of p(x|z).
      out: outputs of the decoder [B, ...].
      x: data [B, *shape].
      params: of the likelihood.
      state: of the likelihood.
      axis_name: as of `Context`.
      mask: of what is observed, of the shape of x; None for all of it.
      weight: of the loss of each example, [B]; None weighs all alike.

    Returns:
      a decoded distribution, and the likelihood's running state after this batch.
    """
    # A class from outside of the package may know neither of the two: each is given only to one that takes it. Whether
    # the likelihood takes a mask was checked when the model was built (`check`); weights are of the loss first of all,
    # and a likelihood without statistics of the batch has no use for them.
    more = {} if mask is None else {"mask": mask}
    if weight is not None and getattr(likelihood, "takes_weight", False):
        more["weight"] = weight
    return likelihood.fit(out, x, params, state, axis_name, **more)


def mean_error(mean: jax.Array, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Returns the squared error of each example [B], a mean over its observed entries; 0 where there are none."""
    error, axes = jnp.square(mean - x), tuple(range(1, x.ndim))
    if mask is None:
        return jnp.mean(error, axis=axes)
    # The mean over all entries, then the quotient of two whole numbers: exactly 1 where all are observed.
    count = jnp.sum(mask, axis=axes, dtype=jnp.float32)
    return jnp.mean(jnp.where(mask, error, 0.0), axis=axes) * (math.prod(x.shape[1:]) / jnp.maximum(count, 1.0))


def check(spec: DataSpec, likelihood: Any, mask_input: bool = False) -> None:
    """Checks that a model can leave out what is missing.

    Args:
      spec: the data.
      likelihood: the configuration of p(x|z).
      mask_input: whether the encoder is to see the mask.

    Raises:
      InputError: the likelihood cannot, or there is no mask to see.
    """
    if not takes(spec, likelihood):
        name = needs.name_of(likelihood, LIKELIHOODS)
        spec.refuse_mask(f"the likelihood {name}", f"choose {option('model.likelihood', 'gaussian-learned')}")
    if mask_input and not spec.mask:
        raise InputError(
            "model.mask_input: the data have no missing values, so the mask would be the same everywhere; use "
            f"{option('model.mask_input', False)}"
        )


def takes(spec: DataSpec, likelihood: Any) -> bool:
    """Says whether a likelihood can leave out what is missing of these data."""
    # A class from outside of the package need not have the method.
    declared = getattr(likelihood, "takes_mask", None)
    return bool(declared is not None and declared(spec.x.shape[-1]))
