"""Flow posteriors: a diagonal Gaussian behind an invertible map that the encoder or its context steers.

Their rate has no closed form: it is estimated from log q - log p of the samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from vae_jax.distributions import coupling, flows, made
from vae_jax.distributions.gaussian import DiagGaussian
from vae_jax.errors import InputError, option
from vae_jax.options.ranges import EACH_AT_LEAST_ONE, AtLeast
from vae_jax.posteriors.base import Posterior

# |log variance| of the base stays below this: any encoder output gives a finite density.
LOG_VAR = 14.0


def base_and_rest(out: jax.Array, dim: int) -> tuple[DiagGaussian, jax.Array]:
    """Returns (the base Gaussian [B, D] of the first 2 D encoder outputs, the other outputs)."""
    # Layout of the encoder outputs: [mean | log variance | what steers the flow].
    mean, log_var, rest = out[:, :dim], out[:, dim : 2 * dim], out[:, 2 * dim :]
    return DiagGaussian(mean, made.bounded(log_var, LOG_VAR)), rest


@dataclass(frozen=True)
class Planar(Posterior):
    """Planar flow: layers z + u tanh(w.z + b) whose u, w, b the encoder gives (arXiv:1505.05770)."""

    layers: Annotated[int, AtLeast(1)] = 8
    """Layers of the flow."""

    def outputs(self, latent_dim: int) -> int:
        return 2 * latent_dim + self.layers * (2 * latent_dim + 1)

    def build(self, params, out, step, train) -> flows.Flow:
        del params, step, train
        # Solved for D: outputs = 2 D + L (2 D + 1).
        dim = (out.shape[-1] - self.layers) // (2 + 2 * self.layers)
        base, rest = base_and_rest(out, dim)
        # Each example has layers of its own, [B, L, 2 D + 1]: nothing is trained beside the encoder.
        each = rest.reshape(out.shape[0], self.layers, 2 * dim + 1)
        layers = flows.planar(each[..., :dim], each[..., dim : 2 * dim], each[..., -1])
        # `Partial` makes maps and parameters one pytree, so that q can cross `jit` and `vmap`. The inverse is called
        # only for log q of a given z: a sample comes with its density from the forward pass.
        return flows.Flow(base, Partial(flows.planar_forward, layers), Partial(flows.planar_inverse, layers))


@dataclass(frozen=True)
class Radial(Posterior):
    """Radial flow: layers that contract or expand around points that the encoder gives (arXiv:1505.05770)."""

    layers: Annotated[int, AtLeast(1)] = 8
    """Layers of the flow."""

    def outputs(self, latent_dim: int) -> int:
        return 2 * latent_dim + self.layers * (latent_dim + 2)

    def build(self, params, out, step, train) -> flows.Flow:
        """Returns q(z|x); encoder outputs 0 give the identity map."""
        del params, step, train
        # Solved for D: outputs = 2 D + L (D + 2).
        dim = (out.shape[-1] - 2 * self.layers) // (2 + self.layers)
        base, rest = base_and_rest(out, dim)
        # [B, L, D + 2]: center, then the two numbers that alpha and beta are made of.
        each = rest.reshape(out.shape[0], self.layers, dim + 2)
        layers = flows.radial(each[..., :dim], each[..., -2], each[..., -1])
        return flows.Flow(base, Partial(flows.radial_forward, layers), Partial(flows.radial_inverse, layers))


@dataclass(frozen=True)
class InverseAutoregressive(Posterior):
    """IAF: gated autoregressive layers on the sample, steered by a context of the encoder (arXiv:1606.04934)."""

    layers: Annotated[int, AtLeast(1)] = 4
    """Layers of the flow; the order of the dimensions is reversed from one to the next."""
    hidden: Annotated[tuple[int, ...], EACH_AT_LEAST_ONE] = (128,)
    """Widths of the hidden layers of each MADE."""
    context: Annotated[int, AtLeast(1)] = 32
    """Encoder outputs that steer the flow, besides mean and log variance of the base."""

    def outputs(self, latent_dim: int) -> int:
        return 2 * latent_dim + self.context

    def init(self, key: jax.Array, latent_dim: int) -> dict[str, Any]:
        # Trained weights, common to all examples; an example steers them by its context [B, context].
        keys = jax.random.split(key, self.layers)
        return {f"layer{i}": made.init(keys[i], latent_dim, self.context, self.hidden) for i in range(self.layers)}

    def build(self, params, out, step, train) -> flows.Flow:
        del step, train
        base, context = base_and_rest(out, (out.shape[-1] - self.context) // 2)
        # Scales and gates are bounded inside the layers; shifts are not, and would grow with the context.
        context = squashed(context)
        # Sampling is one pass per layer; the inverse takes D passes per layer.
        return flows.Flow(base, Partial(made.iaf_forward, params, context), Partial(made.iaf_inverse, params, context))


@dataclass(frozen=True)
class Coupling(Posterior):
    """RealNVP on the code: affine coupling layers steered by a context of the encoder (arXiv:1605.08803)."""

    layers: Annotated[int, AtLeast(1)] = 4
    """Layers of the flow; each moves every second dimension, 2 or more."""
    hidden: Annotated[tuple[int, ...], EACH_AT_LEAST_ONE] = (128,)
    """Widths of the hidden layers of each net."""
    context: Annotated[int, AtLeast(1)] = 32
    """Encoder outputs that steer the flow, besides mean and log variance of the base."""

    def check(self, latent_dim: int) -> None:
        # One dimension has no other half, and would never be moved.
        if latent_dim < 2:
            raise InputError(
                f"model.latent_dim: {latent_dim} is too few for the coupling posterior, whose layers move one half "
                f"given the other; use 2 or more, or {option('model.posterior', 'planar')}"
            )

    def outputs(self, latent_dim: int) -> int:
        return 2 * latent_dim + self.context

    def init(self, key: jax.Array, latent_dim: int) -> dict[str, Any]:
        return coupling.init(key, latent_dim, self.context, self.layers, self.hidden)

    def build(self, params, out, step, train) -> flows.Flow:
        del step, train
        base, context = base_and_rest(out, (out.shape[-1] - self.context) // 2)
        # As in `InverseAutoregressive`, but both directions take one pass per layer.
        context = squashed(context)
        return flows.Flow(base, Partial(coupling.forward, params, context), Partial(coupling.inverse, params, context))


def squashed(context: jax.Array) -> jax.Array:
    """Returns the context with every entry in (-10, 10): outputs of any size keep the nets in their working range."""
    return 10.0 * jnp.tanh(context / 10.0)
