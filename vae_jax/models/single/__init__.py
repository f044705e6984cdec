"""The single-latent family: options, parts, one forward pass, and the model that is built of them."""

from vae_jax.models.single.build import VAE

__all__ = ["VAE"]
