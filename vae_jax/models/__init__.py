"""Models: configs with `check()` and `build(spec) -> Model`."""

from vae_jax.models.autoencoder import Autoencoder
from vae_jax.models.classifier import Classifier
from vae_jax.models.multimodal import Multimodal
from vae_jax.models.semi import M2
from vae_jax.models.single import VAE

MODELS = {"vae": VAE, "ae": Autoencoder, "m2": M2, "classifier": Classifier, "multimodal": Multimodal}

__all__ = ["M2", "MODELS", "VAE", "Autoencoder", "Classifier", "Multimodal"]
