"""What models share that encode or decode one example several times: classes that are summed out, modalities."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax.likelihoods import LIKELIHOODS, PixelLikelihood
from vae_jax.model import Params
from vae_jax.networks import NETWORKS, Network
from vae_jax.options import needs
from vae_jax.options.needs import Need


class Several:
    """Base of the models with several decodings of one example."""

    network: Network
    likelihood: PixelLikelihood

    def needs(self) -> tuple[Need, ...]:
        """Returns what its components must give."""
        # An autoregressive decoder would read x once per decoding, dropout would differ between them, and a running
        # error is that of one decoding. Classes and modalities are weighed by densities.
        return (
            Need("network", ("one pass",)),
            Need("network", ("no noise",)),
            Need("network", ("vector code",)),
            Need("likelihood", ("no running state",)),
            Need("likelihood", ("normalized",)),
        )


def check_several(model: Several, name: str) -> None:
    """Raises InputError for components that a model with several decodings of one example cannot take."""
    needs.check(
        {"network": model.network, "likelihood": model.likelihood, "model": model},
        {"network": NETWORKS, "likelihood": LIKELIHOODS, "model": {name: type(model)}},
    )


def encoded(module: nn.Module, params: Params, name: str, x: jax.Array) -> jax.Array:
    """Returns what an encoder with the parameters `name` gives of x, float32 [B, outputs].

    Args:
      module: the encoder.
      params: of the model.
      name: entry of the group `vae` that holds the encoder's parameters.
      x: data [B, *x.shape].

    Returns:
      float32 whatever precision the network computes in.
    """
    # float32 from here on: densities are sums over many terms, whatever type the network computes in.
    return jnp.asarray(module.apply({"params": params["vae"][name]}, x), jnp.float32)


def decoded(module: nn.Module, likelihood: PixelLikelihood, params: Params, z: jax.Array) -> Any:
    """Returns p(x|z) of the decoder's inputs z [N, D].

    Args:
      module: the decoder.
      likelihood: what its outputs are made into; without running state.
      params: of the model.
      z: inputs of the decoder, codes with what is joined to them, [N, D].

    Returns:
      a decoded distribution over data [N, *x.shape].
    """
    out = jnp.asarray(module.apply({"params": params["vae"]["decoder"]}, z), jnp.float32)
    # No running state: `check_several` refuses likelihoods that keep one.
    return likelihood.build(out, params["vae"].get("likelihood", {}), {})
