"""Models: configs with `check()` and `build(image_shape, facts) -> Model`."""

from vae_jax.models.autoencoder import Autoencoder, autoencoder
from vae_jax.models.vae import VAE, vae

MODELS = {"vae": VAE, "ae": Autoencoder}

__all__ = ["MODELS", "VAE", "Autoencoder", "autoencoder", "vae"]
