"""Conditioning: what a model is conditioned on besides the data themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vae_jax.errors import InputError, option
from vae_jax.model import ConditionFns, Params, State
from vae_jax.spec import DataSpec

# `Condition.on` -> the entry of the batch that the features are made of.
ENTRIES = {"label": "label", "factors": "factors", "vector": "cond"}


@dataclass(frozen=True)
class Condition:
    """Conditional VAE: encoder and decoder (and a conditional prior) take `cond` (Sohn et al. 2015).

    The features are appended to x on its last axis (encoder), as constant channels of an image, and to the code
    (decoder), so every network can be conditioned.
    """

    on: Literal["none", "label", "factors", "vector"] = "none"
    """Nothing, the label (one-hot), the generative factors (one-hot each), or a vector (array `cond` of an .npz)."""
    encoder: bool = True
    """Give it to the encoder: q(z|x, c)."""
    decoder: bool = True
    """Give it to the decoder: p(x|z, c)."""

    def check(self, spec: DataSpec) -> None:
        """Raises InputError if the data do not have what the model is conditioned on."""
        if self.on == "label" and not spec.classes:
            raise InputError("model.condition.on: label, but the data have no labels; use none, or data with labels")
        if self.on == "factors" and not spec.factors:
            raise InputError("model.condition.on: factors, but the data have no factors; use none, or sprites")
        if self.on == "vector" and not spec.cond:
            raise InputError("model.condition.on: vector, but the data have none; save an array `cond` in the .npz")

    def gives(self) -> frozenset[str]:
        """Returns the properties that other components may need (see `options.needs`)."""
        return frozenset({"no condition" if self.on == "none" else "condition"})

    def functions(self, spec: DataSpec) -> ConditionFns | None:
        """Returns the capability `Model.condition`; None without a condition."""

        def features(params: Params, state: State, batch: Mapping[str, Any]) -> jax.Array:
            del params, state
            found = self.features(batch, spec)
            assert found is not None
            return found

        if self.on == "none":
            return None
        # Only a label can be requested by number.
        classes = spec.classes if self.on == "label" else 0
        return ConditionFns(features, ENTRIES[self.on], classes, lambda n: self.default(n, spec))

    def default(self, n: int, spec: DataSpec) -> jax.Array:
        """Returns features [n, F] to sample with: they cycle through the values of the first variable, others at 0.

        Raises:
          InputError: no vector can be chosen in its place.
        """
        if self.on == "vector":
            raise InputError(f"this model is conditioned on a vector, which must be given ({option('cond')})")
        # Indices [n, variables], of which only the first column varies.
        sizes = (spec.classes,) if self.on == "label" else spec.factors
        return one_hot(jnp.zeros((n, len(sizes)), jnp.int32).at[:, 0].set(jnp.arange(n) % sizes[0]), sizes)

    def features(self, batch: Mapping[str, Any], spec: DataSpec) -> jax.Array | None:
        """Returns the features [B, F] of a batch: one-hot vectors side by side, or the vector; None without condition.

        Raises:
          InputError: the batch lacks what the model is conditioned on.
        """
        if self.on == "none":
            return None
        name = ENTRIES[self.on]
        if name not in batch:
            raise InputError(f"this model is conditioned on {name}, which these examples come without; add them")
        # Labels are [B], factors [B, variables]; below both are [B, variables].
        values = jnp.asarray(batch[name])
        if self.on == "vector":
            return jnp.asarray(values, jnp.float32)
        return one_hot(values.reshape(values.shape[0], -1), (spec.classes,) if self.on == "label" else spec.factors)

    def join_x(self, x: jax.Array, features: jax.Array | None) -> jax.Array:
        """Returns the encoder's input: x [B, ..., C] with the features appended to its last axis at every place."""
        if features is None or not self.encoder:
            return x
        width = features.shape[-1]
        # [B, F] -> [B, 1, ..., 1, F], the same at every place, so that a convolution sees the condition everywhere. A
        # vector x [B, D] has no places, and this is plain concatenation.
        spread = features.reshape(features.shape[0], *(1,) * (x.ndim - 2), width)
        return jnp.concatenate([x, jnp.broadcast_to(spread, (*x.shape[:-1], width))], -1)

    def join_code(self, z: jax.Array, features: jax.Array | None) -> jax.Array:
        """Returns the decoder's input: z [N, D] with the features [B, F] appended, repeated where N = K * B."""
        if features is None or not self.decoder:
            return z
        # Samples are K whole batches in a row, so features are tiled in the same order.
        repeats = z.shape[0] // features.shape[0]
        return jnp.concatenate([z, jnp.tile(features, (repeats, 1))], -1)


def one_hot(values: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """Returns one-hot vectors side by side [B, sum(sizes)] of values [B, len(sizes)]."""
    parts = [jax.nn.one_hot(values[:, i], size) for i, size in enumerate(sizes)]
    return jnp.concatenate(parts, -1)
