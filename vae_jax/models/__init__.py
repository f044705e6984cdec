"""Models: configs with `build(image_shape) -> Model`."""

from vae_jax.models.autoencoder import Autoencoder, autoencoder
from vae_jax.models.gaussian import VAE, vae

MODELS = {"vae": VAE, "ae": Autoencoder}

__all__ = ["MODELS", "VAE", "Autoencoder", "autoencoder", "vae"]
