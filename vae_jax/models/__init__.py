"""Models: configs with `check()` and `build(spec) -> Model`."""

from vae_jax.models.autoencoder import Autoencoder as Autoencoder
from vae_jax.models.classifier import Classifier as Classifier
from vae_jax.models.multimodal import Multimodal as Multimodal
from vae_jax.models.semi import M2 as M2
from vae_jax.models.single import VAE as VAE
from vae_jax.models.stage2.config import SecondStage as SecondStage
from vae_jax.models.vq import VQVAE as VQVAE
from vae_jax.models.vq2 import VQVAE2 as VQVAE2

MODELS = {
    "vae": VAE,
    "ae": Autoencoder,
    "m2": M2,
    "classifier": Classifier,
    "multimodal": Multimodal,
    "vq": VQVAE,
    "vq2": VQVAE2,
    "second-stage": SecondStage,
}
