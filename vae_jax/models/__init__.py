"""Models: configs with `check()` and `build(image_shape, facts) -> Model`."""

from vae_jax.models.autoencoder import Autoencoder, autoencoder
from vae_jax.models.classifier import Classifier
from vae_jax.models.multimodal import Multimodal, multimodal
from vae_jax.models.semi import M2, m2
from vae_jax.models.vae import VAE, vae

MODELS = {"vae": VAE, "ae": Autoencoder, "m2": M2, "classifier": Classifier, "multimodal": Multimodal}

__all__ = ["M2", "MODELS", "VAE", "Autoencoder", "Classifier", "Multimodal", "autoencoder", "m2", "multimodal", "vae"]
