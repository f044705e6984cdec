"""MMVAE on MNIST: image and label of one code, fused as a mixture of experts.

Command:    make train EXP=mmvae_mnist
Expect:     ELBO -150.4 +- 0.4, rate 16.57 +- 0.03 nats, accuracy 0.957 +- 0.002, 16 active units (10,000 test images, 1
            seed).
Reference:  Shi et al. 2019, arXiv:1911.03393.
"""

from vae_jax.config import Config, Logging
from vae_jax.data import DataConfig
from vae_jax.models import Multimodal
from vae_jax.networks import MLP


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("mnist", batch_size=100, binarize="dynamic"),
        model=Multimodal(latent_dim=16, network=MLP((256,)), fusion="moe"),
        logging=Logging(figures_minutes=0.0),
    )
